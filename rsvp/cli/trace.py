"""`rsvp trace`: one image, one question; the reasoning with a mask for every object it names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsvp import presets
from rsvp.cli import console, options, results

if TYPE_CHECKING:
    from rsvp.result import Trace


def trace(
    *,
    image: Annotated[
        list[str],
        typer.Option(
            metavar="PATH", help="The image; - is standard input, demo the one in the package."
        ),
    ],
    question: Annotated[list[str], typer.Option(metavar="TEXT", help="In any language.")],
    preset: options.Preset = presets.DEFAULT,
    mllm: options.Mllm = None,
    strategy: options.Strategy = None,
    segmenter: options.Segmenter = None,
    within: options.Within = None,
    exclude: options.Exclude = None,
    frame: options.Frame = None,
    target_exists: options.TargetExists = None,
    language: options.Language = "en",
    option: options.Option = None,
    budget: options.Budget = None,
    verify: options.Verify = 0,
    verify_all: options.VerifyAll = False,
    record: options.Record = None,
    out: options.Out = None,
    formats: options.Formats = "json,overlay,png,html",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Answer a question by a path of steps, with a mask for every object that they name.

    Prints the steps, in which [n] is the number of an object on the overlay, and writes
    result.json, overlay.png, a mask for each object, and result.html, which replays the path.
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
        results.source(options.single("--image", image)),
        options.single("--question", question),
        within=within,
        exclude=exclude,
    )
    limits, checking = Limits.parse(budget), options.checking(verify, verify_all)
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
            frame=frame,
            limits=limits,
            **checking,
            target_exists=bool(target_exists),
            language=language,
            options=backend_options,
            record=record,
            connect=True,
        )
        found = pipeline.run_trace(request)
        written = writers.write(found, folder, kinds) if folder else []
    if as_json:
        console.as_json(found.to_dict())
    else:
        _print(found, written)
    results.warn(found, chosen)


def _print(found: Trace, written: Sequence[Path]) -> None:
    """The steps, the answer, the objects by number, what it cost, and the files."""
    from rsvp.parsing.mentions import numbered

    unanswered = results.no_answer(found)
    for number, step in enumerate(found.path, start=1):
        console.print_out(f"{number}. {console.plain(numbered(step.text, step.objects))}")
    said = console.plain(numbered(found.answer, found.answer_objects))
    console.print_out(unanswered or f"answer: {said}")
    if found.targets:
        console.print_out()
    for number, target in enumerate(found.targets, start=1):
        where = f"box {results.pixels(target.box)}, {target.packed.area} pixels"
        console.print_out(
            f"[{number}] {console.plain(target.label) or 'object'}: {where}, "
            f"score {target.score:.2f}"
        )
    if found.not_grounded:
        console.print_out(f"[?] not grounded: {found.not_grounded}")
    usage = found.usage
    calls = f"{usage.calls} call{'s' if usage.calls != 1 else ''}"
    console.print_out(
        f"tokens: {usage.prompt_tokens} read, {usage.completion_tokens} written, {calls}"
    )
    results.print_verdicts(found)
    results.print_written(written)
