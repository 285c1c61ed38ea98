"""`rsvp answer`: one image, one question; closer looks at what matters, then the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsvp import presets
from rsvp.cli import console, options, results

if TYPE_CHECKING:
    from rsvp.result import Answer


def answer(
    *,
    image: Annotated[
        list[str],
        typer.Option(
            metavar="PATH", help="The image; - is standard input, demo the one in the package."
        ),
    ],
    question: Annotated[list[str], typer.Option(metavar="TEXT", help="In any language.")],
    choice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What the answer is chosen from, one --choice each; without any it is free.",
        ),
    ] = None,
    zoom: options.Zoom = "mask",
    looks: options.Looks = 2,
    preset: options.Preset = presets.DEFAULT,
    mllm: options.Mllm = None,
    strategy: options.Strategy = None,
    segmenter: options.Segmenter = None,
    box: options.Box = None,
    point: options.Point = None,
    within: options.Within = None,
    exclude: options.Exclude = None,
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
    formats: options.Formats = "json,overlay,png,looks",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Answer a question about an image, after a closer look where one helps.

    The MLLM says what it wants to see more closely, or answers at once. What it names is segmented
    as in `rsvp segment`, and shown to it again, enlarged. With --box or --point it is shown these
    at once.
    """
    options.begin(verbose=verbose, debug=debug, quiet=quiet)
    from rsvp import writers
    from rsvp.answer import make_answer_request
    from rsvp.dialogue import Limits
    from rsvp.pipeline import Pipeline
    from rsvp.request import make_request

    # Whatever can be refused is refused before a model is loaded.
    chosen = options.choose_preset(preset)
    kinds = writers.check_formats([name.strip() for name in formats.split(",") if name.strip()])
    request = make_request(
        results.source(options.single("--image", image)),
        options.single("--question", question),
        box or None,
        point or None,
        within=within,
        exclude=exclude,
    )
    asked = make_answer_request(request, choice or None, zoom=zoom, looks=looks)
    limits, checking = Limits.parse(budget), options.checking(verify, verify_all, samples)
    backend_options = options.parse_options(option)
    folder = results.folder(out, as_json)
    with (
        writers.output_folder(folder, kinds, request.image.path)
        if folder
        else contextlib.nullcontext()
    ):
        pipeline = Pipeline.from_preset(
            chosen,
            mllm=mllm,
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
        found = pipeline.run_answer(asked)
        written = writers.write(found, folder, kinds) if folder else []
    if as_json:
        console.as_json(found.to_dict())
    else:
        _print(found, written)
    results.warn(found, chosen)


def _print(found: Answer, written: Sequence[Path]) -> None:
    """The looks, the answer and the reason, the files."""
    for number, look in enumerate(found.looks, start=1):
        what = f"{number}. closer look at {console.plain(look.query)}"
        if look.no_target:
            what += ": nothing was found"
        elif look.box is None:
            what += ": too large to be shown larger"
        else:
            what += f" [{results.pixels(look.box)}]"
        console.print_out(what)
    if found.reasoning.understood:
        console.print_out(f"answer: {console.plain(found.answer)}")
    else:
        console.print_out(results.no_answer(found))
    if found.reason:
        console.print_out(f"because: {console.plain(found.reason)}")
    results.print_verdicts(found)
    results.print_written(written)
