"""The options of `rsvp eval` and `rsvp batch` that say what answers the samples, and where."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from rsvp.errors import BadInput

if TYPE_CHECKING:
    from rsvp.evaluation.engines.ray import RayEngine
    from rsvp.pipeline import Pipeline

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an earlier run into DIR stopped.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Go on, and ask the failed samples again.")
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Questions to the MLLM at once: 8 by default for a server, 1 for a local model; "
        "0 runs MLLM and segmenter in turn.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="local (this process), or ray: actor pools on this machine or a cluster.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="With ray: a running cluster, e.g. auto; by default it is started here.",
    ),
]
Reasoners = Annotated[
    int, typer.Option(metavar="N", min=1, help="With ray: actors that ask the MLLM.")
]
Segmenters = Annotated[int, typer.Option(metavar="N", min=1, help="With ray: actors that segment.")]
Cpus = Annotated[
    float, typer.Option(metavar="X", min=0, help="With ray: CPUs of each, or a fraction.")
]
Gpus = Annotated[
    float, typer.Option(metavar="X", min=0, help="With ray: GPUs of each, or a fraction.")
]


def check_engine(engine: str, record: str | None, run_budget: str | None) -> None:
    """BadInput where there is no such engine, or it cannot record or share a budget."""
    if engine not in ("local", "ray"):
        raise BadInput(f"the engine is local or ray, found {engine!r}")
    if run_budget is not None and engine == "ray":
        raise BadInput("the actors of ray share no budget: take --run-budget with --engine local")
    if record is not None and engine == "ray":
        raise BadInput("--record is for one process: leave out --engine ray")


def on_ray(
    make: Callable[..., Pipeline],
    pipeline: Pipeline,
    options: Mapping[str, str],
    *,
    reasoners: tuple[int, float, float],
    segmenters: tuple[int, float, float],
    address: str | None,
    concurrency: int | None,
    whole: bool = False,
) -> RayEngine:
    """The engine of ``--engine ray``.

    Args:
        make: the pipeline of an actor.
        pipeline: one that it made.
        options: of the backends.
        reasoners, segmenters: actors, and the CPUs and GPUs of each.
        whole: the reasoner's actors segment too.
    """
    from rsvp.evaluation.engines.ray import Pool, RayEngine
    from rsvp.strategies import NeedsSegmenter

    # A reasoner actor loads no segmenter that its strategy does not need; a segmenter actor's MLLM
    # is never asked, nor loaded.
    needed = whole or isinstance(pipeline.strategy, NeedsSegmenter)
    needed = needed or any("segmenter." in key for key in options)
    reasoner = make if needed else functools.partial(make, segmenter="box")
    return RayEngine(reasoner, make, Pool(*reasoners), Pool(*segmenters), address, concurrency)
