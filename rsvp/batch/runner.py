"""Many images with any pipeline: one record a query, and a data set of all of them at the end.

A batch's folder holds `config.json`, `results.jsonl` and what its formats ask for. It is the run of
`rsvp.evaluation` without truth: the same engines, records, locks and progress.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from rsvp.batch.gather import Gathered
from rsvp.batch.items import BatchItem
from rsvp.batch.tasks import SegmentTask, Task
from rsvp.batch.work import BatchRecord, BatchWork
from rsvp.errors import BadInput
from rsvp.evaluation import config, records
from rsvp.evaluation.config import RunDocument
from rsvp.evaluation.engines.local import Engine, LocalEngine
from rsvp.evaluation.pending import RecordCounts, answer_pending
from rsvp.pipeline import Pipeline
from rsvp.platform.files import locked
from rsvp.writers.dataset import check_dataset_formats, write_dataset

RESULTS = "results.jsonl"


class BatchSettings(BaseModel, frozen=True):
    """What decides the records: a batch may only be resumed with the same settings."""

    task: str
    pipeline: dict[str, Any] = Field(description="Names and settings of the pipeline's parts.")
    settings: dict[str, Any] = Field(description="What else the batch was given, e.g. the preset.")


class BatchConfig(RunDocument[BatchSettings]):
    """A batch's `config.json`."""


class BatchTally(RecordCounts):
    model = BatchRecord

    def __init__(self, items: Sequence[BatchItem] = ()) -> None:
        super().__init__()
        self._items = {item.id: item for item in items}
        self.no_target = 0
        self.begin()

    def begin(self) -> None:
        """Measure the throughput from now on."""
        self._before, self._started, self.seconds = self.n, time.monotonic(), 0.0

    @property
    def rate(self) -> float | None:
        new = self.n - self._before
        return new / self.seconds if new and self.seconds else None

    @property
    def headline(self) -> tuple[str, float | None]:
        return "queries/s", self.rate

    def add(self, record: BatchRecord) -> None:
        """Count one record; BadInput where the batch now asks something else."""
        if record.asked != self._items[record.id].asked:
            raise BadInput(
                f"cannot resume: {record.id!r} was asked {record.asked}, now it is "
                f"{self._items[record.id].asked}; ask for the same or choose another folder"
            )
        super().add(record)
        self.seconds = time.monotonic() - self._started
        if record.error is not None:
            self.causes[record.error.type, record.error.message] += 1
        elif record.no_target:
            self.no_target += 1


@dataclass(eq=False)
class Batch:
    """A batch; iterating over it runs it and gives each new record once it is written.

    An item that fails becomes a record with its cause. Stopped or killed at any moment, the batch
    with `resume` leads to the records (but for timings) and the data set of one that never was.

    Args:
        items: what is asked; see `rsvp.batch.items.read_items`. A resumed batch may have more.
        pipeline: answers them.
        task: what is done with each; by default it is segmented.
        out: the folder; it must be new or empty, unless the batch is resumed.
        formats: of the data set; see `rsvp.writers.dataset`.
        retry_failed: resume, and ask the failed items again.
        concurrency: see `rsvp.evaluation.engines.local.LocalEngine`.
        engine: answers the items; by default this process, with `pipeline`.
        progress: show a bar where stderr is a terminal.
        settings: what else `config.json` records and a resumed batch must share.

    Attributes:
        tally: what is done so far.
        records: the file of the records.
        files: what was written of the data set, at the end.

    Raises:
        BadInput: while iterating: a folder that holds anything else or in which another process is
            at work, other settings than those of the batch that is resumed.
        ModelUnavailable, MissingExtra, AccessDenied: no item could be answered.
    """

    items: Sequence[BatchItem]
    pipeline: Pipeline
    out: str | Path
    _: KW_ONLY
    task: Task = field(default_factory=SegmentTask)
    formats: Sequence[str] = ()
    resume: bool = False
    retry_failed: bool = False
    concurrency: int | None = None
    engine: Engine | None = None
    progress: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.formats = check_dataset_formats(self.formats)
        self.task.check(self.pipeline)
        self._local = LocalEngine(self.pipeline, self.concurrency)
        self._folder = Path(self.out)
        self.tally, self.files = BatchTally(), list[Path]()
        self.records = self._folder / RESULTS

    def __iter__(self) -> Iterator[BatchRecord]:
        file, ids = self.records, [item.id for item in self.items]
        self.tally = BatchTally(self.items)
        with locked(self._folder):
            run = BatchSettings(
                task=self.task.name,
                pipeline=self.task.described(self.pipeline),
                settings=dict(self.settings),
            )
            document = BatchConfig(run=run, environment=config.environment())
            document.prepare(self._folder, resume=self.resume or self.retry_failed)
            if self.retry_failed:
                records.drop_failed(file)
            yield from answer_pending(
                file, ids, self.tally, self._answer, name="batch", progress=self.progress
            )
            records.keep_records(file, ids)
            if self.formats:
                entries = Gathered(file, self.items)
                self.files = write_dataset(entries, self._folder, self.formats)

    def run(self) -> BatchTally:
        """Run it to its end; what it came to."""
        for _ in self:
            pass
        return self.tally

    def _answer(self, pending: list[int]) -> Generator[BatchRecord, None, None]:
        """The queries on an image one after the other, so that it is opened and encoded once."""
        first: dict[str, int] = {}
        for index in pending:
            first.setdefault(self.items[index].image, index)
        pending.sort(key=lambda index: (first[self.items[index].image], index))
        kept = 1 if len(first) == len(pending) else self._local.in_flight
        self.pipeline.keep_images(kept)
        self.tally.begin()
        answer = self.engine or self._local
        return answer(BatchWork(self.items, pending, self.task, kept).opened())
