"""`rsvp segment`: one image, one query, the reasoning and the masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rsvp import presets
from rsvp.cli import console, options, results
from rsvp.cli.options import opt

if TYPE_CHECKING:
    from rsvp.result import Result


@options.grouped
def segment(
    *,
    image: results.Image,
    query: Annotated[
        list[str] | None,
        opt("TEXT", "What to look for, in any language; optional with --box or --point."),
    ] = None,
    prompts: results.PromptOptions,
    label: Annotated[
        list[str] | None,
        opt(
            "TEXT",
            "What the box shows, one for each --box in their order, or one for all; by "
            "default the query.",
        ),
    ] = None,
    hints: results.HintOptions,
    like: Annotated[
        list[str] | None,
        opt(
            "X0,Y0,X1,Y1",
            "A box around an example, in pixels: find more like it. For a detector of concepts, "
            "e.g. --strategy marks:sam3:ID. May be given several times.",
        ),
    ] = None,
    models: options.ReasoningOptions,
    output: results.OutputOptions,
) -> None:
    """Find what a query asks for in an image.

    Prints the reasoning and the targets, and writes result.json, overlay.png and a mask for each
    target into --out.
    """
    one = results.OneImage(models, output)
    from rsvp.errors import BadInput
    from rsvp.request import make_request

    request = make_request(
        results.source(image),
        options.single("--query", query or [""]),
        prompts.box or None,
        prompts.point or None,
        labels=label or None,
        **vars(hints),
        like=like or None,
    )
    if request.prompts and (models.verify or models.samples != "1"):
        raise BadInput("boxes and points need no MLLM: leave out --verify and --samples")
    mllm = presets.NO_MLLM if request.prompts else None
    one.answer(request, lambda pipeline: pipeline.run(request), _print, mllm)


def _print(result: Result) -> None:
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
