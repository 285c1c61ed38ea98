"""The same evaluation as a Ray Data pipeline, on one machine or a cluster (extra: ``ray``).

    indices -> pool of reasoner actors -> pool of segmenter actors -> records

Each pool has its own number of actors, and each actor its own share of CPUs and GPUs. Ray does the
scheduling, the back-pressure, and what follows when an actor or a node dies. Samples are read and
scored where the segmenter is, so that only the reasoner's output goes between the pools. The data
must lie at the same path on every node, and rsvp be installed there.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import pickle
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsvp.errors import AccessDenied, BadInput, ModelUnavailable, RsvpError
from rsvp.evaluation.engines.local import RunWork
from rsvp.mllm import is_remote
from rsvp.platform.extras import require

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

Batch = dict[str, Any]  # column -> a list or array of one value a row

# Of the environment variables that an actor gets from this process: keys and servers.
_PREFIXES = ("OPENAI_", "RSVP_")
_BATCH = 4  # samples that a reasoner actor takes at once by default


@dataclass(frozen=True, slots=True)
class Pool:
    actors: int = 1
    cpus: float = 1.0  # of each; a fraction lets several share one
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
        concurrency: questions that each reasoner actor asks at once; see `LocalEngine`.
    """

    reasoner: Callable[[], Pipeline]
    segmenter: Callable[[], Pipeline]
    reasoners: Pool = Pool()
    segmenters: Pool = Pool()
    address: str | None = None
    concurrency: int | None = None

    def __call__(self, work: RunWork) -> Generator[Any, None, None]:
        """See `Engine`; BadInput where the cluster is missing or too small for the pools."""
        if not work.indices:
            return
        ray = _connected(self.address)
        try:
            self._check_capacity(ray.cluster_resources())
            for row in self._pipeline(work).iter_rows():
                yield _record(work, row)
        finally:
            ray.shutdown()

    def _pipeline(self, work: RunWork) -> Any:
        data = require("ray.data", "ray", "--engine ray")
        data.DataContext.get_current().enable_progress_bars = False  # the run has its own
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        size = self.concurrency or _BATCH
        blocks = -(-len(work.indices) // size)
        variables = {k: v for k, v in os.environ.items() if k.startswith(_PREFIXES)}
        shared = {"work": work.portable(), "environment": variables}
        rows = data.from_items([{"index": i} for i in work.indices], override_num_blocks=blocks)
        for actor, make, pool, batch_size in (
            (_Reasoner, self.reasoner, self.reasoners, size),
            (_Segmenter, self.segmenter, self.segmenters, 1),
        ):
            rows = rows.map_batches(
                actor,
                batch_size=batch_size,
                fn_constructor_kwargs={**shared, "make": make},
                compute=data.ActorPoolStrategy(size=pool.actors),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus,
            )
        return rows

    def _check_capacity(self, resources: Mapping[str, float]) -> None:
        """Refuse pools that the cluster has no room for; Ray would wait for ever."""
        pools = (self.reasoners, self.segmenters)
        for key in ("CPU", "GPU"):
            wanted = sum(pool.actors * getattr(pool, f"{key.lower()}s") for pool in pools)
            if wanted > (has := resources.get(key, 0.0)):
                raise BadInput(
                    f"the pools need {wanted:g} {key}s, Ray has {has:g}: "
                    "ask for fewer actors or smaller shares"
                )


class _Actor:
    """What both pools' actors share: the pipeline and the dataset, made at the first batch.

    They are not made at construction, so that what is missing on a node becomes a one-line error.
    """

    def __init__(
        self, work: RunWork, make: Callable[[], Pipeline], environment: Mapping[str, str]
    ) -> None:
        os.environ.update(environment)
        self._load = functools.cache(lambda: (make(), work.opened()))


class _Reasoner(_Actor):
    """Rows of ``index`` -> ``index, output, error``."""

    def __call__(self, batch: Batch) -> Batch:
        indices = [int(i) for i in batch["index"]]
        message = ""
        try:
            output = [pickle.dumps(one) for one in self._reason(indices)]
        except RsvpError as error:
            output, message = [b""] * len(indices), _to_line(error)
        return {"index": indices, "output": output, "error": [message] * len(indices)}

    def _reason(self, indices: list[int]) -> list[Any]:
        """All of a batch at once where a server answers, else one after the other."""
        pipeline, work = self._load()

        def one(sample: Any) -> Any:
            return work.reason(pipeline, sample, work.open_image(sample))

        with ThreadPoolExecutor(len(indices) if is_remote(pipeline.mllm) else 1) as threads:
            return list(threads.map(one, [work.sample(i) for i in indices]))


class _Segmenter(_Actor):
    """Rows of ``index, output, error`` -> ``record, error``."""

    def __call__(self, batch: Batch) -> Batch:
        rows = zip(batch["index"], batch["output"], batch["error"], strict=True)
        done = [self._answer(int(index), output, error) for index, output, error in rows]
        return {"record": [d[0] for d in done], "error": [d[1] for d in done]}

    def _answer(self, index: int, output: bytes, error: str) -> tuple[str, str]:
        """The record of a sample, or an error, as JSON."""
        if error:
            return "", error
        try:
            pipeline, work = self._load()
            sample = work.sample(index)
            image = work.open_image(sample)
            outcome = work.segment(pipeline, sample, image, pickle.loads(output))
        except RsvpError as fault:
            return "", _to_line(fault)
        return json.dumps(work.record(sample, outcome).to_dict()), ""


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
        task = f"connect to the Ray cluster {address}" if address else "start Ray"
        raise BadInput(f"cannot {task}: {' '.join(str(error).split())}") from error
    return ray


def _to_line(error: RsvpError) -> str:
    """An error as text; exceptions of several arguments do not survive pickling."""
    return json.dumps([error.exit_code, str(error)])


def _record(work: RunWork, row: Mapping[str, Any]) -> Any:
    if row["error"]:
        code, message = json.loads(row["error"])
        kinds = {kind.exit_code: kind for kind in (ModelUnavailable, AccessDenied)}
        raise kinds.get(code, BadInput)(message)
    return work.load(json.loads(row["record"]))
