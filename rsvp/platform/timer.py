"""Seconds by stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping


class StageTimer:
    """Seconds by stage, and in total since it was made.

    Args:
        seconds: spent before, by stage; they count into the total.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)
        self._started = time.perf_counter() - sum(seconds.values())

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    @contextlib.contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """A stage without what other stages inside of it take."""
        started = time.perf_counter() - sum(self.seconds.values())
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started - sum(self.seconds.values()))

    def total(self) -> dict[str, float]:
        """The stages and ``total``; without ``load`` where nothing had to be loaded."""
        if self.seconds.get("load", 0.0) < 0.001:
            self.seconds.pop("load", None)
        return {**self.seconds, "total": time.perf_counter() - self._started}
