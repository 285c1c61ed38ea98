"""What the pipeline returns: the values of `rsvp.types.Segmentation`, saved, drawn and exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsvp import writers
from rsvp.trace import TracedQuestion
from rsvp.types import AnsweredQuestion, RgbArray, Segmentation
from rsvp.writers.pictures import overlay_of


class Result(Segmentation):
    """The answer to one query on one image."""

    def save(self, directory: str, formats: Sequence[str] = writers.DEFAULT_FORMATS) -> None:
        """Write the result into `directory`; see `rsvp.writers.write`."""
        with writers.output_folder(directory, formats) as folder:
            writers.write(self, folder, formats)

    def overlay(self) -> RgbArray:
        """(H, W, 3) uint8: the masks drawn on the image."""
        return overlay_of(self)

    def to_dict(self) -> dict[str, Any]:
        """The result as `result.json` holds it."""
        return writers.to_dict(self)

    def to_html(self) -> str:
        """The result as one page, which replays the reasoning step by step."""
        return writers.to_html(self)

    def to_coco(self, *, rle: bool = False) -> dict[str, Any]:
        """The targets as a COCO instances dictionary; see `rsvp.writers.to_coco`."""
        return writers.to_coco(self, rle=rle)

    def to_supervision(self) -> Any:
        """The targets as `supervision.Detections`; needs the extra ``supervision``."""
        return writers.to_supervision(self)


class Answer(AnsweredQuestion, Result):
    """The answer to one question about one image; the targets are those of its looks."""

    def save(self, directory: str, formats: Sequence[str] = writers.ANSWER_FORMATS) -> None:
        """Write the answer into `directory`; see `rsvp.writers.write`."""
        super().save(directory, formats)


class Trace(TracedQuestion, Result):
    """A question answered by a reasoning path; the targets are all objects that it names."""

    def save(self, directory: str, formats: Sequence[str] = writers.TRACE_FORMATS) -> None:
        """Write the trace into `directory`; see `rsvp.writers.write`."""
        super().save(directory, formats)
