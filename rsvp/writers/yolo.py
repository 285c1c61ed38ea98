"""YOLO segmentation: https://docs.ultralytics.com/datasets/segment, a line an object.

``class x1 y1 x2 y2 …``, coordinates as shares of the image. One polygon an object: parts and holes
are joined by lines of one pixel, which is all that the format loses; its readers cut coordinates to
whole pixels and fill, which gives every other pixel back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsvp.types import Segmentation, Target
from rsvp.writers.contours import joined, outlines
from rsvp.writers.labels import label_of, labels_of

_FEWEST_POINTS = 3  # readers take a shorter line for a box


def to_yolo(result: Segmentation) -> tuple[list[str], list[str]]:
    """The targets' polygons, and what their class numbers mean.

    A target without a pixel has no polygon and is left out.

    Returns:
        The lines of the label file; the labels, each at the position that is its class number.
    """
    labels = labels_of(result)
    size = np.array([result.image.width, result.image.height])
    lines = []
    for target in result.targets:
        if target.mask.any():
            shares = " ".join(f"{share:.6f}" for share in _shares(target, size))
            lines.append(f"{labels.index(label_of(target))} {shares}")
    return lines, labels


def names_yaml(names: Sequence[str]) -> str:
    """The classes as a dataset's YAML file lists them, position and name."""
    # A JSON string in ASCII is a YAML string, whatever the label holds.
    rows = [f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names)]
    return "names:\n" + "".join(rows) if rows else "names: {}\n"


def _shares(target: Target, size: np.ndarray[Any, Any]) -> list[float]:
    polygon = joined(outlines(target.mask))
    if len(polygon) < _FEWEST_POINTS:
        polygon = np.resize(polygon, (_FEWEST_POINTS, 2))
    # The centre of a pixel lies half a pixel from its corner.
    found: list[float] = ((polygon + 0.5) / size).reshape(-1).tolist()
    return found
