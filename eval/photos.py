"""True box -> mask on photographs: the segmenter alone, beside baselines without a network.

    python -m eval.photos --data FOLDER [--split val] [--segmenter SPEC] [--json]

FOLDER holds `images/` and `instances.json` in COCO's form, with a `split` for every image. The
baselines are prompted with the same boxes: the filled box, the ellipse inscribed in it, and
OpenCV's GrabCut started from it. Every interval resamples images, not objects.
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
from rsvp import registry
from rsvp.datasets import GroundTruthObject
from rsvp.datasets.instances import CocoAnnotation, read_instances
from rsvp.errors import BadInput, MissingExtra
from rsvp.evaluation.stats import ratio_interval
from rsvp.images import load_image
from rsvp.masks import box_to_mask, mask_iou, mask_to_box
from rsvp.segmenters import Segmenter
from rsvp.types import BoolMask, Box, Image, Proposal, RgbArray

GRABCUT_ITERATIONS = 5

Masker = Callable[[Image, Sequence[GroundTruthObject]], Sequence[BoolMask]]


class AnnotatedPhotos:
    """The annotated images of a split with their objects, in the file's order."""

    def __init__(self, folder: Path, split: str) -> None:
        self._truth = read_instances(folder / "instances.json").of_split(split)
        annotated = {one["image_id"] for one in self._truth.annotations}
        self._by_image: dict[int, list[CocoAnnotation]] = {
            number: [] for number in self._truth.images if number in annotated
        }
        for one in self._truth.annotations:
            self._by_image[one["image_id"]].append(one)
        if not self._by_image:
            raise BadInput(f"{self._truth.file}: no annotated image of split {split!r}")

    def __len__(self) -> int:
        return len(self._by_image)

    def __iter__(self) -> Iterator[tuple[Image, list[GroundTruthObject]]]:
        for number, entries in self._by_image.items():
            image = load_image(self._truth.image_file(number))
            yield image, [self._object(annotation) for annotation in entries]

    def _object(self, annotation: CocoAnnotation) -> GroundTruthObject:
        mask = self._truth.mask(annotation)
        box = mask_to_box(mask)
        if box is None:
            raise BadInput(f"{self._truth.file}: annotations {annotation['id']}: the mask is empty")
        return GroundTruthObject(self._truth.categories[annotation["category_id"]], box, mask)


def measure(
    segmenter: Segmenter | None,
    photos: AnnotatedPhotos,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Mean IoU over the objects, given their true boxes.

    Args:
        segmenter: what is measured; None measures the baselines alone.
        progress: called with the number of images that are done, and of all.

    Returns:
        ``{"images", "objects", "box", "ellipse", "grabcut", "segmenter"}``, the last four
        ``{"mean", "low", "high"}``.

    Raises:
        BadInput: an image is missing, or an object's mask is empty.
        MissingExtra: OpenCV is not installed.
    """
    maskers: dict[str, Masker] = {"box": boxes, "ellipse": ellipses, "grabcut": grabcuts}
    if segmenter is not None:
        maskers["segmenter"] = lambda image, objects: segmented(segmenter, image, objects)
    counts: list[int] = []
    sums: dict[str, list[float]] = defaultdict(list)
    for done, (image, objects) in enumerate(photos, start=1):
        counts.append(len(objects))
        for name, masker in maskers.items():
            pairs = zip(masker(image, objects), objects, strict=True)
            sums[name].append(sum(mask_iou(mask, truth.mask) for mask, truth in pairs))
        if progress is not None:
            progress(done, len(photos))
    intervals = {name: ratio_interval(sums[name], counts).to_dict() for name in maskers}
    return {"images": len(counts), "objects": sum(counts), **intervals}


def boxes(image: Image, objects: Sequence[GroundTruthObject]) -> list[BoolMask]:
    """The filled boxes."""
    return [box_to_mask(o.box, (image.height, image.width)) for o in objects]


def ellipses(image: Image, objects: Sequence[GroundTruthObject]) -> list[BoolMask]:
    """The ellipses inscribed in the boxes; a pixel counts when its centre lies inside."""
    y, x = np.ogrid[0.5 : image.height, 0.5 : image.width]
    masks = []
    for box in (o.box for o in objects):
        (cx, cy), rx, ry = box.center, box.width / 2, box.height / 2
        masks.append(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)
    return masks


def grabcuts(image: Image, objects: Sequence[GroundTruthObject]) -> list[BoolMask]:
    """OpenCV's GrabCut on the whole image, started from each box.

    Where the box leaves no background to learn from, or GrabCut finds nothing, it is the filled
    box.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    filled = boxes(image, objects)
    return [_grabcut(image.rgb, o.box, mask) for o, mask in zip(objects, filled, strict=True)]


def segmented(
    segmenter: Segmenter, image: Image, objects: Sequence[GroundTruthObject]
) -> Sequence[BoolMask]:
    """The segmenter's masks, all boxes of the image in one batch."""
    (encoding,) = segmenter.encode([image])
    proposals = [Proposal(o.label, o.box) for o in objects]
    return list(segmenter.masks(encoding, proposals).masks)


def _grabcut(rgb: RgbArray, box: Box, filled: BoolMask) -> BoolMask:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("the GrabCut baseline", "dev") from error
    if filled.all():
        return filled
    cv2.setRNGSeed(0)  # GrabCut starts from a k-means
    labels = np.zeros(filled.shape, dtype=np.uint8)
    rectangle = (int(box.x0), int(box.y0), int(box.width), int(box.height))
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    mode = cv2.GC_INIT_WITH_RECT
    cv2.grabCut(bgr, labels, rectangle, *models, GRABCUT_ITERATIONS, mode)
    mask: BoolMask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return mask if mask.any() else filled


def format_table(outcome: dict[str, Any]) -> str:
    """The outcome as text."""
    head = f"true box -> mask, {outcome['objects']} objects, {outcome['images']} images"
    lines = [f"{head}, split {outcome['split']}; mean IoU [95 % interval]"]
    for name in ("box", "ellipse", "grabcut", "segmenter"):
        if name in outcome:
            lines.append(f"{name:<10} {format_interval(outcome[name], 4)}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("photos", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with instances.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--segmenter", metavar="SPEC", help="left out: the baselines alone")
    parser.add_argument("--json", action="store_true")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    segmenter = registry.make("segmenter", args.segmenter) if args.segmenter else None
    photos = AnnotatedPhotos(args.data, args.split)
    outcome = {"split": args.split, **measure(segmenter, photos, progress=show_progress)}
    print(json.dumps(outcome) if args.json else format_table(outcome))


if __name__ == "__main__":
    raise SystemExit(main())
