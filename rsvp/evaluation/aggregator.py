"""From one value a sample to the numbers of all samples, of each kind and of each tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class Aggregator(Generic[T, S]):
    """Collects one value a sample and summarizes groups of them.

    Values stay in the order in which they come: it decides the bootstrap's draws. `summarize` gives
    the numbers of some of the values.
    """

    def __init__(self, summarize: Callable[[Sequence[T]], S]) -> None:
        self.values: list[T] = []
        self._summarize = summarize
        self._kinds: dict[str, list[int]] = defaultdict(list)
        self._tags: dict[str, list[int]] = defaultdict(list)
        self._overall: tuple[int, S] | None = None  # (number of values, their numbers)

    def append(self, value: T, kinds: Sequence[str] = (), tags: Sequence[str] = ()) -> None:
        """Add the value of the next sample."""
        for groups, names in ((self._kinds, kinds), (self._tags, tags)):
            for name in names:
                groups[name].append(len(self.values))
        self.values.append(value)

    def overall(self) -> S:
        """The numbers of all samples."""
        if self._overall is None or self._overall[0] != len(self.values):
            self._overall = len(self.values), self._summarize(self.values)
        return self._overall[1]

    def numbers(self) -> S | Mapping[str, Any]:
        """The numbers to report of all samples."""
        return self.overall()

    def by_kind(self) -> dict[str, S]:
        """The numbers of each kind, in the order in which the kinds first appear."""
        return self._grouped(self._kinds)

    def by_tag(self) -> dict[str, S]:
        """The numbers of each tag, likewise."""
        return self._grouped(self._tags)

    def _grouped(self, groups: Mapping[str, list[int]]) -> dict[str, S]:
        return {
            name: self.overall()  # a group of all samples is not resampled again
            if len(indices) == len(self.values)
            else self._summarize([self.values[i] for i in indices])
            for name, indices in groups.items()
        }
