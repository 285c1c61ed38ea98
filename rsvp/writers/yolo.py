"""YOLO segmentation: https://docs.ultralytics.com/datasets/segment, a line an object.

``class x1 y1 x2 y2 …``, coordinates relative to the image's size. The format has one polygon an
object: lines of one pixel connect holes and separate parts to it. Its readers round coordinates
down to whole pixels and fill the polygon, which gives every other pixel back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rsvp.types import Segmentation
from rsvp.writers.common import image_stem, label_of, labels_of
from rsvp.writers.contours import find_contours, join_contours

_MIN_POINTS = 3  # readers take a shorter line for a box


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`labels/NAME.txt`, named like the image, and `data.yaml` with the class names."""
    lines, names = to_yolo(result)
    labels = "".join(f"{line}\n" for line in lines)
    yield f"labels/{image_stem(result.image.path)}.txt", labels.encode()
    rows = [f"  {number}: {_yaml(name)}\n" for number, name in enumerate(names)]
    yield "data.yaml", ("names:\n" + "".join(rows) if rows else "names: {}\n").encode()


def _yaml(text: str) -> str:
    """A quoted YAML string in ASCII: JSON's, but for escapes that are not pairs of surrogates."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    quoted = json.dumps(whole, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", quoted)


def to_yolo(result: Segmentation) -> tuple[list[str], list[str]]:
    """The targets' polygons, and the names of the classes.

    A target with an empty mask has no polygon and is left out.

    Returns:
        The lines of the label file; the labels, each at the index that is its class number.
    """
    labels = labels_of(result)
    size = np.array([result.image.width, result.image.height])
    lines = []
    for target in result.targets:
        if not target.packed.area:
            continue
        polygon = join_contours(find_contours(target.mask))
        if len(polygon) < _MIN_POINTS:
            polygon = np.resize(polygon, (_MIN_POINTS, 2))
        relative = ((polygon + 0.5) / size).reshape(-1).tolist()  # pixel centres
        numbers = " ".join(f"{value:.6f}" for value in relative)
        lines.append(f"{labels.index(label_of(target))} {numbers}")
    return lines, labels
