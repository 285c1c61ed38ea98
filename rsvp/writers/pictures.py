"""Pictures of a result: the overlay, the prompt, masks one by one or in one index, and looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from rsvp.drawing import overlay
from rsvp.errors import BadInput
from rsvp.trace import TracedQuestion
from rsvp.types import AnsweredQuestion, RgbArray, Segmentation
from rsvp.writers.common import look_file, mask_file, png

_VOID = 255  # PASCAL VOC's "ignore" label: never a target's number


def write_overlay(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The targets drawn on the image."""
    yield "overlay.png", png(overlay_of(result))


def overlay_of(result: Segmentation) -> RgbArray:
    """(H, W, 3) uint8: the targets drawn on the image; those of a path with their numbers."""
    path, notice = isinstance(result, TracedQuestion), "no target"
    if isinstance(result, AnsweredQuestion) and not result.looks:
        notice = "no closer look"
    elif path:
        notice = "no object has a place"
    notice = "not understood" if result.unanswered else notice
    return overlay(result.image.rgb, result.targets, notice, first=int(path))


def write_prompt(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What the MLLM saw, if one was asked."""
    if result.shown is not None:
        yield "prompt.png", png(result.shown)


def write_masks(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """A mask for each target, 0 and 255."""
    for number, target in enumerate(result.targets):
        yield mask_file(number), png(target.mask.astype("uint8") * 255)


def write_looks(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What the MLLM was shown in the closer looks of an answer."""
    looks = result.looks if isinstance(result, AnsweredQuestion) else ()
    pictures = [look.picture for look in looks if look.picture is not None]
    for number, picture in enumerate(pictures):
        yield look_file(number), png(picture)


def write_index(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each target's number, 0 for the background: `index.png`.

    With the palette of PASCAL VOC and DAVIS, or as 16-bit greyscale where there are more targets
    than an 8-bit palette has entries.
    """
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
    return np.asarray(bits.sum(axis=1), dtype=np.uint8).tobytes()
