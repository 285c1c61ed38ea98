"""Pictures of a result: `overlay.png`, `prompt.png`, `masks/000.png …` and `looks/000.png …`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from rsvp.drawing import overlay
from rsvp.platform.files import atomic_write
from rsvp.trace import TracedQuestion
from rsvp.types import AnsweredQuestion, RgbArray, Segmentation
from rsvp.writers.common import png


def write_overlay(result: Segmentation, folder: Path) -> Iterator[Path]:
    """The targets drawn on the image."""
    yield atomic_write(folder / "overlay.png", png(overlay_of(result)))


def overlay_of(result: Segmentation) -> RgbArray:
    """(H, W, 3) uint8: the targets drawn on the image; those of a path with their numbers."""
    if isinstance(result, TracedQuestion):
        named = [replace(t, label=f"{n} {t.label}") for n, t in enumerate(result.targets, start=1)]
        return overlay(result.image.rgb, named, "no object has a place")
    looked = isinstance(result, AnsweredQuestion) and not result.looks
    return overlay(result.image.rgb, result.targets, "no closer look" if looked else "no target")


def write_prompt(result: Segmentation, folder: Path) -> Iterator[Path]:
    """What the MLLM saw; without an MLLM, the file of an earlier result is removed."""
    if result.shown is None:
        (folder / "prompt.png").unlink(missing_ok=True)
    else:
        yield atomic_write(folder / "prompt.png", png(result.shown))


def write_masks(result: Segmentation, folder: Path) -> Iterator[Path]:
    """A mask for each target, 0 and 255; those of an earlier result with more are removed."""
    masks = [target.mask.astype("uint8") * 255 for target in result.targets]
    yield from _write_numbered(masks, folder / "masks")


def write_looks(result: Segmentation, folder: Path) -> Iterator[Path]:
    """What the MLLM was shown in the closer looks of an answer."""
    looks = result.looks if isinstance(result, AnsweredQuestion) else ()
    pictures = [look.picture for look in looks if look.picture is not None]
    yield from _write_numbered(pictures, folder / "looks")


def _write_numbered(pictures: Sequence[RgbArray], folder: Path) -> Iterator[Path]:
    """`000.png …`; those of an earlier result with more are removed."""
    if pictures:
        folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        yield atomic_write(folder / f"{number:03d}.png", png(picture))
    for number in count(len(pictures)):
        old = folder / f"{number:03d}.png"
        if not old.is_file():
            return
        old.unlink()
