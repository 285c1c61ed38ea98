"""What the text adds to a segmenter on ambiguous boxes: a VLSM beside SAM 2.

    python -m eval.ambiguity --data scenes:4242,300 --segmenter vlsm:embedded \\
        --base sam2:embedded

prints the mean IoU of both segmenters by style of box (see `rsvp.training.validation`), the paired
difference with its bootstrap interval, and the presence AUC. `--data` is any data spec of training.
`--pictures DIR` also draws the boxes around two objects, with both segmenters' masks side by side.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from eval._common import format_interval, make_parser, run
from rsvp import registry
from rsvp.drawing import overlay
from rsvp.errors import BadInput
from rsvp.evaluation.stats import mean_interval, paired_difference
from rsvp.segmenters import Segmenter
from rsvp.training.data import open_sources
from rsvp.training.samples import TrainingProposal
from rsvp.training.validation import AMBIGUOUS, STYLES, ValidationResult, ValidationSet
from rsvp.types import Image, PackedMask, Proposal, RgbArray, Target

Table = dict[str, dict[str, Any]]


def compare(base: ValidationResult, other: ValidationResult) -> Table:
    """By style of box, and for all ``ambiguous`` ones: n, both means and the difference."""
    groups = {**{style: (style,) for style in STYLES}, "ambiguous": AMBIGUOUS}
    table: Table = {}
    for name, styles in groups.items():
        a, b = base.ious_of(*styles), other.ious_of(*styles)
        if len(a):
            found = paired_difference(a, b)
            means = {"base": mean_interval(a).to_dict(), "segmenter": mean_interval(b).to_dict()}
            table[name] = {"n": len(a), **means, "difference": found.to_dict()}
    return table


def draw(cases: ValidationSet, base: Segmenter, other: Segmenter, folder: Path, limit: int) -> int:
    """Write a picture for each of the first `limit` boxes around two objects.

    On the left is the mask of `base`, on the right that of `other`, each with the box and the text.

    Returns:
        How many were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for image, proposed in cases:
        for case in proposed:
            if case.style == "shared" and drawn < limit:
                halves = [_shown(one, image.rgb, case.proposal) for one in (base, other)]
                file = folder / f"{drawn:03d}.png"
                Pil.fromarray(np.concatenate(halves, axis=1)).save(file)
                drawn += 1
    return drawn


def _shown(segmenter: Segmenter, rgb: RgbArray, proposal: TrainingProposal) -> RgbArray:
    (encoding,) = segmenter.encode([Image(rgb, sha256="")])
    found = segmenter.masks(encoding, [Proposal(proposal.text, proposal.box)])
    mask = PackedMask.pack(found.masks[0])
    target = Target(proposal.text, proposal.box, float(found.scores[0]), mask)
    return overlay(rgb, [target])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("ambiguity", __doc__)
    parser.add_argument("--data", action="append", required=True, help="a data spec of training")
    parser.add_argument("--segmenter", default="vlsm:embedded")
    parser.add_argument("--base", default="sam2:embedded")
    parser.add_argument("--limit", type=int, default=300, help="pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the boxes")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw both segmenters' masks")
    parser.add_argument("--draw", type=int, default=12, help="how many pictures")
    parser.add_argument("--json", action="store_true")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    if args.limit < 1:
        raise BadInput(f"the limit is at least 1 picture, found {args.limit}")
    cases = ValidationSet(open_sources(args.data), args.limit, args.seed)
    base, other = (registry.make("segmenter", spec) for spec in (args.base, args.segmenter))
    if args.pictures is not None:
        drawn = draw(cases, base, other, args.pictures, args.draw)
        print(f"{drawn} pictures in {args.pictures}", file=sys.stderr)
    results = [cases.evaluate(segmenter) for segmenter in (base, other)]
    for cause in cases.broken.values():
        print(f"skipped {cause}", file=sys.stderr)
    table = compare(*results)
    presence = float(results[1].metrics()["presence_auc"])
    auc = presence if np.isfinite(presence) else None
    if args.json:
        print(json.dumps({"by_style": table, "presence_auc": auc}, indent=2))
        return
    print(f"{'':<10}{'n':>5}  {args.base:<24}{args.segmenter:<24}difference")
    for name, row in table.items():
        cells = [format_interval(row[key]) for key in ("base", "segmenter", "difference")]
        print(f"{name:<10}{row['n']:>5}  {cells[0]:<24}{cells[1]:<24}{cells[2]}")
    if auc is not None:
        print(f"presence AUC against other things' names: {auc:.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
