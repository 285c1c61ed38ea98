"""Pictures of a result: `overlay.png`, `prompt.png`, `masks/000.png …` and `looks/000.png …`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rsvp.drawing import overlay
from rsvp.trace import TracedQuestion
from rsvp.types import AnsweredQuestion, RgbArray, Segmentation
from rsvp.writers.common import look_file, mask_file, png


def write_overlay(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The targets drawn on the image."""
    yield "overlay.png", png(overlay_of(result))


def overlay_of(result: Segmentation) -> RgbArray:
    """(H, W, 3) uint8: the targets drawn on the image; those of a path with their numbers."""
    if isinstance(result, TracedQuestion):
        named = [replace(t, label=f"{n} {t.label}") for n, t in enumerate(result.targets, start=1)]
        return overlay(result.image.rgb, named, "no object has a place")
    looked = isinstance(result, AnsweredQuestion) and not result.looks
    return overlay(result.image.rgb, result.targets, "no closer look" if looked else "no target")


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
