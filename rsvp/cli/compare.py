"""`rsvp compare`: which of two runs is better, by how much, and on which samples."""

from __future__ import annotations

from typing import Annotated

import typer

from rsvp.cli import console
from rsvp.cli.options import AsJson, Debug, begin


def compare(
    *,
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The folder of a run.")],
    run_b: Annotated[
        str, typer.Argument(metavar="RUN_B", help="The folder of another one on the same data.")
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare two runs of `rsvp eval` sample by sample.

    The differences are B - A with paired bootstrap intervals, overall and by kind. A sample has
    flipped when its IoU is at least 0.5 in one run only.
    """
    begin(debug=debug)
    from rsvp.evaluation.compare import compare as compare_runs
    from rsvp.evaluation.report.text import format_comparison

    found = compare_runs(run_a, run_b)
    if as_json:
        console.as_json(found.to_dict())
    else:
        console.print_out(format_comparison(found))
