"""`supervision` Detections: https://supervision.roboflow.com, by the extra of that name."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsvp.platform.extras import require
from rsvp.types import Segmentation
from rsvp.writers.common import label_of, labels_of


def to_supervision(result: Segmentation) -> Any:
    """The targets as `supervision.Detections`, in their order.

    ``xyxy`` (n, 4) float32 are the targets' boxes, ``mask`` (n, H, W) bool, ``confidence`` (n,)
    float32, ``class_id`` (n,) the number of each label, and ``data["class_name"]`` the label.

    Raises:
        MissingExtra: supervision is not installed.
    """
    library = require("supervision", "supervision", "Segmentation.to_supervision()")
    labels, targets = labels_of(result), result.targets
    names = [label_of(target) for target in targets]
    masks = np.zeros((len(targets), result.image.height, result.image.width), dtype=np.bool_)
    for index, target in enumerate(targets):
        masks[index] = target.mask
    return library.Detections(
        xyxy=np.array([t.box.xyxy for t in targets], dtype=np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array([t.score for t in targets], dtype=np.float32),
        class_id=np.array([labels.index(name) for name in names], dtype=np.int64),
        data={"class_name": np.array(names, dtype=np.str_)},
    )
