"""The progress of a run on a terminal: bar, time left, running score, tokens, failures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich import progress
from rich.console import Console

from rsvp.evaluation.answers import AnswerAggregator
from rsvp.evaluation.summary import RunAggregator


@contextlib.contextmanager
def show_progress(
    name: str, total: int, aggregator: RunAggregator | AnswerAggregator, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """A bar on stderr inside `with`, where that is a terminal; gives what updates it."""
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
        yield lambda: bar.update(task, **fields())
