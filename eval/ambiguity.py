"""What the words are worth to a segmenter: boxes that do not say all, with and without reading.

    python -m eval.ambiguity --data scenes:4242,300 --segmenter vlsm:embedded \\
        --base sam2:embedded

prints the mean IoU of both segmenters by style of box (see `rsvp.training.heldout`), the paired
difference with its bootstrap interval, and the presence AUC. `--data` is any data spec of training.
`--pictures DIR` draws boxes around two things as well: both segmenters' masks side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from rsvp import registry
from rsvp.drawing import overlay
from rsvp.errors import BadInput, RsvpError
from rsvp.evaluation.stats import mean_interval, paired_difference
from rsvp.segmenters import Segmenter
from rsvp.training.heldout import AMBIGUOUS, TRIED, HeldOut, Outcome
from rsvp.training.pictures import open_pictures
from rsvp.training.views import Ask
from rsvp.types import Image, Proposal, RgbArray, Target

Table = dict[str, dict[str, Any]]


def compare(base: Outcome, other: Outcome) -> Table:
    """By style of box, ``ambiguous`` being all but the clean ones: n, both means, the difference.

    Every trial counts alike.
    """
    groups = {**{style: (style,) for style in TRIED}, "ambiguous": AMBIGUOUS}
    table: Table = {}
    for name, styles in groups.items():
        a, b = base.of(*styles), other.of(*styles)
        if len(a):
            found = paired_difference(a, b)
            means = {"base": mean_interval(a).to_dict(), "segmenter": mean_interval(b).to_dict()}
            table[name] = {"n": len(a), **means, "difference": found.to_dict()}
    return table


def draw(held: HeldOut, base: Segmenter, other: Segmenter, folder: Path, limit: int) -> int:
    """Write a picture for each of the first `limit` boxes around two things; how many there were.

    Left is the mask of `base`, right that of `other`, each with the box and what was named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for picture, tried in held:
        for trial in tried:
            if trial.style == "shared" and drawn < limit:
                halves = [_shown(one, picture.rgb, trial.ask) for one in (base, other)]
                file = folder / f"{drawn:03d}.png"
                Pil.fromarray(np.concatenate(halves, axis=1)).save(file)
                drawn += 1
    return drawn


def _shown(segmenter: Segmenter, rgb: RgbArray, ask: Ask) -> RgbArray:
    (encoding,) = segmenter.encode([Image(rgb, sha256="")])
    found = segmenter.masks(encoding, [Proposal(ask.text, ask.box)])
    target = Target(ask.text, ask.box, float(found.scores[0]), found.masks[0])
    return overlay(rgb, [target])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _run(args)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.limit < 1:
        raise BadInput(f"the limit is at least 1 picture, found {args.limit}")
    held = HeldOut(open_pictures(args.data), args.limit, args.seed)
    base, other = (registry.make("segmenter", spec) for spec in (args.base, args.segmenter))
    if args.pictures is not None:
        drawn = draw(held, base, other, Path(args.pictures), args.draw)
        print(f"{drawn} pictures in {args.pictures}", file=sys.stderr)
    outcomes = [held.measure(segmenter) for segmenter in (base, other)]
    for cause in held.broken.values():
        print(f"passed over {cause}", file=sys.stderr)
    table = compare(*outcomes)
    presence = outcomes[1].figures()["presence_auc"]
    told = float(presence) if np.isfinite(presence) else None
    if args.json:
        print(json.dumps({"by_style": table, "presence_auc": told}, indent=2))
        return
    print(f"{'':<10}{'n':>5}  {args.base:<24}{args.segmenter:<24}difference")
    for name, row in table.items():
        shown = [_interval(row[key]) for key in ("base", "segmenter", "difference")]
        print(f"{name:<10}{row['n']:>5}  {shown[0]:<24}{shown[1]:<24}{shown[2]}")
    if told is not None:
        print(f"presence AUC against other things' names: {told:.3f}")


def _interval(told: dict[str, float]) -> str:
    return f"{told['mean']:.3f} [{told['low']:.3f}, {told['high']:.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.ambiguity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", action="append", required=True, help="a data spec of training")
    parser.add_argument("--segmenter", default="vlsm:embedded")
    parser.add_argument("--base", default="sam2:embedded")
    parser.add_argument("--limit", type=int, default=300, help="pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the boxes")
    parser.add_argument("--pictures", metavar="DIR", help="draw both segmenters' masks into DIR")
    parser.add_argument("--draw", type=int, default=12, help="how many pictures")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
