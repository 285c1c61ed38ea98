"""`rsvp trace`: one image, one question; the reasoning with a mask for every object it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsvp.cli import console, options, results

if TYPE_CHECKING:
    from rsvp.result import Trace


@dataclass(frozen=True, kw_only=True)
class TraceFiles(results.OutputOptions):
    formats: results.Formats = "json,overlay,png,html"


@options.grouped
def trace(
    *,
    image: results.Image,
    question: results.Question,
    hints: results.HintOptions,
    models: options.PipelineOptions,
    output: TraceFiles,
) -> None:
    """Answer a question by a path of steps, with a mask for every object that they name.

    Prints the steps, in which [n] is the number of an object on the overlay, and writes
    result.json, overlay.png, a mask for each object, and result.html, which replays the path.
    """
    one = results.OneImage(models, output)
    from rsvp.request import make_request

    request = make_request(
        results.source(image),
        options.single("--question", question),
        **vars(hints),
    )
    one.answer(request, lambda pipeline: pipeline.run_trace(request), _print)


def _print(found: Trace) -> None:
    from rsvp.parsing.mentions import numbered

    for number, step in enumerate(found.path, start=1):
        console.print_out(f"{number}. {console.plain(numbered(step.text, step.objects))}")
    said = console.plain(numbered(found.answer, found.answer_objects))
    console.print_out(found.unanswered or f"answer: {said}")
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
