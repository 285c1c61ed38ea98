"""True box -> mask on photographs: the segmenter alone, beside what needs no network.

    python -m eval.photos --data FOLDER [--split val] [--segmenter SPEC] [--json]

FOLDER holds `images/` and `instances.json` in COCO's form, with RLE segmentations and a `split` for
every image. The baselines are prompted with the same boxes: the filled box, the ellipse inscribed
in it, and OpenCV's GrabCut started from it. Every interval resamples images, not objects.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rsvp import registry
from rsvp.errors import BadInput, MissingExtra, RsvpError
from rsvp.evaluation.metrics import iou, overlap
from rsvp.evaluation.stats import ratio_interval
from rsvp.images import load_image
from rsvp.masks import decode_rle, mask_to_box
from rsvp.segmenters import Segmenter
from rsvp.types import BoolMask, Box, Image, Proposal, RgbArray

GRABCUT_ITERATIONS = 5

Masker = Callable[[Image, Sequence["PhotoObject"]], Sequence[BoolMask]]


@dataclass(frozen=True, slots=True)
class PhotoObject:
    """One annotated object: its category, its tight box and its (H, W) bool mask."""

    name: str
    box: Box
    mask: BoolMask = field(repr=False)


def box_to_mask(
    segmenter: Segmenter | None,
    folder: Path,
    split: str = "val",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Mean IoU over the objects of a split, given their true boxes.

    Args:
        segmenter: what is measured; None measures the baselines alone.
        progress: told how many images are done, of how many.

    Returns:
        ``{"split", "images", "objects", "box", "ellipse", "grabcut", "segmenter"}``, the last four
        ``{"mean", "low", "high"}``.

    Raises:
        BadInput: the folder is not of this form.
        MissingExtra: OpenCV is not installed.
    """
    maskers: dict[str, Masker] = {"box": boxes, "ellipse": ellipses, "grabcut": grabcuts}
    if segmenter is not None:
        maskers["segmenter"] = lambda image, objects: prompted(segmenter, image, objects)
    photos = Photos(folder, split)
    counts: list[int] = []
    sums: dict[str, list[float]] = defaultdict(list)
    for done, (image, objects) in enumerate(photos, start=1):
        counts.append(len(objects))
        for name, masker in maskers.items():
            masks = masker(image, objects)
            pairs = zip(masks, objects, strict=True)
            sums[name].append(sum(iou(overlap(mask, truth.mask)) for mask, truth in pairs))
        if progress is not None:
            progress(done, len(photos))
    intervals = {name: ratio_interval(sums[name], counts).to_dict() for name in maskers}
    return {"split": split, "images": len(counts), "objects": sum(counts), **intervals}


class Photos:
    """The annotated images of one split, in the file's order."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.file = folder / "instances.json"
        document = _read_json(self.file)
        try:
            self._names = {int(c["id"]): str(c["name"]) for c in document["categories"]}
            self._annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for annotation in document["annotations"]:
                self._annotations[int(annotation["image_id"])].append(annotation)
            splits = sorted({str(i.get("split")) for i in document["images"]})
            chosen = [i for i in document["images"] if i.get("split") == split]
            self._images = [i for i in chosen if int(i["id"]) in self._annotations]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{self.file}: not in COCO's instances form ({error!r})") from error
        if not self._images:
            raise BadInput(f"{self.file}: no annotated image of split {split!r}; found {splits}")

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[tuple[Image, list[PhotoObject]]]:
        for entry in self._images:
            image = load_image(self.folder / "images" / str(entry["file_name"]))
            annotations = self._annotations[int(entry["id"])]
            yield image, [self._object(a, (image.height, image.width)) for a in annotations]

    def _object(self, annotation: dict[str, Any], size: tuple[int, int]) -> PhotoObject:
        where = f"{self.file}: annotation {annotation.get('id')}"
        mask = decode_rle(annotation.get("segmentation"), size, where)
        box = mask_to_box(mask)
        if box is None:
            raise BadInput(f"{where}: the mask is empty")
        return PhotoObject(self._names.get(annotation.get("category_id", -1), ""), box, mask)


def boxes(image: Image, objects: Sequence[PhotoObject]) -> list[BoolMask]:
    """The filled boxes."""
    return [_filled(o.box, image) for o in objects]


def ellipses(image: Image, objects: Sequence[PhotoObject]) -> list[BoolMask]:
    """The ellipses inscribed in the boxes; a pixel counts when its centre lies inside."""
    y, x = np.ogrid[0.5 : image.height, 0.5 : image.width]
    masks = []
    for box in (o.box for o in objects):
        (cx, cy), rx, ry = box.center, box.width / 2, box.height / 2
        masks.append(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)
    return masks


def grabcuts(image: Image, objects: Sequence[PhotoObject]) -> list[BoolMask]:
    """OpenCV's GrabCut on the whole image, started from each box.

    Where the box leaves no background to learn from, or GrabCut finds nothing, it is the filled
    box.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    return [_grabcut(image.rgb, o.box, _filled(o.box, image)) for o in objects]


def prompted(
    segmenter: Segmenter, image: Image, objects: Sequence[PhotoObject]
) -> Sequence[BoolMask]:
    """The segmenter's masks, all boxes of the image in one batch."""
    (encoding,) = segmenter.encode([image])
    proposals = [Proposal(o.name, o.box) for o in objects]
    return list(segmenter.masks(encoding, proposals).masks)


def _filled(box: Box, image: Image) -> BoolMask:
    mask = np.zeros((image.height, image.width), dtype=np.bool_)
    mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return mask


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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file}: broken JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{file}: not in COCO's instances form")
    return document


def format_table(outcome: dict[str, Any]) -> str:
    """What `box_to_mask` returned, as text."""
    head = f"true box -> mask, {outcome['objects']} objects, {outcome['images']} images"
    lines = [f"{head}, split {outcome['split']}; mean IoU [95 % interval]"]
    for name in ("box", "ellipse", "grabcut", "segmenter"):
        if name in outcome:
            mean, low, high = (outcome[name][key] for key in ("mean", "low", "high"))
            lines.append(f"{name:<10} {mean:.4f} [{low:.4f}, {high:.4f}]")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    description = "Mean IoU of masks from true boxes on photographs, beside simple baselines."
    parser = argparse.ArgumentParser(prog="python -m eval.photos", description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with instances.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--segmenter", metavar="SPEC", help="left out: the baselines alone")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)

    def report(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr)

    try:
        segmenter = registry.make("segmenter", args.segmenter) if args.segmenter else None
        outcome = box_to_mask(segmenter, args.data, args.split, progress=report)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(outcome) if args.json else format_table(outcome))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
