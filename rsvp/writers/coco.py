"""COCO instances: https://cocodataset.org/#format-data; polygons, or run-length encodings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rsvp.masks import encode_rle, mask_to_box
from rsvp.platform.files import json_bytes
from rsvp.types import Image, Segmentation, Target
from rsvp.writers.common import label_of, labels_of
from rsvp.writers.contours import find_outlines, join_contours


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    yield "coco.json", json_bytes(to_coco(result))


def write_rle(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    yield "coco-rle.json", json_bytes(to_coco(result, rle=True))


def to_coco(result: Segmentation, *, rle: bool = False) -> dict[str, Any]:
    """The targets as a COCO instances dictionary: one image, a category for each label.

    Args:
        rle: masks as run-length encodings; by default as polygons, one for each separate part,
            along the edges of its pixels. Both give pycocotools exactly the mask; importers of
            annotation tools read polygons alone. An empty mask is a polygon without area.
    """
    labels = labels_of(result)
    return {
        "info": {"description": result.query},
        "images": [image_entry(1, Path(result.image.path or "image.png").name, result.image)],
        "categories": categories(labels),
        "annotations": [
            annotation(i, 1, target, labels.index(label_of(target)) + 1, rle=rle)
            for i, target in enumerate(result.targets, start=1)
        ],
    }


def categories(labels: Sequence[str]) -> list[dict[str, Any]]:
    """The entries of labels, numbered from 1."""
    return [{"id": i, "name": label} for i, label in enumerate(labels, start=1)]


def image_entry(number: int, name: str, image: Image) -> dict[str, Any]:
    """The entry of an image of this name."""
    return {"id": number, "file_name": name, "width": image.width, "height": image.height}


def annotation(
    number: int, image_number: int, target: Target, category: int, *, rle: bool
) -> dict[str, Any]:
    """The entry of a target; see `to_coco`."""
    mask = target.mask
    tight = mask_to_box(mask) or target.box
    corner = [round(tight.x0, 2), round(tight.y0, 2)]
    polygons = [join_contours(part).reshape(-1).tolist() for part in find_outlines(mask)]
    return {
        "id": number,
        "image_id": image_number,
        "category_id": category,
        "segmentation": encode_rle(mask) if rle else polygons or [corner * 3],
        "area": target.packed.area,
        "bbox": [*corner, round(tight.width, 2), round(tight.height, 2)],
        "iscrowd": 0,
        "score": round(target.score, 4),
    }
