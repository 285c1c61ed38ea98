"""A bounded queue of calls, made by a fixed number of threads."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class QueueFull(Exception):
    """As many calls wait as may wait."""


class WorkQueue:
    """Makes calls in the order in which they were submitted.

    The threads are daemons: a server that never replies does not keep the process from ending.

    Args:
        workers: how many calls run at once.
        most: how many calls may wait, beside those that run.
    """

    def __init__(self, workers: int, most: int) -> None:
        self._calls: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(most)
        self._lock = threading.Lock()
        self.running = 0
        for number in range(workers):
            name = f"rsvp-serve-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def waiting(self) -> int:
        return self._calls.qsize()

    @property
    def full(self) -> bool:
        return self._calls.full()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What the call will return; cancelling it has an effect only while it waits.

        Raises:
            QueueFull: the call was not taken.
        """
        future: Future[T] = Future()
        try:
            self._calls.put_nowait((future, call))
        except queue.Full:
            raise QueueFull from None
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                with self._counted():
                    try:
                        result = call()
                    except BaseException as error:
                        future.set_exception(error)
                    else:
                        future.set_result(result)
            del future, call  # or they would stay in memory until the next call

    @contextlib.contextmanager
    def _counted(self) -> Any:
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1
