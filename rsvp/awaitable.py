"""Awaitable twins of methods that block."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

from rsvp.errors import BadInput

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def awaitable(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """The twin of a method: the same arguments and result, in a thread."""

    @functools.wraps(method)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        own = getattr(self, method.__name__)  # a subclass may have another one
        return await in_thread(functools.partial(own, *args, **kwargs))

    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = method.__qualname__.replace(method.__name__, twin.__name__)
    twin.__doc__ = (
        f"`{method.__name__}` in a thread, awaitable. Cancelling it gives up waiting, not the call."
    )
    return twin


async def in_thread(call: Callable[[], T]) -> T:
    """The result of a call in a thread of its own."""
    # Not an executor: Python waits at its end for the threads of one, and so for a silent server.
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return  # cancelled before the thread began
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="rsvp", daemon=True).start()
    return await asyncio.wrap_future(future)


async def ordered(calls: Iterable[Callable[[], T]], concurrency: int) -> AsyncIterator[T]:
    """The results of calls in their order, up to `concurrency` of them made at once."""
    if concurrency < 1:
        raise BadInput(f"concurrency is at least 1, found {concurrency}")
    running: deque[asyncio.Task[T]] = deque()
    try:
        for call in calls:
            running.append(asyncio.create_task(in_thread(call)))
            if len(running) >= concurrency:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
