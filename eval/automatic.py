"""Automatic masks on photographs: how many of the annotated objects are among them, and how fast.

    python -m eval.automatic --data FOLDER [--split val] [--segmenter SPEC]
        [--beside-package] [--points-per-side N] [--min-iou X] [--min-stability X] [--json]

FOLDER is as for `eval.photos`. The metric is COCO's average recall at 100 masks: the 100 masks of
an image with the best predicted IoU are matched with at most one object each; the recall is
averaged over the mask IoUs 0.50, 0.55 … 0.95 that a match needs. `--beside-package` gives the same
network to the generator of the `sam2` package, with the same settings, in the same run: the two
take turns, image by image. Intervals resample images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval._common import format_interval, make_parser, run, show_progress
from eval.photos import AnnotatedPhotos
from rsvp import registry
from rsvp.errors import BadInput
from rsvp.evaluation.stats import ratio_interval
from rsvp.masks import mask_iou_matrix
from rsvp.types import BoolMask, Image

if TYPE_CHECKING:
    from rsvp.segmenters.automatic import AutomaticMasks
    from rsvp.segmenters.mask_filter import AutomaticSettings

MASKS = 100
IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
OPTIONS = ("points_per_side", "min_iou", "min_stability")  # of the settings

Generator = Callable[[Image], "AutomaticMasks"]


@dataclass(slots=True)
class GeneratorStats:
    """The result of one generator: a value an image."""

    recalled: list[float] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def to_dict(self, objects: Sequence[int]) -> dict[str, Any]:
        """The summary, given the number of objects of each image."""
        return {
            "average_recall": ratio_interval(self.recalled, objects).to_dict(),
            "masks_per_image": sum(self.masks) / len(self.masks),
            "seconds": sum(self.seconds),
        }


def recalled(truths: BoolMask, masks: BoolMask, scores: NDArray[np.float32]) -> float:
    """How many of the true masks are found, averaged over `IOUS`.

    Args:
        truths: (m, H, W).
        masks: (n, H, W).
        scores: (n,); the best `MASKS` count, and choose their object in this order.
    """
    best = np.argsort(-scores, kind="stable")[:MASKS]
    ious = mask_iou_matrix(masks[best], truths)
    return float(np.mean([_matched(ious, threshold) for threshold in IOUS]))


def _matched(ious: NDArray[np.float32], threshold: float) -> int:
    """Objects matched when every mask, row by row, takes the best object that is still free."""
    free = np.ones(ious.shape[1], dtype=np.bool_)
    for row in ious:
        choice = int(np.argmax(np.where(free, row, -1)))
        if free[choice] and row[choice] >= threshold:
            free[choice] = False
    return int((~free).sum())


def measure(
    generators: dict[str, Generator],
    photos: AnnotatedPhotos,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Recall and time of every generator on the same images.

    Args:
        generators: name -> what gives the masks of an image. They take turns, the first one going
            first on every other image; the first image is run once before, untimed.
        progress: called with the number of images that are done, and of all.

    Returns:
        ``{"images", "objects", NAME: {"average_recall": {"mean", "low", "high"},
        "masks_per_image", "seconds"}}``.
    """
    stats = {name: GeneratorStats() for name in generators}
    counts: list[int] = []
    for done, (image, objects) in enumerate(photos, start=1):
        if done == 1:
            for generate in generators.values():
                generate(image)
        truths = np.stack([one.mask for one in objects])
        counts.append(len(truths))
        for name in list(generators) if done % 2 else reversed(generators):
            started = time.perf_counter()
            found = generators[name](image)
            stats[name].seconds.append(time.perf_counter() - started)
            stats[name].masks.append(len(found))
            masks = np.zeros((len(found), *truths.shape[1:]), dtype=np.bool_)
            for page, mask in zip(masks, found.masks, strict=True):
                page[:] = mask.unpack()
            stats[name].recalled.append(recalled(truths, masks, found.scores))
        if progress is not None:
            progress(done, len(photos))
    summaries = {name: one.to_dict(counts) for name, one in stats.items()}
    return {"images": len(counts), "objects": sum(counts), **summaries}


def make_generators(
    spec: str, settings: AutomaticSettings, *, beside_package: bool
) -> dict[str, Generator]:
    """``rsvp`` with the segmenter of a spec and, on request, ``sam2`` with the same network.

    Raises:
        BadInput: a segmenter without point prompts.
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
    """The outcome as text."""
    lines = [
        f"automatic masks, {outcome['objects']} objects, {outcome['images']} images; "
        f"average recall at {MASKS} masks [95 % interval]"
    ]
    for name in ("rsvp", "sam2"):
        if name in outcome:
            one = outcome[name]
            lines.append(
                f"{name:<6} {format_interval(one['average_recall'], 4)}  "
                f"{one['masks_per_image']:6.1f} masks an image  {one['seconds']:8.2f} s"
            )
    if "sam2" in outcome:
        ratio = outcome["rsvp"]["seconds"] / outcome["sam2"]["seconds"]
        lines.append(f"rsvp takes {ratio:.2f} times the package's time")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("automatic", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with instances.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--segmenter", metavar="SPEC", default="sam2:embedded")
    parser.add_argument("--beside-package", action="store_true", help="also the sam2 package's")
    parser.add_argument("--points-per-side", type=int)
    parser.add_argument("--min-iou", type=float, help="predicted IoU that a mask needs")
    parser.add_argument("--min-stability", type=float, help="stability that a mask needs")
    parser.add_argument("--json", action="store_true")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    from rsvp.segmenters.mask_filter import AutomaticSettings

    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    settings = replace(AutomaticSettings(), **given)
    photos = AnnotatedPhotos(args.data, args.split)
    generators = make_generators(args.segmenter, settings, beside_package=args.beside_package)
    outcome = {
        "split": args.split,
        "segmenter": args.segmenter,
        "settings": asdict(settings),
        **measure(generators, photos, progress=show_progress),
    }
    print(json.dumps(outcome) if args.json else format_table(outcome))


if __name__ == "__main__":
    raise SystemExit(main())
