"""`rsvp eval`: a benchmark, end to end."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from rsvp import presets
from rsvp.cli import console, engines, options


def evaluate(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The benchmark: reasonseg, refcoco, refcoco+, refcocog, grefcoco, seginw, vrt or "
            "scenes; of questions: vstar, hrbench, mmbench, visulogic, mmvp, pope, hallusionbench "
            "and scenes of --task qa; of reasoning paths: vrt and scenes of --task trace.",
        ),
    ],
    data: Annotated[str, typer.Option(metavar="DIR", help="The folder that holds the samples.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where predictions and scores go.")],
    preset: options.Preset = presets.DEFAULT,
    mllm: options.Mllm = None,
    strategy: options.Strategy = None,
    segmenter: options.Segmenter = None,
    no_cot: options.NoCot = False,
    frame: options.Frame = None,
    target_exists: options.TargetExists = None,
    language: options.Language = "en",
    option: options.Option = None,
    budget: options.Budget = None,
    verify: options.Verify = 0,
    verify_all: options.VerifyAll = False,
    samples: options.Samples = "1",
    run_budget: options.RunBudget = None,
    record: options.Record = None,
    protocol: options.Protocol = None,
    split: options.Split = None,
    zoom: options.EvalZoom = None,
    looks: options.EvalLooks = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N samples.")
    ] = None,
    resume: engines.Resume = False,
    retry_failed: engines.RetryFailed = False,
    concurrency: engines.Concurrency = None,
    engine: engines.Engine = "local",
    ray_address: engines.RayAddress = None,
    reasoners: engines.Reasoners = 1,
    reasoner_cpus: engines.Cpus = 1.0,
    reasoner_gpus: engines.Gpus = 0.0,
    segmenters: engines.Segmenters = 1,
    segmenter_cpus: engines.Cpus = 1.0,
    segmenter_gpus: engines.Gpus = 0.0,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Run a benchmark and score it.

    The MLLM and the segmenter work at the same time. DIR gets a record of every sample, the scores
    overall and by kind with bootstrap intervals, and report.html.
    """
    options.begin(verbose=verbose, debug=debug)
    from rsvp import writers
    from rsvp.dialogue import Limits
    from rsvp.errors import BadInput
    from rsvp.evaluation.report.text import format_answers, format_summary
    from rsvp.evaluation.runner import check
    from rsvp.evaluation.runner import evaluate as run
    from rsvp.evaluation.summary import Summary
    from rsvp.pipeline import Pipeline

    if not Path(data).exists():
        raise BadInput(f"there is no folder {data} with samples")
    checked = check(name, protocol, split, data=Path(data), zoom=zoom, looks=looks)[0]
    exists = checked.target_exists(target_exists)
    chosen = options.choose_preset(preset)
    backend_options = options.parse_options(option)
    checking = options.checking(verify, verify_all, samples)
    engines.check_engine(engine, record, run_budget)
    writers.prepare(out)  # before the models are loaded
    make = functools.partial(
        Pipeline.from_preset,
        chosen,
        mllm=mllm,
        strategy=strategy,
        segmenter=segmenter,
        cot=not no_cot,
        frame=frame,
        limits=Limits.parse(budget),
        run_limits=Limits.parse(run_budget),
        **checking,
        target_exists=exists,
        language=language,
        options=backend_options,
    )
    pipeline = make(record=record, connect=True)
    on_ray = engines.on_ray(
        make,
        pipeline,
        backend_options,
        reasoners=(reasoners, reasoner_cpus, reasoner_gpus),
        segmenters=(segmenters, segmenter_cpus, segmenter_gpus),
        address=ray_address,
        concurrency=concurrency,
    )
    recorded = {"options": options.without_secrets(backend_options)} if backend_options else {}
    summary = run(
        name,
        data,
        pipeline,
        out,
        protocol=protocol,
        split=split,
        limit=limit,
        resume=resume,
        retry_failed=retry_failed,
        concurrency=concurrency,
        engine=on_ray if engine == "ray" else None,
        zoom=zoom,
        looks=looks,
        settings={"preset": chosen.name, **recorded},
    )
    table = format_summary(summary) if isinstance(summary, Summary) else format_answers(summary)
    if as_json:
        console.print_err(table)
        console.as_json(summary.to_dict())
    else:
        console.print_out(table)
