"""What is done with each item of a batch, and the record that it becomes."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rsvp.batch.items import BatchItem
from rsvp.batch.tasks import Task
from rsvp.evaluation.outcomes import Outcome, catch
from rsvp.images import load_image
from rsvp.pipeline import Pipeline
from rsvp.platform.lru import LRUCache
from rsvp.reasoning import ReasoningOutput
from rsvp.result import Result
from rsvp.types import Image, Usage


class BatchError(BaseModel):
    """Why an item has no result."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="The class of the error.")
    message: str


class BatchRecord(BaseModel):
    """A line of `results.jsonl`: `id`, `asked`, and the fields of `result.json` or `error`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    image: dict[str, Any] = Field(description="As in `result.json`; of a failure only `path`.")
    asked: dict[str, Any] = Field(
        description="The query or question, and boxes, points, hints and choices if any."
    )
    error: BatchError | None = Field(default=None, description="Only of a failure.")
    usage: Usage | None = Field(default=None, description="Missing for a failure.")
    no_target: bool | None = Field(default=None, description="Missing but for --task segment.")

    def to_dict(self) -> dict[str, Any]:
        missing = {name for name in ("error", "usage", "no_target") if getattr(self, name) is None}
        return self.model_dump(exclude=missing)


class _Slot:
    """An image that is opened once, by the first thread that needs it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.image: Outcome[Image] | None = None


class _Images:
    """The images used last, opened once each.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._slots: LRUCache[_Slot] = LRUCache(count)

    def open(self, path: str) -> Outcome[Image]:
        with self._lock:
            slot = self._slots.get(path, _Slot)
        with slot.lock:
            if slot.image is None:
                with catch(path) as outcome:
                    outcome.value = load_image(path)
                slot.image = outcome
            return slot.image


@dataclass(frozen=True, slots=True)
class BatchWork:
    """The items of a batch that have no record yet; see `rsvp.evaluation.engines.local.RunWork`.

    A failure of any kind that concerns one item alone becomes its record.

    Attributes:
        kept_images: of so many images the pixels are kept, for further queries.
    """

    items: Sequence[BatchItem]
    indices: Sequence[int]
    task: Task
    kept_images: int = 1
    images: _Images | None = field(default=None, compare=False)

    def portable(self) -> BatchWork:
        items = [replace(item, image=os.path.abspath(item.image)) for item in self.items]
        return replace(self, items=items, images=None)

    def opened(self) -> BatchWork:
        return replace(self, images=_Images(self.kept_images))

    def sample(self, index: int) -> BatchItem:
        return self.items[index]

    def open_image(self, item: BatchItem) -> Outcome[Image]:
        assert self.images is not None
        return self.images.open(item.image)

    def reason(
        self, pipeline: Pipeline, item: BatchItem, image: Outcome[Image]
    ) -> Outcome[ReasoningOutput | Result]:
        """Stage 1; an image that cannot be opened has failed before it."""
        if image.value is None:
            return Outcome(failure=image.failure)
        with catch(item.id) as output:
            output.value = self.task.reason(pipeline, item, image.value)
        return output

    def segment(
        self,
        pipeline: Pipeline,
        item: BatchItem,
        image: Outcome[Image],
        output: Outcome[ReasoningOutput | Result],
    ) -> Outcome[Result]:
        """Stage 2; a failed stage 1 stays failed."""
        done = output.value
        if output.failure is not None or image.value is None or isinstance(done, Result):
            return Outcome(done if isinstance(done, Result) else None, output.failure, output.raw)
        with catch(item.id) as found:
            if done is None:
                found.value = pipeline.run(item.request(image.value))
            else:
                found.value = pipeline.segment_proposals(image.value, done)
        return found

    def record(self, item: BatchItem, outcome: Outcome[Result]) -> BatchRecord:
        if outcome.value is not None:
            document = outcome.value.to_dict()
            return BatchRecord.model_validate({"id": item.id, "asked": item.asked, **document})
        failed = {"id": item.id, "asked": item.asked, "image": {"path": item.image}}
        if outcome.raw:
            failed["reply"] = outcome.raw
        if (why := outcome.failure) is not None:
            failed["error"] = {"type": why.error, "message": why.message}
        return BatchRecord.model_validate(failed)

    def load(self, record: Any) -> BatchRecord:
        return BatchRecord.model_validate(record)
