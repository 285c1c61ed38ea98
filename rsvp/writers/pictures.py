"""Pictures of a result: `overlay.png`, `prompt.png` and `masks/000.png …`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rsvp.drawing import overlay
from rsvp.platform.files import atomic_write
from rsvp.types import Segmentation
from rsvp.writers.common import png


def write_overlay(result: Segmentation, folder: Path) -> Iterator[Path]:
    """The targets drawn on the image."""
    yield atomic_write(folder / "overlay.png", png(overlay(result.image.rgb, result.targets)))


def write_prompt(result: Segmentation, folder: Path) -> Iterator[Path]:
    """What the MLLM saw; without an MLLM, the file of an earlier result is removed."""
    if result.shown is None:
        (folder / "prompt.png").unlink(missing_ok=True)
    else:
        yield atomic_write(folder / "prompt.png", png(result.shown))


def write_masks(result: Segmentation, folder: Path) -> Iterator[Path]:
    """A mask for each target, 0 and 255; those of an earlier result with more are removed."""
    masks = folder / "masks"
    if result.targets:
        masks.mkdir(exist_ok=True)
    for number, target in enumerate(result.targets):
        yield atomic_write(masks / f"{number:03d}.png", png(target.mask.astype("uint8") * 255))
    for number in count(len(result.targets)):
        old = masks / f"{number:03d}.png"
        if not old.is_file():
            return
        old.unlink()
