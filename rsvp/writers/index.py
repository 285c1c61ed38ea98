"""A PNG of whole numbers: 0 where there is nothing, k in the pixels of the k-th target.

With a palette, as PASCAL VOC and DAVIS have it, so that it can be looked at; with more targets than
a palette of 8 bits names, greyscale of 16 bits.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from rsvp.errors import BadInput
from rsvp.types import Segmentation

_PALETTE = 256
_IGNORED = 255  # "void" in PASCAL VOC: never a target's number


def to_index_mask(result: Segmentation) -> NDArray[np.uint16]:
    """(H, W) uint16: 0, or a target's position counted from 1.

    Where targets overlap, the smaller one is seen, so that a part is not lost in its whole.

    Raises:
        BadInput: more targets than 16 bits count.
    """
    if len(result.targets) > np.iinfo(np.uint16).max:
        raise BadInput(f"an index mask holds at most 65,535 targets, found {len(result.targets)}")
    numbers = np.zeros((result.image.height, result.image.width), dtype=np.uint16)
    sizes = [int(target.mask.sum()) for target in result.targets]
    for position in sorted(range(len(sizes)), key=lambda position: -sizes[position]):
        numbers[result.targets[position].mask] = position + 1
    return numbers


def index_png(numbers: NDArray[np.uint16]) -> bytes:
    """The numbers (H, W) as the bytes of a PNG file."""
    if numbers.max() < _IGNORED:
        image = Pil.fromarray(numbers.astype(np.uint8)).convert("L")
        image.putpalette(_colours())
    else:
        image = Pil.fromarray(numbers)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _colours() -> bytes:
    """PASCAL VOC's colour map: a number's bits dealt to red, green and blue, highest first."""
    colours = np.zeros((_PALETTE, 3), dtype=np.uint8)
    for number in range(_PALETTE):
        for bit in range(8):
            for channel in range(3):
                if number >> (3 * bit + channel) & 1:
                    colours[number, channel] |= 128 >> bit
    return colours.tobytes()
