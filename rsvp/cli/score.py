"""`rsvp score`: anyone's predictions on a benchmark; no model is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from rsvp.cli import console
from rsvp.cli.options import AsJson, Debug, Protocol, Split, begin, opt

_NAMED = 5  # missing ids that the warning lists


def score(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The benchmark: reasonseg, refcoco, refcoco+, refcocog, grefcoco, seginw, vrt, "
            "vstar, hrbench, visulogic, pope, mmvp, hallusionbench, mmbench or scenes.",
        ),
    ],
    data: Annotated[str, opt("DIR", "The folder that holds the samples.")],
    predictions: Annotated[
        str,
        opt(
            "FILE",
            'JSON lines {"id", "masks": [RLE, …], "scores", "text"}, e.g. the records.jsonl '
            "of a run; for seginw also a folder of seginw_<Name>_val.json.",
        ),
    ],
    protocol: Protocol = None,
    split: Split = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score predictions on a benchmark, by its official rules.

    A sample without a prediction counts as an empty one.
    """
    begin(debug=debug)
    from rsvp.evaluation.report.text import format_score
    from rsvp.evaluation.score import score as score_predictions

    found = score_predictions(name, data, predictions, protocol=protocol, split=split)
    if found.missing:
        some = ", ".join(console.plain(one) for one in found.missing[:_NAMED])
        more = f" and {len(found.missing) - _NAMED} more" if len(found.missing) > _NAMED else ""
        console.warn(f"no prediction, scored as empty: {some}{more}")
    if as_json:
        console.as_json(found.to_dict())
    else:
        console.print_out(format_score(found))
