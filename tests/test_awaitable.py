"""The awaitable twins of a pipeline's methods."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from rsvp.awaitable import awaitable, ordered
from rsvp.errors import BadInput
from rsvp.pipeline import Pipeline


class Adder:
    def add(self, a: int, *, b: int = 1) -> tuple[int, bool]:
        """Add."""
        if a < 0:
            raise BadInput("negative")
        return a + b, threading.current_thread() is threading.main_thread()

    aadd = awaitable(add)


class Doubler(Adder):
    def add(self, a: int, *, b: int = 1) -> tuple[int, bool]:
        return 2 * super().add(a, b=b)[0], False


@pytest.mark.parametrize("name", ["segment", "answer", "trace", "reason"])
def test_a_twin_takes_what_its_method_takes(name: str) -> None:
    method, twin = getattr(Pipeline, name), getattr(Pipeline, f"a{name}")
    assert inspect.signature(twin) == inspect.signature(method)
    assert inspect.iscoroutinefunction(twin)
    assert twin.__name__ == f"a{name}"


@pytest.mark.parametrize(("made", "total"), [(Adder(), 5), (Doubler(), 10)])
def test_a_twin_gives_the_result_of_a_thread(made: Adder, total: int) -> None:
    assert asyncio.run(made.aadd(2, b=3)) == (total, False)


def test_a_twin_raises_what_its_method_raises() -> None:
    with pytest.raises(BadInput, match="negative"):
        asyncio.run(Adder().aadd(-1))


def test_calls_at_once_keep_their_order() -> None:
    gate = threading.Event()

    def slow() -> str:
        assert gate.wait(10)
        return "slow"

    def fast() -> str:
        gate.set()
        return "fast"

    async def both() -> list[str]:
        return [one async for one in ordered([slow, fast], 2)]

    assert asyncio.run(both()) == ["slow", "fast"]
