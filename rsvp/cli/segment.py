"""`rsvp segment`: one image, one query, the reasoning and the masks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsvp import presets
from rsvp.cli import console, options, results

if TYPE_CHECKING:
    from rsvp.result import Result


def segment(
    *,
    image: Annotated[
        list[str],
        typer.Option(
            metavar="PATH", help="The image; - is standard input, demo the one in the package."
        ),
    ],
    query: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What to look for, in any language; optional with --box or --point.",
        ),
    ] = None,
    preset: options.Preset = presets.DEFAULT,
    mllm: options.Mllm = None,
    strategy: options.Strategy = None,
    segmenter: options.Segmenter = None,
    box: options.Box = None,
    point: options.Point = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What the box shows, one for each --box in their order, or one for all; by "
            "default the query.",
        ),
    ] = None,
    within: options.Within = None,
    exclude: options.Exclude = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="A box around an example, in pixels: find more like it. For a detector of "
            "concepts, e.g. --strategy marks:sam3:ID. May be given several times.",
        ),
    ] = None,
    no_cot: options.NoCot = False,
    frame: options.Frame = None,
    target_exists: options.TargetExists = None,
    language: options.Language = "en",
    option: options.Option = None,
    budget: options.Budget = None,
    verify: options.Verify = 0,
    verify_all: options.VerifyAll = False,
    samples: options.Samples = "1",
    record: options.Record = None,
    out: options.Out = None,
    formats: options.Formats = "json,overlay,png",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Find what a query asks for in an image.

    Prints the reasoning and the targets, and writes result.json, overlay.png and a mask for each
    target into --out.
    """
    options.begin(verbose=verbose, debug=debug, quiet=quiet)
    from rsvp import writers
    from rsvp.dialogue import Limits
    from rsvp.errors import BadInput
    from rsvp.pipeline import Pipeline
    from rsvp.request import make_request

    # Whatever can be refused is refused before a model is loaded.
    chosen = options.choose_preset(preset)
    kinds = writers.check_formats([name.strip() for name in formats.split(",") if name.strip()])
    request = make_request(
        results.source(options.single("--image", image)),
        options.single("--query", query or [""]),
        box or None,
        point or None,
        labels=label or None,
        within=within,
        exclude=exclude,
        like=like or None,
    )
    limits, checking = Limits.parse(budget), options.checking(verify, verify_all, samples)
    if request.prompts and (verify or samples != "1"):
        raise BadInput("boxes and points need no MLLM: leave out --verify and --samples")
    backend_options = options.parse_options(option)
    folder = results.folder(out, as_json)
    with (
        writers.output_folder(folder, kinds, request.image.path)
        if folder
        else contextlib.nullcontext()
    ):
        pipeline = Pipeline.from_preset(
            chosen,
            mllm=presets.NO_MLLM if request.prompts else mllm,
            strategy=strategy,
            segmenter=segmenter,
            cot=not no_cot,
            frame=frame,
            limits=limits,
            **checking,
            target_exists=bool(target_exists),
            language=language,
            options=backend_options,
            record=record,
            connect=True,
        )
        result = pipeline.run(request)
        written = writers.write(result, folder, kinds) if folder else []
    if as_json:
        console.as_json(result.to_dict())
    else:
        _print(result, written)
    results.warn(result, chosen)


def _print(result: Result, written: Sequence[Path]) -> None:
    """The steps, the answer, the files; first of all that there is no answer, where that is so."""
    if result.unanswered:
        console.print_out(marked=result.unanswered, fg="yellow")
    for number, step in enumerate(result.reasoning.steps, start=1):
        where = "".join(f" [{results.pixels(box)}]" for box in step.boxes)
        console.print_out(f"{number}. {console.plain(step.text)}{where}")
    if result.reasoning.steps:
        console.print_out()
    results.print_verdicts(result)
    # The reason would speak for what the hints do not allow, or what was rejected.
    ruled_out = result.no_target and bool(result.reasoning.proposals)
    if result.no_target and not result.unanswered:
        why = " that verification accepts" if result.verdicts else " that the hints allow"
        console.print_out(marked="no target in this image" + ruled_out * why, bold=True)
    for target in result.targets:
        label = console.plain(target.label) or "target"
        where = f"box {results.pixels(target.box)}, {target.packed.area} pixels"
        console.print_out(f": {where}, score {target.score:.2f}", marked=label, bold=True)
    if result.reasoning.reason and not ruled_out:
        console.print_out(f"because: {console.plain(result.reasoning.reason)}")
    results.print_written(written)
