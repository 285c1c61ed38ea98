"""The one cache of the last few results: of encodings, candidates and text states."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class LRUCache(Generic[V]):
    """Keeps the most recently used values; not thread-safe, the owner holds a lock.

    Args:
        max_items: the least recently used item beyond this number is dropped.
        max_weight: likewise beyond this total weight; None is unlimited.
        weight: of one value, e.g. its number of elements.
    """

    def __init__(
        self,
        max_items: int,
        *,
        max_weight: float | None = None,
        weight: Callable[[V], float] = lambda _: 0.0,
    ) -> None:
        self._max_items, self._max_weight, self._weight = max_items, max_weight, weight
        self._items: OrderedDict[Hashable, V] = OrderedDict()
        self._total = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def grow(self, max_items: int) -> None:
        """Keep at least so many items from now on."""
        self._max_items = max(self._max_items, max_items)

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of a key, made now where it is not there."""
        if key not in self._items:
            value = make()
            self._items[key] = value
            self._total += self._weight(value)
            self._drop_oldest()
        self._items.move_to_end(key)
        return self._items[key]

    def _drop_oldest(self) -> None:
        """Drop the oldest items beyond the limits; the newest always stays."""
        while len(self._items) > 1 and (
            len(self._items) > self._max_items
            or (self._max_weight is not None and self._total > self._max_weight)
        ):
            _, value = self._items.popitem(last=False)
            self._total -= self._weight(value)
