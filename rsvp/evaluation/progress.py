"""The progress of a run: time left, running score, tokens, failures; a bar, or lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
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
