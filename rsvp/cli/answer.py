"""`rsvp answer`: one image, one question; closer looks at what matters, then the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rsvp.cli import console, options, results
from rsvp.cli.options import opt

if TYPE_CHECKING:
    from rsvp.result import Answer


@dataclass(frozen=True, kw_only=True)
class AnswerFiles(results.OutputOptions):
    formats: results.Formats = "json,overlay,png,looks"


@options.grouped
def answer(
    *,
    image: results.Image,
    question: results.Question,
    choice: Annotated[
        list[str] | None,
        opt(
            "TEXT",
            "What the answer is chosen from, one --choice each; without any it is free.",
        ),
    ] = None,
    zoom: options.Zoom = "mask",
    looks: options.Looks = 2,
    prompts: results.PromptOptions,
    hints: results.HintOptions,
    models: options.ReasoningOptions,
    output: AnswerFiles,
) -> None:
    """Answer a question about an image, after a closer look where one helps.

    The MLLM says what it wants to see more closely, or answers at once. What it names is segmented
    as in `rsvp segment`, and shown to it again, enlarged. With --box or --point it is shown these
    at once.
    """
    one = results.OneImage(models, output)
    from rsvp.answer import make_answer_request
    from rsvp.request import make_request

    request = make_request(
        results.source(image),
        options.single("--question", question),
        prompts.box or None,
        prompts.point or None,
        **vars(hints),
    )
    asked = make_answer_request(request, choice or None, zoom=zoom, looks=looks)
    one.answer(request, lambda pipeline: pipeline.run_answer(asked), _print)


def _print(found: Answer) -> None:
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
        console.print_out(found.unanswered)
    if found.reason:
        console.print_out(f"because: {console.plain(found.reason)}")
    results.print_verdicts(found)
