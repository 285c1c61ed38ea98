"""The loop of every run that can be resumed: answer what has no record yet, append its record.

Its progress (time left, running score, tokens, failures) is a bar, or lines in a log.
"""

from __future__ import annotations

import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rich import progress as bars
from rich.console import Console

from rsvp.errors import BadInput
from rsvp.evaluation import records
from rsvp.evaluation.records import RecordsFile

R = TypeVar("R")


EVERY = 60.0  # seconds between two lines, where there is no terminal


class RecordCounts(ABC):
    """Counts the records of a run.

    Attributes:
        model: the pydantic model of a record.
        n: how many there are so far.
        causes: of those that have no answer.
        tokens: that the MLLM read and wrote.
    """

    model: ClassVar[type[Any]]

    def __init__(self) -> None:
        self.n = self.tokens = 0
        self.causes: Counter[Any] = Counter()

    @property
    def failed(self) -> int:
        return self.causes.total()

    @property
    @abstractmethod
    def headline(self) -> tuple[str, float | None]:
        """A number of the run's own and its name."""

    def add(self, record: Any) -> None:
        """Count one record."""
        self.n += 1
        if record.usage is not None:
            self.tokens += record.usage.prompt_tokens + record.usage.completion_tokens


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


@contextlib.contextmanager
def show_progress(
    name: str, total: int, aggregator: RecordCounts, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """A bar on stderr inside `with`, lines where that is no terminal; gives what updates it."""
    bar = bars.Progress(
        "{task.description}",
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        "{task.fields[score]}",
        "{task.fields[tokens]} tokens",
        "{task.fields[failed]} failed",
        bars.TimeElapsedColumn(),
        "left",
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (shown and sys.stderr.isatty()),
    )

    def fields() -> dict[str, Any]:
        label, value = aggregator.headline
        return {
            "completed": aggregator.n,
            "score": f"{label} " + ("–" if value is None else f"{value:.3f}"),
            "tokens": f"{aggregator.tokens:,}",
            "failed": aggregator.failed,
        }

    started = last = time.monotonic()
    before = aggregator.n

    def print_line() -> None:
        nonlocal last
        if (now := time.monotonic()) - last < EVERY:
            return
        last, done = now, aggregator.n
        left = timedelta(seconds=round((now - started) / (done - before) * (total - done)))
        found = fields()
        text = f"{done} of {total}, {found['score']}, {found['tokens']} tokens"
        text = f"{name}: {text}, {found['failed']} failed, {left} left"
        print(text, file=sys.stderr, flush=True)

    with bar:
        task = bar.add_task(name, total=total, **fields())

        def update() -> None:
            if not bar.disable:
                bar.update(task, **fields())
            elif shown:
                print_line()

        yield update
