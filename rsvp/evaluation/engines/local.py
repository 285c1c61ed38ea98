"""What every engine gets, and the default one: threads of this process.

Several threads ask the MLLM while one segments; samples are read and scored in the caller's.
Records come as they get done, so that a kill loses no reply that has been paid for.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from rsvp.errors import BadInput, RunBudgetExceeded
from rsvp.mllm import is_remote

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

REMOTE_CONCURRENCY = 8  # questions at once that every provider accepts
GRACE_SECONDS = 1.0  # that a run which ends early waits for calls to a server


class RunWork(Protocol):
    """The samples that a run still has to answer, and what is done with each.

    A sample, its image, the output of a stage and the record are this work's own: an engine only
    passes them on.

    Attributes:
        indices: which samples, in order.
    """

    @property
    def indices(self) -> Sequence[int]: ...

    def portable(self) -> RunWork:
        """The work as it may be pickled; `opened` makes it whole in another process."""

    def opened(self) -> RunWork:
        """The same work in another process."""

    def sample(self, index: int) -> Any: ...

    def open_image(self, sample: Any) -> Any: ...

    def reason(self, pipeline: Any, sample: Any, image: Any) -> Any:
        """Stage 1; the output can be pickled."""

    def segment(self, pipeline: Any, sample: Any, image: Any, output: Any) -> Any:
        """Stage 2, with the output of stage 1."""

    def record(self, sample: Any, outcome: Any) -> Any:
        """The record of what came of both stages."""

    def load(self, record: Any) -> Any:
        """A record from the JSON that another process made of it."""


Engine = Callable[[RunWork], Generator[Any, None, None]]
"""One record a sample, as they get done.

Raises BadInput where a sample's image is broken or does not fit its truth, ModelUnavailable and
MissingExtra where a model is missing, AccessDenied where its server refuses the key.
"""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Answers samples with a pipeline.

    `concurrency` is how many questions the MLLM works on at once: None is `REMOTE_CONCURRENCY` for
    a server and 1 for a model in this process; 0 runs MLLM and segmenter in turn.
    """

    pipeline: Pipeline
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 0:
            raise BadInput(f"the concurrency is 0 or more, found {self.concurrency}")

    @property
    def in_flight(self) -> int:
        """The most samples that are worked on at once."""
        return 2 * self._threads + 1

    @property
    def _threads(self) -> int:
        default = REMOTE_CONCURRENCY if is_remote(self.pipeline.mllm) else 1
        return default if self.concurrency is None else self.concurrency

    def __call__(self, work: RunWork) -> Generator[Any, None, None]:
        if self.concurrency != 0:
            return self._overlapped(work)
        return (work.record(*self._both_stages(work, index)) for index in work.indices)

    def _both_stages(self, work: RunWork, index: int) -> tuple[Any, Any]:
        """A sample and the outcome of both stages, one after the other."""
        sample = work.sample(index)
        image = work.open_image(sample)
        output = work.reason(self.pipeline, sample, image)
        return sample, work.segment(self.pipeline, sample, image, output)

    def _overlapped(self, work: RunWork) -> Generator[Any, None, None]:
        """At most `in_flight` samples are begun: the segmenter never waits for the caller, and
        memory holds a bounded number of images."""
        pipeline = self.pipeline
        finished: SimpleQueue[tuple[Any, Any] | BaseException] = SimpleQueue()
        segmenter = ThreadPool(1, "rsvp-segmenter", finished.put)
        reasoners = ThreadPool(self._threads, "rsvp-reasoner", finished.put)
        options = getattr(pipeline, "verify", None)
        verifies = options is not None and options.rounds > 0
        begun = 0
        spent: list[RunBudgetExceeded] = []

        def start(sample: Any) -> None:
            image = work.open_image(sample)
            output = work.reason(pipeline, sample, image)

            def finish() -> None:
                finished.put((sample, work.segment(pipeline, sample, image, output)))

            if verifies:  # it asks the MLLM again: the segmenter's thread must not wait for that
                finish()
            else:
                segmenter.submit(finish)

        def next_records() -> Iterator[Any]:
            """The next record; none where the run's budget was spent before its sample."""
            done = finished.get()
            if isinstance(done, RunBudgetExceeded):
                spent.append(done)  # the others in flight have been paid for
            elif isinstance(done, BaseException):
                raise done
            else:
                yield work.record(*done)

        try:
            for sample in map(work.sample, work.indices):
                if spent:
                    break
                reasoners.submit(functools.partial(start, sample))
                begun += 1
                if begun == self.in_flight:
                    yield from next_records()
                    begun -= 1
            for _ in range(begun):
                yield from next_records()
            if spent:
                raise spent[0]
        finally:
            # A local model ends its call before the process may end; a server's is abandoned.
            reasoners.close(GRACE_SECONDS if is_remote(pipeline.mllm) else None)
            segmenter.close(None)


class ThreadPool:
    """Daemon threads that run jobs in the order in which they come.

    (The process would wait at its end for the threads of a `ThreadPoolExecutor`, and so for a
    server that does not answer.) `on_error` gets what a job raises.
    """

    def __init__(
        self, threads: int, name: str, on_error: Callable[[BaseException], object]
    ) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._on_error = on_error
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job in the next free thread; nothing once the pool is closed."""
        self._jobs.put(job)

    def close(self, seconds: float | None) -> None:
        """Drop the waiting jobs, and wait for the running ones, at most so many seconds."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._closed:
                continue
            try:
                job()
            except BaseException as error:  # the caller's thread raises it
                self._on_error(error)
