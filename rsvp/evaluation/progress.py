"""The progress of a run: time left, running score, tokens, failures; a bar, or lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol

from rich import progress
from rich.console import Console

EVERY = 60.0  # seconds between two lines, where there is no terminal


class Counts(Protocol):
    """What is known of a run so far.

    Attributes:
        n: the number of records.
        failed: how many of them have no answer.
        tokens: that the MLLM read and wrote.
        headline: a number of the run's own and its name.
    """

    @property
    def n(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def headline(self) -> tuple[str, float | None]: ...


@contextlib.contextmanager
def show_progress(
    name: str, total: int, aggregator: Counts, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """A bar on stderr inside `with`, lines where that is no terminal; gives what updates it."""
    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        "{task.fields[score]}",
        "{task.fields[tokens]} tokens",
        "{task.fields[failed]} failed",
        progress.TimeElapsedColumn(),
        "left",
        progress.TimeRemainingColumn(),
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

    with bar:
        task = bar.add_task(name, total=total, **fields())
        lines = _Lines(name, total, aggregator.n)

        def update() -> None:
            if bar.disable:
                if shown:
                    lines.update(fields())
            else:
                bar.update(task, **fields())

        yield update


class _Lines:
    """A line on stderr every `EVERY` seconds, for logs."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self._name, self._total, self._before = name, total, done
        self._started = self._last = time.monotonic()

    def update(self, fields: Mapping[str, Any]) -> None:
        """Print the line where it is time for one."""
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last, done = now, fields["completed"]
        left = (now - self._started) / (done - self._before) * (self._total - done)
        print(
            f"{self._name}: {done} of {self._total}, {fields['score']}, {fields['tokens']} tokens, "
            f"{fields['failed']} failed, {timedelta(seconds=round(left))} left",
            file=sys.stderr,
            flush=True,
        )
