"""The progress of a run on a terminal: bar, time left, running gIoU, tokens, failures."""

from __future__ import annotations

import sys

from rich import progress
from rich.console import Console

from rsvp.evaluation.summary import RunAggregator


class RunProgress:
    """A bar on stderr while inside `with`; nothing at all where stderr is no terminal."""

    def __init__(self, name: str, total: int, aggregator: RunAggregator, *, shown: bool) -> None:
        self._aggregator = aggregator
        self._bar = progress.Progress(
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
        self._task = self._bar.add_task(
            name, total=total, completed=aggregator.n, giou="–", tokens=0, failed=0
        )

    def update(self) -> None:
        """Show the numbers so far."""
        giou = self._aggregator.mean_iou
        self._bar.update(
            self._task,
            completed=self._aggregator.n,
            giou="–" if giou is None else f"{giou:.3f}",
            tokens=f"{self._aggregator.tokens:,}",
            failed=self._aggregator.failed,
        )

    def __enter__(self) -> RunProgress:
        self._bar.start()
        self.update()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
