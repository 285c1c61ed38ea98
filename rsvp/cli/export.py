"""`rsvp export`: a run's predictions in the form in which its benchmark takes them."""

from __future__ import annotations

from typing import Annotated

import typer

from rsvp.cli import console
from rsvp.cli.options import Debug, begin, opt


def export(
    *,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    out: Annotated[str, opt("DIR", "Where the files go.")],
    debug: Debug = False,
) -> None:
    """Write the predictions of a run for the benchmark's own evaluation.

    seginw: seginw_<Name>_val.json, COCO results. Questions: answers.jsonl with question_id and
    text. The others: predictions.jsonl, as `rsvp score` reads it.
    """
    begin(debug=debug)
    from rsvp.evaluation.export import export_run

    for file in export_run(run, out):
        console.print_out(console.plain(str(file)))
