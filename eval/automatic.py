"""Automatic masks on photographs: how many of the annotated objects are among them, and how fast.

    python -m eval.automatic --data FOLDER [--split val] [--segmenter SPEC]
        [--beside-package] [--points-per-side N] [--min-iou X] [--min-stability X] [--json]

FOLDER is as for `eval.photos`. Average recall at 100 masks as COCO counts it: an image's
100 masks of the best predicted IoU, each matched with at most one object; the share of objects
found, averaged over the mask IoUs 0.50, 0.55 … 0.95 that a match needs. `--beside-package` gives
the same network to the `sam2` package's own generator, with the same settings, in the same run: the
two take turns, image by image. Intervals resample images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.photos import Photos
from rsvp import registry
from rsvp.errors import BadInput, RsvpError
from rsvp.evaluation.stats import ratio_interval
from rsvp.types import BoolMask, Image

if TYPE_CHECKING:
    from rsvp.segmenters.automatic import AutomaticMasks
    from rsvp.segmenters.mask_filter import AutomaticSettings

MASKS = 100
IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))

Generator = Callable[[Image], "AutomaticMasks"]


@dataclass(slots=True)
class _Tally:
    """What one generator did, image by image."""

    recalled: list[float] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def to_dict(self, objects: Sequence[int]) -> dict[str, Any]:
        return {
            "average_recall": ratio_interval(self.recalled, objects).to_dict(),
            "masks_per_image": sum(self.masks) / len(self.masks),
            "seconds": sum(self.seconds),
        }


def recalled(truths: Sequence[BoolMask], masks: BoolMask, scores: NDArray[np.float32]) -> float:
    """How many of the true masks are found, averaged over `IOUS`.

    Args:
        truths: (H, W) each.
        masks: (n, H, W).
        scores: (n,); the best `MASKS` count, and choose their object first.
    """
    best = np.argsort(-scores, kind="stable")[:MASKS]
    overlap = _iou_matrix(masks[best], np.asarray(truths, dtype=np.bool_))
    return float(np.mean([_matched(overlap, least) for least in IOUS]))


def _matched(overlap: NDArray[np.float32], least: float) -> int:
    """Objects matched when every mask, row by row, takes the best object that is still free."""
    free = np.ones(overlap.shape[1], dtype=np.bool_)
    for row in overlap:
        choice = int(np.argmax(np.where(free, row, -1)))
        if free[choice] and row[choice] >= least:
            free[choice] = False
    return int((~free).sum())


def _iou_matrix(masks: BoolMask, truths: BoolMask) -> NDArray[np.float32]:
    """(n, m) IoUs of (n, H, W) and (m, H, W)."""
    a = masks.reshape(len(masks), truths[0].size).astype(np.float32)
    b = truths.reshape(len(truths), truths[0].size).astype(np.float32)
    shared = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - shared
    found: NDArray[np.float32] = shared / np.maximum(union, 1)
    return found


def measure(
    generators: dict[str, Generator],
    photos: Photos,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Recall and time of every generator on the same images.

    Args:
        generators: name -> what gives the masks of an image. They take turns, the first one going
            first on every other image, after one image that nobody's clock sees.
        progress: told how many images are done, of how many.

    Returns:
        ``{"images", "objects", NAME: {"average_recall": {"mean", "low", "high"},
        "masks_per_image", "seconds"}}``.
    """
    tallies = {name: _Tally() for name in generators}
    counts: list[int] = []
    for done, (image, objects) in enumerate(photos, start=1):
        if done == 1:
            for generate in generators.values():
                generate(image)
        truths = [one.mask for one in objects]
        counts.append(len(truths))
        for name in list(generators) if done % 2 else reversed(generators):
            started = time.perf_counter()
            found = generators[name](image)
            tallies[name].seconds.append(time.perf_counter() - started)
            tallies[name].masks.append(len(found))
            scores = found.masks.scores
            tallies[name].recalled.append(recalled(truths, found.masks.masks, scores))
        if progress is not None:
            progress(done, len(photos))
    measured = {name: tally.to_dict(counts) for name, tally in tallies.items()}
    return {"images": len(counts), "objects": sum(counts), **measured}


def generators(
    spec: str, settings: AutomaticSettings, *, beside_package: bool
) -> dict[str, Generator]:
    """``rsvp`` with the segmenter of a spec and, on request, ``sam2`` with the same network.

    Raises:
        BadInput: a segmenter that cannot be asked at points.
        MissingExtra, ModelUnavailable: weights or the package are missing.
    """
    segmenter = registry.make("segmenter", spec)
    if not callable(getattr(segmenter, "every_mask", None)):
        raise BadInput(f"the segmenter {spec} gives no automatic masks; sam2 does")

    from rsvp.segmenters.automatic import automatic_masks

    found: dict[str, Generator] = {
        "rsvp": lambda image: automatic_masks(segmenter, image, settings),
    }
    if beside_package:
        from eval.official_sam2 import PackageGenerator

        found["sam2"] = PackageGenerator.of(segmenter, settings)
    return found


def format_table(outcome: dict[str, Any]) -> str:
    """What `measure` returned, as text."""
    lines = [
        f"automatic masks, {outcome['objects']} objects, {outcome['images']} images; "
        f"average recall at {MASKS} masks [95 % interval]"
    ]
    for name in ("rsvp", "sam2"):
        if name in outcome:
            one = outcome[name]
            mean, low, high = (one["average_recall"][key] for key in ("mean", "low", "high"))
            lines.append(
                f"{name:<6} {mean:.4f} [{low:.4f}, {high:.4f}]  "
                f"{one['masks_per_image']:6.1f} masks an image  {one['seconds']:8.2f} s"
            )
    if "sam2" in outcome:
        ratio = outcome["rsvp"]["seconds"] / outcome["sam2"]["seconds"]
        lines.append(f"rsvp takes {ratio:.2f} times the package's time")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    description = "Average recall of automatic masks on photographs, and their time."
    parser = argparse.ArgumentParser(prog="python -m eval.automatic", description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with instances.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--segmenter", metavar="SPEC", default="sam2:embedded")
    parser.add_argument("--beside-package", action="store_true", help="the sam2 package's, too")
    parser.add_argument("--points-per-side", type=int)
    parser.add_argument("--min-iou", type=float, help="predicted IoU that a mask needs")
    parser.add_argument("--min-stability", type=float, help="stability that a mask needs")
    parser.add_argument("--json", action="store_true")
    return parser


def _settings(args: argparse.Namespace) -> AutomaticSettings:
    from rsvp.segmenters.mask_filter import AutomaticSettings

    names = ("points_per_side", "min_iou", "min_stability")
    asked = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(AutomaticSettings(), **asked)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)

    def report(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr)

    try:
        photos, settings = Photos(args.data, args.split), _settings(args)
        found = generators(args.segmenter, settings, beside_package=args.beside_package)
        outcome = {"split": args.split, "segmenter": args.segmenter, "settings": asdict(settings)}
        outcome |= measure(found, photos, progress=report)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(outcome) if args.json else format_table(outcome))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
