"""The default engine: this process, with the reasoner and the segmenter at work at the same time.

The reasoner's calls live in an event loop of their own thread, at most so many at once; the
segmenter has another thread; samples are read and scored in the caller's. Records come as they get
done, so that a kill loses no reply that has been paid for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from rsvp.datasets import Sample
from rsvp.errors import BadInput
from rsvp.evaluation import records
from rsvp.evaluation.engines import Work
from rsvp.evaluation.records import Answers, Asked, Record, Segmenting, Staged

REMOTE = 8  # questions at once that no provider minds


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Answers samples with a pipeline.

    Attributes:
        concurrency: how many questions the reasoner works on at once. None is `REMOTE` for
            somebody else's server and 1 for a model in this process; 0 does one thing after
            another, without any overlap.
    """

    pipeline: Segmenting
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 0:
            raise BadInput(f"the concurrency is 0 or more, found {self.concurrency}")

    def __call__(self, work: Work) -> Generator[Record, None, None]:
        """See `rsvp.evaluation.engines.Engine`."""
        if isinstance(self.pipeline, Staged) and self.concurrency != 0:
            remote = getattr(getattr(self.pipeline, "mllm", None), "remote", False)
            most = self.concurrency or (REMOTE if remote else 1)
            return _overlapped(self.pipeline, work, most)
        return _in_turn(self.pipeline, work)


def _in_turn(pipeline: Segmenting, work: Work) -> Generator[Record, None, None]:
    for sample in work:
        image = records.open_image(sample)
        answers = records.answer(pipeline, sample, image, work.asked)
        yield records.score(sample, answers, work.rules, work.asked)


def _overlapped(pipeline: Staged, work: Work, concurrency: int) -> Generator[Record, None, None]:
    """Twice as many samples are on their way as are reasoned about: the segmenter never waits
    for the caller, and memory holds a bounded number of images."""
    underway: dict[Future[Answers], Sample] = {}

    def done() -> Iterator[Record]:
        finished, _ = wait(underway, return_when=FIRST_COMPLETED)
        for future in [one for one in underway if one in finished]:  # in the order of the samples
            sample = underway.pop(future)
            yield records.score(sample, future.result(), work.rules, work.asked)

    with _Stages(pipeline, concurrency, work.asked) as stages:
        for sample in work:
            underway[stages.submit(sample)] = sample
            while len(underway) >= 2 * concurrency + 1:
                yield from done()
        while underway:
            yield from done()


class _Stages:
    """The two stages, each in a thread of its own, while inside `with`."""

    def __init__(self, pipeline: Staged, concurrency: int, asked: Asked) -> None:
        self._pipeline = pipeline
        self._asked = asked
        self._free = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        self._reasoner = threading.Thread(
            target=self._loop.run_forever, name="rsvp-reasoner", daemon=True
        )
        self._segmenter = ThreadPoolExecutor(1, thread_name_prefix="rsvp-segmenter")

    def submit(self, sample: Sample) -> Future[Answers]:
        """Both stages of a sample, each when its turn comes."""
        return asyncio.run_coroutine_threadsafe(self._answer(sample), self._loop)

    async def _answer(self, sample: Sample) -> Answers:
        async with self._free:
            image = await asyncio.to_thread(records.open_image, sample)
            thought = await records.conclude(self._pipeline, sample, image)
        return await self._loop.run_in_executor(
            self._segmenter,
            lambda: records.segment_proposals(self._pipeline, sample, image, thought, self._asked),
        )

    def __enter__(self) -> _Stages:
        self._reasoner.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever is still on its way is given up."""
        self._segmenter.shutdown(wait=False, cancel_futures=True)
        asyncio.run_coroutine_threadsafe(_give_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._reasoner.join()
        self._loop.close()
        self._segmenter.shutdown()


async def _give_up() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
