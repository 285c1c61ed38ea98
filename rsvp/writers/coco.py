"""COCO instances: https://cocodataset.org/#format-data; masks as run-length encodings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvp.masks import encode_rle, mask_to_box
from rsvp.platform.files import json_bytes
from rsvp.types import Segmentation, Target
from rsvp.writers.common import label_of, labels_of


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`coco.json`."""
    yield "coco.json", json_bytes(to_coco(result))


def to_coco(result: Segmentation) -> dict[str, Any]:
    """The targets as a COCO instances dictionary: one image, a category for each label."""
    labels = labels_of(result)
    image = result.image
    return {
        "info": {"description": result.query},
        "images": [
            {"id": 1, "file_name": image.path or "", "width": image.width, "height": image.height}
        ],
        "categories": [{"id": i, "name": label} for i, label in enumerate(labels, start=1)],
        "annotations": [
            _annotation(i, target, labels.index(label_of(target)) + 1)
            for i, target in enumerate(result.targets, start=1)
        ],
    }


def _annotation(number: int, target: Target, category: int) -> dict[str, Any]:
    mask = target.mask
    tight = mask_to_box(mask) or target.box
    return {
        "id": number,
        "image_id": 1,
        "category_id": category,
        "segmentation": encode_rle(mask),
        "area": target.packed.area,
        "bbox": [round(v, 2) for v in (tight.x0, tight.y0, tight.width, tight.height)],
        "iscrowd": 0,
        "score": round(target.score, 4),
    }
