"""`rsvp batch`: many images, one record each, and a data set of all of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rsvp import presets
from rsvp.cli import console, engines, options
from rsvp.cli.options import opt

if TYPE_CHECKING:
    from rsvp.batch.runner import Batch
    from rsvp.batch.tasks import Task
    from rsvp.errors import RsvpError

TASKS = ("segment", "answer", "trace")


Source = opt(
    "PATH",
    "A folder, whose images are found in every folder below it; or a file of lines, - "
    'for standard input: paths, or JSON such as {"image": "a.jpg", "query": "the cup"}.',
    "--input",
)
Query = opt(
    "TEXT",
    "What to look for in each image, in any language. May be given several times: the "
    "image is encoded once.",
)
Formats = opt(
    "LIST",
    "Beside results.jsonl, one data set of all images: coco (polygons), coco-rle, "
    "yolo; and files for each image: labelme, index, overlay, png, or a plug-in's.",
    "--format",
)
TaskName = opt("NAME", "What is done: segment; answer or trace: a query is then a question.")


@options.grouped
def batch(
    *,
    source: Annotated[str, Source],
    query: Annotated[list[str] | None, Query] = None,
    out: Annotated[str, opt("DIR", "Where results.jsonl and all else go.")],
    task: Annotated[str, TaskName] = "segment",
    formats: Annotated[str, Formats] = "",
    zoom: options.EvalZoom = None,
    looks: options.EvalLooks = None,
    models: options.ReasoningOptions,
    run: engines.RunOptions,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Segment a folder of images, or a list of them.

    DIR gets a line a query in results.jsonl, as the images get done; a query that fails is a line
    with its error, and the exit code is then 2 (bad input) or 3 (the MLLM failed).
    """
    options.begin(verbose=verbose, debug=debug, quiet=quiet)
    from rsvp import writers
    from rsvp.batch import items as batch_items
    from rsvp.batch.runner import Batch
    from rsvp.writers.dataset import check_dataset_formats

    chosen_task = _task(task, zoom, looks)
    kinds = check_dataset_formats(options.listed(formats))
    run.check(models)
    preset, make = models.pipeline_maker(run_budget=run.run_budget)
    stdin = options.read_stdin() if source == batch_items.STDIN else b""
    items = batch_items.read_items(source, query or [], stdin=stdin, skip=Path(out))
    if task == "segment" and all(item.boxes or item.points for item in items):
        make = functools.partial(make, mllm=presets.NO_MLLM)
    writers.prepare(out)  # before the models are loaded
    pipeline = make(record=models.record, connect=True)
    whole = chosen_task.one_stage or any(item.has_hints for item in items)
    work = Batch(
        items, pipeline, out, task=chosen_task, formats=kinds, resume=run.resume,
        retry_failed=run.retry_failed, concurrency=run.concurrency, progress=not quiet,
        engine=run.on_ray(make, pipeline, models, whole=whole), settings=models.recorded(preset),
    )  # fmt: skip
    work.run()
    _print(work, as_json=as_json)
    if work.tally.failed:
        raise _failure(work)


def _task(name: str, zoom: str | None, looks: int | None) -> Task:
    from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM
    from rsvp.batch.tasks import AnswerTask, SegmentTask
    from rsvp.errors import BadInput

    if name not in TASKS:
        raise BadInput(f"the task is {', '.join(TASKS)}, found {name!r}")
    if name == "answer":
        return AnswerTask(zoom or DEFAULT_ZOOM, DEFAULT_LOOKS if looks is None else looks)
    if (zoom, looks) != (None, None):
        raise BadInput("--zoom and --looks are of --task answer")
    return SegmentTask(trace=name == "trace")


def _print(work: Batch, *, as_json: bool) -> None:
    tally = work.tally
    numbers: dict[str, Any] = {
        "n": tally.n,
        "failed": tally.failed,
        "no_target": tally.no_target,
        "tokens": tally.tokens,
        "seconds": round(tally.seconds, 3),
        "queries_per_second": None if tally.rate is None else round(tally.rate, 3),
        "files": [str(file) for file in (work.records, *work.files)],
    }
    if as_json:
        console.as_json(numbers)
        return
    done = tally.n - tally.failed - tally.no_target
    console.print_out(
        f"{tally.n} queries: {done} answered, {tally.no_target} without target, "
        f"{tally.failed} failed"
    )
    speed = "" if tally.rate is None else f", {tally.rate:.2f} queries a second"
    console.print_out(f"{tally.seconds:.1f} s{speed}, {tally.tokens:,} tokens")
    console.print_out(f"written: {', '.join(numbers['files'])}")


def _failure(work: Batch) -> RsvpError:
    """One line about the failures; its exit code is that of the worst of them."""
    from rsvp import errors

    causes = work.tally.causes
    codes = {getattr(errors, kind, errors.RsvpError).exit_code for kind, _ in causes}
    (_, cause), _ = causes.most_common(1)[0]
    others = f", and {len(causes) - 1} other causes" if len(causes) > 1 else ""
    failure = next(
        (kind for kind in (errors.MLLMFailed, errors.BadInput) if kind.exit_code in codes),
        errors.RsvpError,
    )
    return failure(
        f"{work.tally.failed} of {work.tally.n} queries failed: {cause}{others}; "
        "--retry-failed asks these again"
    )
