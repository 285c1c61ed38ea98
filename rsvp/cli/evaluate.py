"""`rsvp eval`: a benchmark, end to end."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from rsvp import presets
from rsvp.cli import console, engines, options
from rsvp.errors import BadInput

OWN = ("jsonl", "coco")  # data of one's own, as `rsvp train` names it


def evaluate(
    *,
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The benchmark: reasonseg, refcoco, refcoco+, refcocog, grefcoco, seginw, vrt or "
            "scenes; of questions: vstar, hrbench, mmbench, visulogic, mmvp, pope, hallusionbench "
            "and scenes of --task qa; of reasoning paths: vrt and scenes of --task trace. Left out "
            "with --recipe, and with your own data.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The folder that holds the samples. Your own: jsonl:FILE, or coco:FOLDER with "
            "instances.json.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where predictions and scores go.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The runs of a recipe of eval/ with this --preset, e.g. reasonseg, or one run of "
            "its, e.g. reasonseg-val-local, in place of NAME, --data and --out; other options "
            "win over the recipe's.",
        ),
    ] = None,
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
    if recipe is not None:
        _run_recipe(context, recipe)
        return
    from rsvp.dialogue import Limits
    from rsvp.evaluation.report.text import format_answers, format_summary
    from rsvp.evaluation.runner import check, check_start
    from rsvp.evaluation.runner import evaluate as run
    from rsvp.evaluation.summary import Summary
    from rsvp.pipeline import Pipeline

    name, data, out = _what(name, data, out)
    checking = options.checking(verify, verify_all, samples)
    engines.check_engine(engine, record, run_budget)
    checked = check(name, protocol, split, data=Path(data), zoom=zoom, looks=looks)[0]
    exists = checked.target_exists(target_exists)
    chosen = options.choose_preset(preset)
    backend_options = options.parse_options(option)
    limits, run_limits = Limits.parse(budget), Limits.parse(run_budget)
    dataset = check_start(
        name, data, out, protocol=protocol, split=split, resume=resume or retry_failed
    )
    make = functools.partial(
        Pipeline.from_preset,
        chosen,
        mllm=mllm,
        strategy=strategy,
        segmenter=segmenter,
        cot=not no_cot,
        frame=frame,
        limits=limits,
        run_limits=run_limits,
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
        dataset=dataset,
    )
    table = format_summary(summary) if isinstance(summary, Summary) else format_answers(summary)
    if isinstance(summary, Summary) and summary.not_understood and chosen.name == presets.DEFAULT:
        console.warn(
            f"{summary.not_understood} of {summary.n} samples were not understood, so that their "
            f"scores are those of empty masks; for photographs: {presets.for_photographs()}"
        )
    if as_json:
        console.print_err(table)
        console.as_json(summary.to_dict())
    else:
        console.print_out(table)


def _what(name: str | None, data: str | None, out: str | None) -> tuple[str, str, str]:
    """The benchmark, its data and the run's folder; `jsonl:FILE` and `coco:DIR` name both."""
    if name is None and data is not None:
        kind, _, where = data.partition(":")
        if kind in OWN and where:
            name, data = kind, where
    if name is None or data is None or out is None:
        raise BadInput(
            "a run needs NAME, --data and --out, or --recipe NAME; with your own data --data "
            "jsonl:FILE or coco:FOLDER and --out"
        )
    return name, data, out


def _run_recipe(context: typer.Context, recipe: str) -> None:
    """The runs of a recipe one after the other, with the options of the command line."""
    from rsvp.evaluation import recipes

    said = {
        key: value
        for key, value in context.params.items()
        if getattr(context.get_parameter_source(key), "name", "") == "COMMANDLINE"
    }
    found, runs = recipes.choose(recipe, context.params["preset"])
    if "name" in said:
        raise BadInput("--recipe names the benchmark: leave out NAME")
    if len(runs) > 1 and not said.keys().isdisjoint({"data", "out", "as_json"}):
        known = ", ".join(run.name for run in runs)
        raise BadInput(f"--data, --out and --json are of one run; --recipe takes {known}")
    left_out = []
    for run in runs:
        inner = context.command.make_context("eval", run.arguments[1:], parent=context.parent)
        inner.params.update({**said, "recipe": None})
        if not Path(inner.params["data"]).exists():
            left_out.append(found.missing(inner.params["data"]))
            continue
        console.print_err(f"{run.name}: {run.purpose}")
        context.command.invoke(inner)
    if len(left_out) == len(runs):
        raise BadInput("; ".join(dict.fromkeys(left_out)))
    for one in left_out:
        console.warn(f"a run was left out: {one}")
