"""`index.png`: 0 for the background, k in the pixels of the k-th target.

With the palette of PASCAL VOC and DAVIS, or as 16-bit greyscale where there are more targets than
an 8-bit palette has entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from rsvp.errors import BadInput
from rsvp.types import Segmentation
from rsvp.writers.common import png

_VOID = 255  # PASCAL VOC's "ignore" label: never a target's number


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    numbers = to_index_mask(result)
    image = Pil.fromarray(numbers)
    if numbers.max() < _VOID:
        image = Pil.fromarray(numbers.astype(np.uint8))
        image.putpalette(_voc_colours())
    yield "index.png", png(image)


def to_index_mask(result: Segmentation) -> NDArray[np.uint16]:
    """(H, W) uint16: 0, or a target's position counted from 1.

    Where targets overlap, the smaller one wins, so that a part is not hidden by the whole.

    Raises:
        BadInput: more targets than 16 bits can count.
    """
    if len(result.targets) > np.iinfo(np.uint16).max:
        raise BadInput(f"an index mask holds at most 65,535 targets, found {len(result.targets)}")
    numbers = np.zeros((result.image.height, result.image.width), dtype=np.uint16)
    numbered = enumerate((target.packed for target in result.targets), start=1)
    for number, mask in sorted(numbered, key=lambda item: -item[1].area):
        numbers[mask.unpack()] = number
    return numbers


def _voc_colours() -> bytes:
    """PASCAL VOC's colour map: the bits of a number go to red, green and blue in turn, the lowest
    number bits to the highest colour bits."""
    number, bit, channel = np.ogrid[:256, :8, :3]
    bits = (number >> (3 * bit + channel) & 1) * (128 >> bit)
    return bits.sum(axis=1).astype(np.uint8).tobytes()
