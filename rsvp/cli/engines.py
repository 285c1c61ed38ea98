"""The options of `rsvp eval` and `rsvp batch` that say what answers the samples, and where."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rsvp.cli.options import PipelineOptions, opt, opt_field
from rsvp.errors import BadInput
from rsvp.platform.extras import require

if TYPE_CHECKING:
    from rsvp.evaluation.engines.ray import RayEngine
    from rsvp.pipeline import Pipeline

Cpus = Annotated[float, opt("X", "With ray: CPUs of each, or a fraction.", min=0)]
Gpus = Annotated[float, opt("X", "With ray: GPUs of each, or a fraction.", min=0)]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run of many samples goes on, and what answers them."""

    run_budget: str | None = opt_field(
        None,
        "KEY=VALUE,...",
        "The same as --budget for the whole run, which ends there; --resume goes on.",
    )
    resume: bool = opt_field(
        False, None, "Go on where an earlier run into DIR stopped.", "--resume"
    )
    retry_failed: bool = opt_field(
        False, None, "Go on, and ask the failed samples again.", "--retry-failed"
    )
    concurrency: int | None = opt_field(
        None,
        "N",
        "Questions to the MLLM at once: 8 by default for a server, 1 for a local model; "
        "0 runs MLLM and segmenter in turn.",
        min=0,
    )
    engine: str = opt_field(
        "local", "NAME", "local (this process), or ray: actor pools on this machine or a cluster."
    )
    ray_address: str | None = opt_field(
        None, "ADDRESS", "With ray: a running cluster, e.g. auto; by default it is started here."
    )
    reasoners: int = opt_field(1, "N", "With ray: actors that ask the MLLM.", min=1)
    reasoner_cpus: Cpus = 1.0
    reasoner_gpus: Gpus = 0.0
    segmenters: int = opt_field(1, "N", "With ray: actors that segment.", min=1)
    segmenter_cpus: Cpus = 1.0
    segmenter_gpus: Gpus = 0.0

    def check(self, models: PipelineOptions) -> None:
        """Refuse an engine that is unknown, cannot record or share a budget, or is missing."""
        if self.engine not in ("local", "ray"):
            raise BadInput(f"the engine is local or ray, found {self.engine!r}")
        if self.engine == "local":
            return
        if self.run_budget is not None:
            raise BadInput(
                "the actors of ray share no budget: take --run-budget with --engine local"
            )
        if models.record is not None:
            raise BadInput("--record is for one process: leave out --engine ray")
        require("ray", "ray", "--engine ray")

    def on_ray(
        self,
        make: Callable[..., Pipeline],
        pipeline: Pipeline,
        models: PipelineOptions,
        *,
        whole: bool = False,
    ) -> RayEngine | None:
        """The engine of ``--engine ray``; None where this process answers.

        Args:
            make: the pipeline of an actor.
            pipeline: one that it made.
            whole: the reasoner's actors segment too.
        """
        if self.engine == "local":
            return None
        from rsvp.evaluation.engines.ray import Pool, RayEngine
        from rsvp.strategies import NeedsSegmenter

        # A reasoner actor loads no segmenter that its strategy does not need; a segmenter actor's
        # MLLM is never asked, nor loaded.
        needed = whole or isinstance(pipeline.strategy, NeedsSegmenter)
        needed = needed or any("segmenter." in text for text in models.option or ())
        return RayEngine(
            make if needed else functools.partial(make, segmenter="box"),
            make,
            Pool(self.reasoners, self.reasoner_cpus, self.reasoner_gpus),
            Pool(self.segmenters, self.segmenter_cpus, self.segmenter_gpus),
            self.ray_address,
            self.concurrency,
        )
