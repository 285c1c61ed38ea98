"""Points and boxes -> mask, on photographs and on rendered scenes.

    python -m eval.points --data FOLDER --data scenes:31337,60 [--segmenter SPEC] [--json]

Each object is prompted by its box, by its box with a point, and by a point alone. A point is the
box's middle, whether or not the object covers it, the object's pixel nearest to that (the centre),
or a random pixel of the object. `--data` is a folder as for `eval.photos`, of which the split
`--split` counts, or `scenes:SEED,N`. Intervals resample images.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval._common import format_interval, make_parser, run, show_progress
from eval.photos import AnnotatedPhotos
from rsvp import registry
from rsvp.datasets import GroundTruthObject
from rsvp.embedded.scenes import scenes
from rsvp.errors import BadInput
from rsvp.evaluation.stats import ratio_interval
from rsvp.masks import mask_iou
from rsvp.segmenters import Segmenter
from rsvp.types import BoolMask, Box, Image, Point, Proposal

SEED = 0  # of the random points
SCENES = "scenes:"


class RenderedScenes:
    """Rendered scenes with their objects, as `AnnotatedPhotos` gives them.

    Args:
        argument: SEED,N.

    Raises:
        BadInput: it is not two numbers, N at least 1.
    """

    def __init__(self, argument: str) -> None:
        parts = argument.split(",")
        if len(parts) != 2 or not all(p.isdecimal() for p in parts) or not int(parts[1]):
            raise BadInput(f"scenes are {SCENES}SEED,N, found {argument!r}")
        self._seed, self._n = map(int, parts)

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[tuple[Image, list[GroundTruthObject]]]:
        for scene in scenes(self._n, self._seed):
            objects = [GroundTruthObject(o.category.name, o.box, o.mask) for o in scene.objects]
            yield Image(scene.rgb, sha256=""), objects


def prompts(truth: GroundTruthObject, rng: np.random.Generator) -> dict[str, Proposal]:
    """The prompts for an object, by the names of the table's rows."""
    middle, box = Point(*truth.box.center), truth.box
    center, anywhere = center_point(truth.mask, middle), random_point(truth.mask, rng)
    given: dict[str, tuple[Box | None, tuple[Point, ...]]] = {
        "box": (box, ()), "box + middle": (box, (middle,)), "box + centre": (box, (center,)),
        "box + random": (box, (anywhere,)), "centre": (None, (center,)),
        "random": (None, (anywhere,)),
    }  # fmt: skip
    return {name: Proposal(truth.label, b, points) for name, (b, points) in given.items()}


def center_point(mask: BoolMask, middle: Point) -> Point:
    """The centre of the mask's pixel that is nearest to a point."""
    ys, xs = np.nonzero(mask)
    nearest = int(np.argmin((xs + 0.5 - middle.x) ** 2 + (ys + 0.5 - middle.y) ** 2))
    return Point(float(xs[nearest]) + 0.5, float(ys[nearest]) + 0.5)


def random_point(mask: BoolMask, rng: np.random.Generator) -> Point:
    """The centre of a random pixel of the mask."""
    ys, xs = np.nonzero(mask)
    chosen = int(rng.integers(len(ys)))
    return Point(float(xs[chosen]) + 0.5, float(ys[chosen]) + 0.5)


def measure(
    segmenter: Segmenter,
    images: AnnotatedPhotos | RenderedScenes,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Mean IoU over the objects, by prompt.

    Args:
        progress: called with the number of images that are done, and of all.

    Returns:
        ``{"images", "objects"}`` and, by the names of `prompts`, ``{"mean", "low", "high"}``.

    Raises:
        BadInput: an image is missing, or an object's mask is empty.
    """
    rng = np.random.default_rng(SEED)
    counts: list[int] = []
    sums: dict[str, list[float]] = defaultdict(list)
    for done, (image, objects) in enumerate(images, start=1):
        counts.append(len(objects))
        (encoding,) = segmenter.encode([image])
        asked = [prompts(truth, rng) for truth in objects]
        for name in asked[0]:
            masks = segmenter.masks(encoding, [by_name[name] for by_name in asked]).masks
            pairs = zip(masks, objects, strict=True)
            sums[name].append(sum(mask_iou(mask, truth.mask) for mask, truth in pairs))
        if progress is not None:
            progress(done, len(images))
    intervals = {name: ratio_interval(column, counts).to_dict() for name, column in sums.items()}
    return {"images": len(counts), "objects": sum(counts), **intervals}


def format_table(outcome: dict[str, Any], name: str) -> str:
    """The outcome of one data set as text."""
    head = f"{name}: {outcome['objects']} objects, {outcome['images']} images"
    rows = [(key, value) for key, value in outcome.items() if isinstance(value, dict)]
    lines = [f"{key:<13} {format_interval(value, 4)}" for key, value in rows]
    return "\n".join([f"{head}; mean IoU [95 % interval]", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("points", __doc__)
    parser.add_argument("--data", action="append", required=True, help="a folder, or scenes:SEED,N")
    parser.add_argument("--split", default="val", help="of a folder's images")
    parser.add_argument("--segmenter", metavar="SPEC", default="sam2:embedded")
    parser.add_argument("--json", action="store_true")
    return run(_run, parser.parse_args(argv))


def _open(data: str, split: str) -> AnnotatedPhotos | RenderedScenes:
    if data.startswith(SCENES):
        return RenderedScenes(data.removeprefix(SCENES))
    return AnnotatedPhotos(Path(data), split)


def _run(args: argparse.Namespace) -> None:
    sources = {data: _open(data, args.split) for data in args.data}
    segmenter = registry.make("segmenter", args.segmenter)
    outcomes = {
        data: measure(segmenter, images, progress=show_progress) for data, images in sources.items()
    }
    tables = "\n\n".join(format_table(outcome, data) for data, outcome in outcomes.items())
    print(json.dumps(outcomes) if args.json else tables)


if __name__ == "__main__":
    raise SystemExit(main())
