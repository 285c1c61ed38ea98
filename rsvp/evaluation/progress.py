"""The progress of a run on a terminal: bar, time left, running gIoU, tokens, failures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich import progress
from rich.console import Console

from rsvp.evaluation.summary import RunAggregator


@contextlib.contextmanager
def show_progress(
    name: str, total: int, aggregator: RunAggregator, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """A bar on stderr inside `with`, where that is a terminal; gives what updates it."""
    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        "gIoU {task.fields[giou]}",
        "{task.fields[tokens]} tokens",
        "{task.fields[failed]} failed",
        progress.TimeElapsedColumn(),
        "left",
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (shown and sys.stderr.isatty()),
    )

    def fields() -> dict[str, Any]:
        giou = aggregator.mean_iou
        return {
            "completed": aggregator.n,
            "giou": "–" if giou is None else f"{giou:.3f}",
            "tokens": f"{aggregator.tokens:,}",
            "failed": aggregator.failed,
        }

    with bar:
        task = bar.add_task(name, total=total, **fields())
        yield lambda: bar.update(task, **fields())
