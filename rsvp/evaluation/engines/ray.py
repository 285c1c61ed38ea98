"""The same evaluation as a Ray Data pipeline, on one machine or a cluster (extra: ``ray``).

    indices -> pool of reasoner actors -> pool of segmenter actors -> records

Each pool has its own number of actors, and each actor its own share of CPUs and GPUs. Scheduling,
back-pressure, and what happens when an actor or a node dies are Ray's own. Samples are read and
scored where the segmenter is, so that between the pools goes only what the reasoner concluded; the
data must lie at the same path on every node, and rsvp be installed there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rsvp.errors import BadInput, ModelUnavailable, RsvpError
from rsvp.evaluation import records
from rsvp.evaluation.engines import Work
from rsvp.evaluation.records import Attempt, Record, Staged
from rsvp.platform.extras import require
from rsvp.reasoning import ReasoningOutput

Batch = dict[str, Any]  # column -> a list or array of one value a row

# What a worker's environment must share with this one, for keys and servers.
_PREFIXES = ("OPENAI_", "RSVP_")
_BLOCK = 4  # samples that a reasoner actor takes at once, where it takes one after the other


@dataclass(frozen=True, slots=True)
class Pool:
    """Actors of one kind.

    Attributes:
        actors: how many.
        cpus, gpus: of each; a fraction lets several share one.
    """

    actors: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.actors < 1 or self.cpus < 0 or self.gpus < 0:
            raise BadInput(
                "a pool has at least 1 actor and no negative share, found "
                f"{self.actors} actors, {self.cpus} CPUs, {self.gpus} GPUs each"
            )


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Answers samples with two pools of actors.

    Attributes:
        reasoner: makes the pipeline of which a reasoner actor uses the first stage; pickled.
        segmenter: makes the one of which a segmenter actor uses the second.
        address: of a running cluster, e.g. ``auto``; None starts Ray on this machine.
        concurrency: questions that each reasoner actor has underway at once; see `LocalEngine`.
    """

    reasoner: Callable[[], Staged]
    segmenter: Callable[[], Staged]
    reasoners: Pool = Pool()
    segmenters: Pool = Pool()
    address: str | None = None
    concurrency: int | None = None

    def __call__(self, work: Work) -> Generator[Record, None, None]:
        """See `rsvp.evaluation.engines.Engine`.

        Raises:
            BadInput: no such cluster, or it is too small for the pools.
            MissingExtra: Ray is not installed.
        """
        if not work.indices:
            return
        ray = _connected(self.address)
        try:
            self._check_room(ray.cluster_resources())
            for row in self._pipeline(work).iter_rows():
                yield _record(row)
        finally:
            ray.shutdown()

    def _pipeline(self, work: Work) -> Any:
        data = require("ray.data", "ray", "--engine ray")
        data.DataContext.get_current().enable_progress_bars = False  # the run has its own
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        size = self.concurrency or _BLOCK
        blocks = -(-len(work.indices) // size)
        shared = {"work": _Portable.of(work), "environment": _environment()}
        return (
            data.from_items([{"index": i} for i in work.indices], override_num_blocks=blocks)
            .map_batches(
                _Reasoner,
                batch_size=size,
                fn_constructor_kwargs={**shared, "make": self.reasoner},
                **_shares(data, self.reasoners),
            )
            .map_batches(
                _Segmenter,
                batch_size=1,
                fn_constructor_kwargs={**shared, "make": self.segmenter},
                **_shares(data, self.segmenters),
            )
        )

    def _check_room(self, there: Mapping[str, float]) -> None:
        """Ray would wait for ever for what the cluster does not have."""
        pools = (self.reasoners, self.segmenters)
        for what, key in (("CPUs", "CPU"), ("GPUs", "GPU")):
            share = "cpus" if key == "CPU" else "gpus"
            wanted = sum(pool.actors * getattr(pool, share) for pool in pools)
            if wanted > there.get(key, 0.0):
                raise BadInput(
                    f"the pools need {wanted:g} {what}, Ray has {there.get(key, 0.0):g}: "
                    "ask for fewer actors or smaller shares"
                )


@dataclass(frozen=True, slots=True)
class _Portable:
    """Work without the open dataset: an actor opens its own."""

    data: Any
    reader: Any
    rules: Any
    asked: Any

    @classmethod
    def of(cls, work: Work) -> _Portable:
        return cls(work.data.absolute(), work.reader, work.rules, work.asked)


class _Actor:
    """What both pools' actors share: the pipeline and the dataset, made at the first batch.

    There, and not at construction, so that what is missing on a node is told in one line.
    """

    def __init__(
        self, work: _Portable, make: Callable[[], Staged], environment: Mapping[str, str]
    ) -> None:
        os.environ.update(environment)
        self._work = work
        self._make = make
        self._ready: tuple[Staged, Any] | None = None

    def _parts(self) -> tuple[Staged, Any]:
        if self._ready is None:
            self._ready = self._make(), self._work.reader(self._work.data)
        return self._ready


class _Reasoner(_Actor):
    """Rows of ``index`` -> ``index, thought, error``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._loop = asyncio.Runner()

    def __call__(self, batch: Batch) -> Batch:
        indices = [int(i) for i in batch["index"]]
        try:
            thoughts = self._loop.run(self._conclude(indices))
        except RsvpError as error:
            return {"index": indices, "thought": [b""] * len(indices), **_told(error, indices)}
        return {
            "index": indices,
            "thought": [pickle.dumps(one) for one in thoughts],
            "error": [""] * len(indices),
        }

    async def _conclude(self, indices: Iterable[int]) -> list[Attempt[ReasoningOutput]]:
        """All of a batch at once where a server answers, else one after the other."""
        pipeline, dataset = self._parts()

        async def one(index: int) -> Attempt[ReasoningOutput]:
            sample = dataset[index]
            image = await asyncio.to_thread(records.open_image, sample)
            return await records.conclude(pipeline, sample, image)

        if getattr(getattr(pipeline, "mllm", None), "remote", False):
            return list(await asyncio.gather(*(one(i) for i in indices)))
        return [await one(i) for i in indices]


class _Segmenter(_Actor):
    """Rows of ``index, thought, error`` -> ``record, error``."""

    def __call__(self, batch: Batch) -> Batch:
        rows = zip(batch["index"], batch["thought"], batch["error"], strict=True)
        done = [self._answer(int(index), thought, error) for index, thought, error in rows]
        return {"record": [d[0] for d in done], "error": [d[1] for d in done]}

    def _answer(self, index: int, thought: bytes, error: str) -> tuple[str, str]:
        if error:
            return "", error
        try:
            pipeline, dataset = self._parts()
            sample = dataset[index]
            answers = records.segment_proposals(
                pipeline,
                sample,
                records.open_image(sample),
                pickle.loads(thought),
                self._work.asked,
            )
        except RsvpError as fault:
            return "", _line(fault)
        record = records.score(sample, answers, self._work.rules, self._work.asked)
        return json.dumps(record), ""


def _connected(address: str | None) -> Any:
    ray = require("ray", "ray", "--engine ray")
    if ray.is_initialized():
        raise BadInput("Ray is already in use in this process; call ray.shutdown() first")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own log files have it all
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"to the Ray cluster {address}" if address else "start Ray"
        message = " ".join(str(error).split())
        verb = "connect " if address else ""
        raise BadInput(f"cannot {verb}{where}: {message}") from error
    return ray


def _shares(data: Any, pool: Pool) -> dict[str, Any]:
    """A pool as Ray Data takes it."""
    actors = data.ActorPoolStrategy(size=pool.actors)
    return {"compute": actors, "num_cpus": pool.cpus, "num_gpus": pool.gpus}


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith(_PREFIXES)}


def _told(error: RsvpError, indices: list[int]) -> Batch:
    return {"error": [_line(error)] * len(indices)}


def _line(error: RsvpError) -> str:
    """An error on its way home; exceptions of several arguments do not survive pickling."""
    return json.dumps([error.exit_code, str(error)])


def _record(row: Mapping[str, Any]) -> Record:
    if row["error"]:
        code, message = json.loads(row["error"])
        raise (ModelUnavailable if code == ModelUnavailable.exit_code else BadInput)(message)
    record: Record = json.loads(row["record"])
    return record
