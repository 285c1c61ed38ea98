"""COCO instances: https://cocodataset.org/#format-data; polygons, or run-length encodings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvp.masks import encode_rle, mask_to_box
from rsvp.platform.files import json_bytes
from rsvp.types import Segmentation, Target
from rsvp.writers.common import label_of, labels_of
from rsvp.writers.contours import find_outlines, join_contours


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`coco.json`."""
    yield "coco.json", json_bytes(to_coco(result))


def write_rle(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`coco-rle.json`."""
    yield "coco-rle.json", json_bytes(to_coco(result, rle=True))


def to_coco(result: Segmentation, *, rle: bool = False) -> dict[str, Any]:
    """The targets as a COCO instances dictionary: one image, a category for each label.

    Args:
        rle: masks as run-length encodings; by default as polygons, one for each separate part,
            along the edges of its pixels. Both give pycocotools exactly the mask; importers of
            annotation tools read polygons alone. An empty mask is a polygon without area.
    """
    labels = labels_of(result)
    image = result.image
    name = Path(image.path or "image.png").name
    return {
        "info": {"description": result.query},
        "images": [{"id": 1, "file_name": name, "width": image.width, "height": image.height}],
        "categories": [{"id": i, "name": label} for i, label in enumerate(labels, start=1)],
        "annotations": [
            _annotation(i, target, labels.index(label_of(target)) + 1, rle)
            for i, target in enumerate(result.targets, start=1)
        ],
    }


def _annotation(number: int, target: Target, category: int, rle: bool) -> dict[str, Any]:
    mask = target.mask
    tight = mask_to_box(mask) or target.box
    corner = [round(tight.x0, 2), round(tight.y0, 2)]
    polygons = [join_contours(part).reshape(-1).tolist() for part in find_outlines(mask)]
    return {
        "id": number,
        "image_id": 1,
        "category_id": category,
        "segmentation": encode_rle(mask) if rle else polygons or [corner * 3],
        "area": target.packed.area,
        "bbox": [*corner, round(tight.width, 2), round(tight.height, 2)],
        "iscrowd": 0,
        "score": round(target.score, 4),
    }
