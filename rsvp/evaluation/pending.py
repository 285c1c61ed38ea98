"""The loop of every run that can be resumed: answer what has no record yet, append its record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rsvp.errors import BadInput
from rsvp.evaluation import records
from rsvp.evaluation.progress import Counts, show_progress
from rsvp.evaluation.records import RecordsFile

R = TypeVar("R")


class RecordCounts(Counts, Protocol):
    """Counts the records of a run; `model` is the pydantic model of one."""

    model: Any

    def add(self, record: Any, /) -> None:
        """Count one record."""


def answer_pending(
    file: Path,
    ids: Sequence[str],
    aggregator: RecordCounts,
    answer: Callable[[list[int]], Generator[R, None, None]],
    *,
    name: str,
    progress: bool,
) -> Iterator[R]:
    """The records of the samples that have none yet, each after it was written.

    Args:
        file: the records of an earlier run, or none yet; new ones are appended.
        ids: of all samples.
        aggregator: gets the earlier records first, then each new one.
        answer: the records of samples by their indices, as they get done.
        name: of the run, on its progress bar.
        progress: show one where stderr is a terminal.

    Raises:
        BadInput: the file holds another run, or cannot be written; and what `answer` raises.
    """
    with RecordsFile(file) as stream:
        done = replay(file, ids, aggregator)
        pending = [i for i, sample_id in enumerate(ids) if sample_id not in done]
        with (
            show_progress(name, len(ids), aggregator, shown=progress) as update,
            contextlib.closing(answer(pending)) as answered,
        ):
            record: Any
            for record in answered:
                stream.append(record.to_dict())
                aggregator.add(record)
                update()
                yield record


def replay(file: Path, ids: Sequence[str], aggregator: RecordCounts) -> set[str]:
    """Add the records that are there; the ids of their samples. BadInput where one is broken."""
    expected, done = set(ids), set()
    for record in records.read(file, aggregator.model):
        if record.id not in expected:
            raise BadInput(f"{file}: {record.id!r} is not a sample of this run")
        done.add(record.id)
        aggregator.add(record)
    return done
