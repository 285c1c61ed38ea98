"""`rsvp prompts`: the prompts by name, or their texts as a model gets them."""

from __future__ import annotations

from typing import Annotated

import typer

from rsvp.cli import console
from rsvp.cli.options import AsJson, opt

WIDTH, HEIGHT = 1024, 768  # pixels of the imagined image

# Stand in for what a run fills in; the query's code is that of this text.
PLACEHOLDERS = {
    "query": "<query>",
    "question": "<question>",
    "choices": "<choices>",
    "problem": "<why the last reply could not be read>",
    "number": "1",
    "things": "<what was looked at>",
    "looks_left": "once",
    "rows": "9",
    "columns": "9",
    "marks_range": "1 to 12",
    "numbers": "targets 1, 2 and 3",
}


def prompts(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="A prompt, e.g. full/boxes.cot.")
    ] = None,
    frame: Annotated[str, opt("FRAME", "How the model writes coordinates, e.g. 0-1.")] = "0-1000",
    as_json: AsJson = False,
) -> None:
    """List the prompts, or show them as a model gets them.

    With names, each text is filled in for one coordinate frame and an image of 1024 x 768 pixels;
    placeholders stand in for the query and for the other values of a run.
    """
    from rsvp import prompting

    variables = {**prompting.variables_for_frame(frame, WIDTH, HEIGHT), **PLACEHOLDERS}
    entries = [
        {
            "name": name,
            "sha256": prompting.load(name).sha256,
            "text": prompting.render(name, **variables),
        }
        for name in names or prompting.names()
    ]
    if as_json:
        console.as_json({"prompts": entries})
        return
    for number, entry in enumerate(entries):
        if not names:
            console.print_out(entry["name"])
            continue
        if len(names) > 1:
            console.print_out(f"## {entry['name']}\n")
        console.print_out(entry["text"] + "\n" * (number < len(names) - 1))
