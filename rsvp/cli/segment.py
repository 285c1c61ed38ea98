"""`rsvp segment`: one image, one query, the reasoning and the masks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsvp import presets, registry
from rsvp.cli import console, options
from rsvp.errors import BadInput

if TYPE_CHECKING:
    from rsvp.result import Result
    from rsvp.types import Box

DEFAULT_OUT = "rsvp-out"
STDIN = "-"


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
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="A target's box in pixels; no MLLM is asked. May be given several times.",
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="A pixel of the target (X,Y,0: not of it); no MLLM is asked. All points together "
            "mean one target.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What the box shows, one for each --box in their order, or one for all; by "
            "default the query.",
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="A hint for the MLLM, which is asked all the same: only what lies in this box "
            "counts.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="A hint for the MLLM: the thing at this pixel is not meant. May be given several "
            "times.",
        ),
    ] = None,
    no_cot: options.NoCot = False,
    frame: options.Frame = None,
    target_exists: options.TargetExists = None,
    language: options.Language = "en",
    option: options.Option = None,
    budget: options.Budget = None,
    record: options.Record = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help=f"Where the files go. Without it: {DEFAULT_OUT}, or nowhere with --json.",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="Which files: json, overlay, png (masks), prompt (what the MLLM saw), index (one "
            "mask of numbers), coco (polygons), coco-rle, labelme, yolo, or a plug-in's.",
        ),
    ] = "json,overlay,png",
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
    from rsvp.pipeline import Pipeline
    from rsvp.request import make_request

    # Whatever can be refused is refused before a model is loaded.
    chosen = options.choose_preset(preset)
    kinds = writers.check_formats([name.strip() for name in formats.split(",") if name.strip()])
    request = make_request(
        _source(options.single("--image", image)),
        options.single("--query", query or [""]),
        box or None,
        point or None,
        labels=label or None,
        within=within,
        exclude=exclude,
    )
    limits = Limits.parse(budget)
    backend_options = options.parse_options(option)
    folder = _folder(out, as_json)
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
    _warn(result, chosen)


def _source(image: str) -> str | bytes:
    """The image of `--image`: its path, or its bytes from standard input."""
    if image == STDIN:
        if sys.stdin.isatty():
            raise BadInput("--image - reads an image from standard input: cat a.png | rsvp …")
        return options.read_stdin()
    if Path(image).is_dir():
        batch = "batch" in registry.names("command")
        instead = f"rsvp batch --input {image} takes folders" if batch else "give one image of it"
        raise BadInput(f"{image} is a folder, not an image file; {instead}")
    return image


def _folder(out: str | None, as_json: bool) -> Path | None:
    if out is not None and not out.strip():
        raise BadInput("--out is the name of a folder, found an empty one")
    if out is None and as_json:
        return None
    return Path(out or DEFAULT_OUT)


def _print(result: Result, written: Sequence[Path]) -> None:
    """The steps, the answer, the files; first of all that there is no answer, where that is so."""
    if result.unanswered:
        console.print_out(marked=result.unanswered, fg="yellow")
    for number, step in enumerate(result.reasoning.steps, start=1):
        where = "".join(f" [{_pixels(box)}]" for box in step.boxes)
        console.print_out(f"{number}. {console.plain(step.text)}{where}")
    if result.reasoning.steps:
        console.print_out()
    # The reason would speak for what the hints do not allow.
    ruled_out = result.no_target and bool(result.reasoning.proposals)
    if result.no_target and not result.unanswered:
        found = "no target in this image" + ruled_out * " that the hints allow"
        console.print_out(marked=found, bold=True)
    for target in result.targets:
        label = console.plain(target.label) or "target"
        where = f"box {_pixels(target.box)}, {target.packed.area} pixels"
        console.print_out(f": {where}, score {target.score:.2f}", marked=label, bold=True)
    if result.reasoning.reason and not ruled_out:
        console.print_out(f"because: {console.plain(result.reasoning.reason)}")
    if written:
        console.print_out()
        console.print_out(f"written: {', '.join(map(console.plain, _shortened(written)))}")


def _pixels(box: Box) -> str:
    return ",".join(f"{value:.0f}" for value in box.xyxy)


def _shortened(paths: Iterable[Path]) -> list[str]:
    """Every file, but of the masks only the folder."""
    shown = (path.parent if path.parent.name == "masks" else path for path in paths)
    return list(dict.fromkeys(str(path) for path in shown))


def _warn(result: Result, preset: presets.Preset) -> None:
    from rsvp.pipeline import UNSURE

    for warning in result.warnings:
        console.warn(warning)
    unsure = any(warning.startswith(UNSURE) for warning in result.warnings)
    if unsure and preset.name == presets.DEFAULT:
        hint = f"for photographs: {presets.for_photographs()}, and --box needs no reasoner"
        console.print_err(hint)
