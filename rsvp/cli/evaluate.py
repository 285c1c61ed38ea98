"""`rsvp eval`: a benchmark, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsvp import presets
from rsvp.cli import console, engines, options
from rsvp.cli.options import opt
from rsvp.errors import BadInput

if TYPE_CHECKING:
    from rsvp.evaluation.answers import AnswerSummary
    from rsvp.evaluation.summary import Summary

OWN = ("jsonl", "coco")  # data of one's own, as `rsvp train` names it


Name = typer.Argument(
    metavar="NAME",
    help="The benchmark: reasonseg, refcoco, refcoco+, refcocog, grefcoco, seginw, vrt or "
    "scenes; of questions: vstar, hrbench, mmbench, visulogic, mmvp, pope, hallusionbench "
    "and scenes of --task qa; of reasoning paths: vrt and scenes of --task trace. Left out "
    "with --recipe, and with your own data.",
)
Data = opt(
    "DIR",
    "The folder that holds the samples. Your own: jsonl:FILE, or coco:FOLDER with instances.json.",
)
RecipeName = opt(
    "NAME",
    "The runs of a recipe of eval/ with this --preset, e.g. reasonseg, or one run of "
    "its, e.g. reasonseg-val-local, in place of NAME, --data and --out; other options "
    "win over the recipe's.",
)


@options.grouped
def evaluate(
    *,
    context: typer.Context,
    name: Annotated[str | None, Name] = None,
    data: Annotated[str | None, Data] = None,
    out: Annotated[str | None, opt("DIR", "Where predictions and scores go.")] = None,
    recipe: Annotated[str | None, RecipeName] = None,
    models: options.ReasoningOptions,
    protocol: options.Protocol = None,
    split: options.Split = None,
    zoom: options.EvalZoom = None,
    looks: options.EvalLooks = None,
    limit: Annotated[int | None, opt("N", "Only the first N samples.", min=1)] = None,
    run: engines.RunOptions,
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
    from rsvp.evaluation.runner import Evaluation

    name, data, out = _what(name, data, out)
    run.check(models)
    evaluation = Evaluation(
        name, Path(data), Path(out),
        protocol=protocol, split=split, limit=limit, zoom=zoom, looks=looks, resume=run.resume,
        retry_failed=run.retry_failed, concurrency=run.concurrency,
    )  # fmt: skip
    target_exists = evaluation.benchmark.target_exists(models.target_exists)
    preset, make = models.pipeline_maker(run.run_budget, target_exists=target_exists)
    _ = evaluation.dataset  # opened and checked before a model is loaded
    pipeline = make(record=models.record, connect=True)
    summary = evaluation.run(pipeline, run.on_ray(make, pipeline, models), models.recorded(preset))
    _print(summary, preset, as_json=as_json)


def _print(summary: Summary | AnswerSummary, preset: presets.Preset, *, as_json: bool) -> None:
    """The table, on stderr beside JSON."""
    from rsvp.evaluation.report.text import format_answers, format_summary
    from rsvp.evaluation.summary import Summary

    table = format_summary(summary) if isinstance(summary, Summary) else format_answers(summary)
    if isinstance(summary, Summary) and summary.not_understood and preset.name == presets.DEFAULT:
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
