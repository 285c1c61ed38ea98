"""`supervision` Detections: https://supervision.roboflow.com, by the extra of that name."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from rsvp.errors import MissingExtra
from rsvp.types import Segmentation
from rsvp.writers.labels import label_of, labels_of


def to_supervision(result: Segmentation) -> Any:
    """The targets as `supervision.Detections`, in their order.

    ``xyxy`` (n, 4) float32 are the targets' boxes, ``mask`` (n, H, W) bool, ``confidence`` (n,)
    float32, ``class_id`` (n,) the number of each label, and ``data["class_name"]`` the label.

    Raises:
        MissingExtra: supervision is not installed.
    """
    try:
        library: Any = importlib.import_module("supervision")
    except ImportError as error:
        raise MissingExtra("Segmentation.to_supervision()", "supervision") from error
    labels, targets = labels_of(result), result.targets
    size = (len(targets), result.image.height, result.image.width)
    masks = np.zeros(size, dtype=np.bool_)
    for row, target in zip(masks, targets, strict=True):
        row[:] = target.mask
    names = [label_of(target) for target in targets]
    return library.Detections(
        xyxy=np.array([t.box.xyxy for t in targets], dtype=np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array([t.score for t in targets], dtype=np.float32),
        class_id=np.array([labels.index(name) for name in names], dtype=np.int64),
        data={"class_name": np.array(names, dtype=np.str_)},
    )
