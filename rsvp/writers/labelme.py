"""LabelMe: https://github.com/wkentaro/labelme, a JSON file an image.

A target is a shape of type ``mask``: a PNG of its tight box, lossless, with holes and separate
parts. LabelMe 5.3 and later read it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.platform.files import json_bytes, parse_json, read_bytes
from rsvp.types import Image, RgbArray, Segmentation, Target
from rsvp.writers.common import image_stem, label_of, png

_OURS = {"generator": "rsvp"}  # LabelMe keeps a key that it does not know
_RESERVED = ("result", "coco", "coco-rle")  # names of other formats' files
_VERSION = "5.5.0"  # of the format's description
# What LabelMe opens by itself, with the EXIF orientation applied, as rsvp does.
_OPENED_BY_LABELME = (".png", ".jpg", ".jpeg", ".bmp")


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`NAME.json`, named like the image, as LabelMe looks for it."""
    yield labelme_file(result.image.path), json_bytes(to_labelme(result, folder))


def labelme_file(image_path: str | None) -> str:
    """The name of an image's LabelMe file."""
    stem = image_stem(image_path)
    return f"{stem}.labelme.json" if stem.lower() in _RESERVED else f"{stem}.json"


def is_ours(file: Path) -> bool:
    """Whether rsvp wrote a LabelMe file, maybe edited since."""
    try:
        found = parse_json(read_bytes(file), str(file))
    except BadInput:
        return False
    return isinstance(found, dict) and _OURS.items() <= found.items()


def to_labelme(result: Segmentation, folder: str | Path | None = None) -> dict[str, Any]:
    """The targets as a LabelMe file; targets with an empty mask, which LabelMe lacks, are left out.

    Args:
        folder: of the JSON file, so that it can contain the image file's relative path. Without
            it, or where the image has no file that LabelMe opens, it contains the image itself.
    """
    image = result.image
    path = None if folder is None else _relative_path(image, Path(folder))
    return {
        "version": _VERSION,
        **_OURS,
        "flags": {},
        "shapes": [shape for target in result.targets if (shape := _shape(target))],
        "imagePath": path or Path(image.path or "image.png").name,
        "imageData": None if path else _base64_png(image.rgb),
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def _shape(target: Target) -> dict[str, Any] | None:
    mask = target.mask
    box = mask_to_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = (int(value) for value in box.xyxy)
    return {
        "label": label_of(target),
        "points": [[x0, y0], [x1 - 1, y1 - 1]],  # the corner pixels, both inside
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": _base64_png(mask[y0:y1, x0:x1].astype("uint8") * 255),
        "score": round(target.score, 4),
    }


def _base64_png(pixels: RgbArray) -> str:
    return base64.b64encode(png(pixels)).decode("ascii")


def _relative_path(image: Image, folder: Path) -> str | None:
    """The path of the image's file from a folder; None where LabelMe could not open it."""
    if image.path is None or Path(image.path).suffix.lower() not in _OPENED_BY_LABELME:
        return None
    if not Path(image.path).is_file():
        return None
    try:
        return Path(os.path.relpath(image.path, folder)).as_posix()
    except ValueError:  # on another drive
        return None
