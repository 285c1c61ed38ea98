"""What `rsvp segment`, `answer` and `trace` share: their beginning, image and ending."""

from __future__ import annotations

import contextlib
import os.path
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from rsvp import presets, registry
from rsvp.cli import console, options
from rsvp.cli.options import opt, opt_field
from rsvp.errors import BadInput

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline
    from rsvp.request import Request
    from rsvp.result import Result
    from rsvp.types import Box

DEFAULT_OUT = "rsvp-out"
STDIN = "-"
R = TypeVar("R", bound="Result")

Image = Annotated[
    list[str], opt("PATH", "The image; - is standard input, demo the one in the package.")
]
Formats = Annotated[
    str,
    opt(
        "LIST",
        "Which files: json, overlay, png (masks), html (a page that replays the reasoning), "
        "prompt (what the MLLM saw), looks (closer looks of an answer), index (one mask of "
        "numbers), vrt (as VRT-Bench reads it), coco (polygons), coco-rle, labelme, yolo, or a "
        "plug-in's.",
        "--format",
    ),
]
Question = Annotated[list[str], opt("TEXT", "In any language.")]


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """The user's own boxes and points."""

    box: list[str] | None = opt_field(
        None,
        "X0,Y0,X1,Y1",
        "A target's box in pixels; no MLLM is asked. May be given several times.",
    )
    point: list[str] | None = opt_field(
        None,
        "X,Y",
        "A pixel of the target (X,Y,0: not of it); no MLLM is asked. All points together "
        "mean one target.",
    )


@dataclass(frozen=True, kw_only=True)
class HintOptions:
    """The user's hints for the MLLM."""

    within: str | None = opt_field(
        None,
        "X0,Y0,X1,Y1",
        "A hint for the MLLM, which is asked all the same: only what lies in this box counts.",
    )
    exclude: list[str] | None = opt_field(
        None,
        "X,Y",
        "A hint for the MLLM: the thing at this pixel is not meant. May be given several times.",
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the result goes, and what is printed."""

    out: str | None = opt_field(
        None, "DIR", "Where the files go. Without it: rsvp-out, or nowhere with --json."
    )
    formats: Formats = "json,overlay,png"
    as_json: options.AsJson = False
    quiet: options.Quiet = False
    verbose: options.Verbose = False
    debug: options.Debug = False


class OneImage:
    """One image's result: all that can be refused is refused here, before a model is loaded."""

    def __init__(self, models: options.PipelineOptions, output: OutputOptions) -> None:
        options.begin(verbose=output.verbose, debug=output.debug, quiet=output.quiet)
        from rsvp import writers

        self._kinds = writers.check_formats(options.listed(output.formats))
        self._preset, self._make = models.pipeline_maker(record=models.record, connect=True)
        self._folder, self._as_json = _folder(output.out, output.as_json), output.as_json

    def answer(
        self,
        request: Request,
        call: Callable[[Pipeline], R],
        show: Callable[[R], None],
        mllm: str | None = None,
    ) -> None:
        """Make the pipeline, call it, write the files, print.

        Args:
            show: prints the result for people, all but its files and warnings.
            mllm: in the place of the options' own.
        """
        from rsvp import writers

        folder, kinds = self._folder, self._kinds
        with (
            writers.output_folder(folder, kinds, request.image.path)
            if folder
            else contextlib.nullcontext()
        ):
            found = call(self._make(mllm=mllm) if mllm else self._make())
            written = writers.write(found, folder, kinds) if folder else []
        if self._as_json:
            console.as_json(found.to_dict())
        else:
            show(found)
            if written:  # of numbered pictures only the folder is named
                shown = dict.fromkeys(str(p.parent if p.stem.isdecimal() else p) for p in written)
                console.print_out(f"\nwritten: {', '.join(map(console.plain, shown))}")
        _warn(found, self._preset)


def source(images: Sequence[str]) -> str | bytes:
    """The image of `--image`: its path, or its bytes from standard input."""
    from rsvp.images import DEMO

    image = options.single("--image", images)
    if image == STDIN:
        if sys.stdin.isatty():
            raise BadInput("--image - reads an image from standard input: cat a.png | rsvp …")
        return options.read_stdin()
    if os.path.isdir(image) and image != DEMO:
        batch = "batch" in registry.names("command")
        instead = f"rsvp batch --input {image} takes folders" if batch else "give one image of it"
        raise BadInput(f"{image} is a folder, not an image file; {instead}")
    return image


def _folder(out: str | None, as_json: bool) -> Path | None:
    """Where the files go, None for nowhere; BadInput where the name is empty."""
    if out is not None and not out.strip():
        raise BadInput("--out is the name of a folder, found an empty one")
    if out is None and as_json:
        return None
    return Path(out or DEFAULT_OUT)


def pixels(box: Box) -> str:
    return ",".join(f"{value:.0f}" for value in box.xyxy)


def print_verdicts(result: Result) -> None:
    """What verification decided, but for what was right as it was."""
    done = {"correct": "corrected", "reject": "rejected", "add": "added"}
    for one in result.verdicts:
        if one.verdict in done:
            name = console.plain(one.label) or f"target {one.target}"
            why = f": {console.plain(one.reason)}" if one.reason else ""
            console.print_out(f"round {one.round}: {name} {done[one.verdict]}{why}")


def _warn(result: Result, preset: presets.Preset) -> None:
    """The warnings on stderr, and another preset where the default one was unsure."""
    from rsvp.postprocess import UNSURE

    for warning in result.warnings:
        console.warn(warning)
    unsure = any(warning.startswith(UNSURE) for warning in result.warnings)
    if unsure and preset.name == presets.DEFAULT:
        hint = f"for photographs: {presets.for_photographs()}, and --box needs no reasoner"
        console.print_err(hint)
