"""One pipeline behind a bounded queue: the results of requests, and their events meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from rsvp import registry
from rsvp.errors import BadInput, RsvpError, one_line
from rsvp.images import image_size, load_image
from rsvp.mllm import listening, load
from rsvp.parsing.partial import steps_so_far
from rsvp.pipeline import Pipeline
from rsvp.result import Result
from rsvp.serving import schema
from rsvp.serving.limits import RequestRefused, ServeLimits, error_response, log_event, unexpected
from rsvp.serving.queue import QueueFull, WorkQueue
from rsvp.types import Image
from rsvp.writers.document import StepEntry

T = TypeVar("T")
Event = tuple[str, Any]  # its name and its data

CACHED_IMAGES = 8  # whose embeddings are kept
_TICK = 1.0  # seconds between two looks whether the client is still there

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job(Generic[T]):
    """A call in the queue, and what it says meanwhile; None ends the events."""

    future: Future[T]
    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)


class Server:
    """One pipeline behind a bounded queue.

    Args:
        pipeline: shared by all requests; embeddings are cached by the content of the image.
        log_queries: write what is asked into the log, too.
        presets: what makes the pipeline of each preset that a request may name; `pipeline` is the
            first one's. With more than one, requests run one at a time.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        limits: ServeLimits,
        *,
        log_queries: bool = False,
        presets: Mapping[str, Callable[[], Pipeline]] | None = None,
    ) -> None:
        self.limits, self.log_queries, self.presets = limits, log_queries, presets or {}
        if len(self.presets) > 1 and limits.running > 1:
            raise ValueError("presets can be exchanged only where one request runs at a time")
        self.preset = next(iter(self.presets), None)
        self._serve(pipeline)
        self.queue = WorkQueue(limits.running, limits.waiting)
        self.loaded = False

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Load the weights of the MLLM, while `/health` answers already."""
        self._loading = threading.Thread(target=self._load, name="rsvp-load", daemon=True)
        self._loading.start()
        yield

    @property
    def pipeline(self) -> Pipeline:
        """The one in memory; RequestRefused (503) while it is exchanged."""
        if self._served is None:
            raise RequestRefused(503, "another preset is being loaded: try again later")
        return self._served

    def _serve(self, pipeline: Pipeline | None) -> None:
        self._served = pipeline
        self.__dict__.pop("strategies", None)
        if pipeline is not None:
            pipeline.keep_images(CACHED_IMAGES)

    def exchange(self, name: str | None) -> None:
        """Serve another preset, in the queue's only thread: two never are in memory.

        Where it cannot be loaded, the former one is loaded again.

        Raises:
            BadInput: the server does not offer it.
        """
        if name is not None and name not in self.presets:
            known = ", ".join(self.presets) or "none"
            raise BadInput(f"this server knows the presets {known}, found {name[:100]!r}")
        wanted = name or self.preset
        if wanted is None or (wanted == self.preset and self._served is not None):
            return
        self._loading.join()  # or the former MLLM would be loaded meanwhile
        try:
            self._replace(wanted)
        except Exception as error:
            failed = error.with_traceback(None)  # whose frames hold what was loaded
        else:
            self.preset = wanted
            return
        if self.preset is not None and self.preset != wanted:
            self._replace(self.preset)
        raise failed

    def _replace(self, preset: str) -> None:
        self._serve(None)
        _free()
        made = self.presets[preset]()
        if made.mllm is not None:
            load(made.mllm)
        self._serve(made)

    def _load(self) -> None:
        if self.pipeline.mllm is not None:
            try:
                load(self.pipeline.mllm)
            except Exception as error:
                _log.error("the MLLM cannot be loaded: %s", one_line(error))
                return
        self.loaded = True

    def submit(self, call: Callable[[Callable[[Event], None]], T]) -> Job[T]:
        """Put a call into the queue; it gets a function that takes its events, from any thread.

        Raises:
            RequestRefused: 503, the queue is full.
        """
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

        def put(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            future = self.queue.submit(functools.partial(call, put))
        except QueueFull:
            raise RequestRefused(503, "too many requests wait: try again later") from None
        future.add_done_callback(lambda _: put(None))
        return Job(future, events)

    async def events(self, job: Job[Any]) -> AsyncIterator[Event | None]:
        """The events of a job until its end; None every second without one.

        Raises:
            RequestRefused: 503, it takes too long. A call that runs goes on, as nothing can end it.
        """
        end = asyncio.get_running_loop().time() + self.limits.seconds
        try:
            while asyncio.get_running_loop().time() < end:
                try:
                    event = await asyncio.wait_for(job.events.get(), _TICK)
                except TimeoutError:
                    yield None
                    continue
                if event is None:
                    return
                yield event
        finally:
            job.future.cancel()
        raise RequestRefused(503, f"no result in {self.limits.seconds:g} s")

    async def result(self, request: Request, call: Callable[[], T]) -> T:
        """What a call returns; it is given up where the client has gone."""
        job = self.submit(lambda _: call())
        async for event in self.events(job):
            if event is None and await request.is_disconnected():
                raise RequestRefused(408, "the client has gone")
        return job.future.result()

    def open_image(self, data: bytes) -> Image:
        """An image within the limit on pixels; above it RequestRefused (413) before decoding."""
        height, width = image_size(data)
        if height * width > self.limits.pixels:
            raise RequestRefused(
                413, f"the image has {height * width:,} pixels, the limit is {self.limits.pixels:,}"
            )
        return load_image(data, max_pixels=self.limits.pixels)

    def perform(self, ask: schema.Ask, tell: Callable[[Event], None] | None = None) -> Result:
        """Both stages, in the queue's thread.

        Args:
            tell: takes the steps, while they are written, and when stage 1 has ended, before the
                masks are made.
        """
        self.exchange(ask.preset)
        pipeline, image = self._pipeline(ask.strategy), self.open_image(ask.image)
        if ask.verify is not None:
            pipeline = pipeline.with_verify(ask.verify)
        one_stage = ask.task.one_stage  # it encodes ahead itself
        with (
            contextlib.nullcontext() if tell is None else listening(_Steps(tell)),
            contextlib.nullcontext() if one_stage else pipeline.encode_ahead(image),
        ):
            output = ask.task.reason(pipeline, ask.item, image)
        if isinstance(output, Result):
            return output
        if tell is not None and output is not None:
            tell(_steps_event(map(StepEntry.model_validate, output.reasoning.steps)))
        if output is None:
            return pipeline.run(ask.item.request(image))
        return pipeline.segment_proposals(image, output)

    @functools.cached_property
    def strategies(self) -> dict[str, Pipeline]:
        """The pipeline with each strategy that it can be asked by; a request names one of them."""
        found = dict[str, Pipeline]()
        for name in registry.names("strategy") if self.pipeline.mllm is not None else ():
            with contextlib.suppress(RsvpError):
                found[name] = self.pipeline.with_strategy(registry.make("strategy", name))
        return found

    def _pipeline(self, strategy: str | None) -> Pipeline:
        """The pipeline with a strategy; BadInput where it is none that the server offers."""
        if strategy is None:
            return self.pipeline
        if strategy not in self.strategies:
            known = ", ".join(self.strategies) or "none"
            raise BadInput(f"this server knows the strategies {known}, found {strategy[:100]!r}")
        return self.strategies[strategy]

    async def respond(self, request: Request, model: type[schema.SegmentBody]) -> Response:
        """The response of a route of the JSON API."""
        ask = await schema.read_ask(request, model)
        if self.log_queries:
            log_event(path=request.url.path, asked=ask.item.asked)
        if "text/event-stream" not in request.headers.get("accept", ""):
            result = await self.result(request, lambda: self.perform(ask).to_dict())
            return JSONResponse(result)
        job = self.submit(lambda tell: self.perform(ask, tell).to_dict())
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(job), 200, headers, "text/event-stream")

    async def _stream(self, job: Job[dict[str, Any]]) -> AsyncIterator[str]:
        """Server-sent events: ``steps``, maybe several times, then ``result`` or ``error``."""
        try:
            async for event in self.events(job):
                yield ": waiting\n\n" if event is None else _event(*event)
            yield _event("result", job.future.result())
        except RsvpError as error:
            yield f"event: error\ndata: {bytes(error_response(error).body).decode()}\n\n"
        except Exception as error:
            _log.exception("a request failed")
            yield f"event: error\ndata: {bytes(unexpected(error).body).decode()}\n\n"


def _free() -> None:
    """Give back the memory of a pipeline that nothing refers to."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Steps:
    """Makes events of the text of a reply that is being written; where its steps stay, none."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell, self._last = tell, list[str]()

    def __call__(self, text: str) -> None:
        steps = steps_so_far(text)
        if steps and steps != self._last:
            self._tell(_steps_event(StepEntry(text=step, boxes=[]) for step in steps))
            self._last = steps


def _steps_event(steps: Iterable[StepEntry]) -> Event:
    return "steps", {"steps": [step.model_dump() for step in steps]}


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
