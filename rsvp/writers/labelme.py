"""LabelMe: https://github.com/wkentaro/labelme, a JSON file an image.

A target is a shape of type ``mask``: a PNG of what its tight box holds, lossless, with holes and
parts; LabelMe 5.3 and later read it.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from rsvp.masks import mask_to_box
from rsvp.types import Image, Segmentation, Target
from rsvp.writers.files import png
from rsvp.writers.labels import label_of

_VERSION = "5.5.0"  # of the format's description
# What LabelMe opens by itself, EXIF orientation applied, as rsvp does.
_OPENS = (".png", ".jpg", ".jpeg", ".bmp")


def to_labelme(result: Segmentation, folder: str | Path | None = None) -> dict[str, Any]:
    """The targets as a LabelMe file; one without a pixel, which LabelMe cannot hold, is left out.

    Args:
        folder: where the file will lie, so that it can name the image's file from there. Without
            it, or where the image has no file that LabelMe opens, the image itself is in it.
    """
    image = result.image
    beside = None if folder is None else _path_from(image, Path(folder))
    data = None if beside else base64.b64encode(png(image.rgb)).decode("ascii")
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": [shape for target in result.targets if (shape := _shape(target))],
        "imagePath": beside or Path(image.path or "image.png").name,
        "imageData": data,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def _shape(target: Target) -> dict[str, Any] | None:
    box = mask_to_box(target.mask)
    if box is None:
        return None
    x0, y0, x1, y1 = (int(value) for value in box.xyxy)
    cut = target.mask[y0:y1, x0:x1].astype("uint8") * 255
    return {
        "label": label_of(target),
        "points": [[x0, y0], [x1 - 1, y1 - 1]],  # the corner pixels, both inside
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png(cut)).decode("ascii"),
        "score": round(target.score, 4),
    }


def _path_from(image: Image, folder: Path) -> str | None:
    """The image's file as seen from a folder; None where LabelMe could not open it there."""
    if image.path is None or Path(image.path).suffix.lower() not in _OPENS:
        return None
    if not Path(image.path).is_file():
        return None
    try:
        return Path(os.path.relpath(image.path, folder)).as_posix()
    except ValueError:  # on another drive
        return None
