"""Every mask that SAM 2 finds on an image by itself: a grid of points, filtered, without doubles.

The method of the official generator (https://github.com/facebookresearch/sam2,
`automatic_mask_generator.py`): three masks for each point of a regular grid; those of low predicted
IoU go, then those that change much when the threshold of their logits does, then duplicates; on
request once more on crops of the image. It finds the same. It is faster because masks are judged
where they are small: of low predicted IoU, they are never enlarged; unstable or found before, never
to the size of the photo.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rsvp import registry
from rsvp.detectors import Candidates
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.segmenters.crops import Window, paste_logits
from rsvp.segmenters.decoding import batch_size
from rsvp.segmenters.sifting import Judge, Judged, Settings, merged, without_duplicates
from rsvp.segmenters.weights import Preprocessing
from rsvp.types import Image, Masks

__all__ = ["AutomaticDetector", "AutomaticMasks", "PointSegmenter", "Settings", "automatic_masks"]


class PointSegmenter(Protocol):
    """A segmenter that tells all it sees at points: `Sam2Segmenter`, `Sam2PackageSegmenter`."""

    name: str
    preprocessing: Preprocessing

    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """Features of windows of images, (n, C, h, w) each."""
        ...

    def every_mask(
        self, features: Sequence[torch.Tensor], points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, m, s, s) logits and (n, m) predicted IoUs at (n, 2) points of the square input."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AutomaticMasks:
    """What was found on one image, n masks, best predicted IoU first; none of them is empty.

    With crops, masks from smaller crops come first.

    Attributes:
        masks: (n, H, W), with their predicted IoUs.
        boxes: (n, 4) float32, xyxy in pixels, right and bottom exclusive, tight.
        stability: (n,) float32, 0 to 1: the IoU of the mask at a higher and a lower threshold.
        points: (n, 2) float32, x, y in pixels: where each was found.
    """

    masks: Masks
    boxes: NDArray[np.float32]
    stability: NDArray[np.float32]
    points: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)


def automatic_masks(
    segmenter: PointSegmenter, image: Image, settings: Settings | None = None
) -> AutomaticMasks:
    """Every mask of an image that passes the settings.

    A segmenter with a crop margin looks at the whole image here, as there is no box to crop to.

    Raises:
        BadInput: so many crop layers that no pixel is left to a crop.
    """
    settings = settings or Settings()
    crops = list(crop_windows((image.height, image.width), settings))
    found = [_search(segmenter, image, window, layer, settings) for layer, window in crops]
    return _full_size(merged(found, settings), image, settings.limit)


def crop_windows(image_size: tuple[int, int], settings: Settings) -> Iterator[tuple[int, Window]]:
    """The layer and the window of the whole image, (H, W), then of every crop.

    Raises:
        BadInput: a layer leaves no pixel to a crop.
    """
    height, width = image_size
    yield 0, Window.whole(image_size)
    for layer in range(1, settings.crop_layers + 1):
        across = 2**layer
        overlap = int(settings.crop_overlap * min(height, width) * 2 / across)
        w, h = (math.ceil((overlap * (across - 1) + side) / across) for side in (width, height))
        for column, row in itertools.product(range(across), repeat=2):
            x0, y0 = column * (w - overlap), row * (h - overlap)
            window = Window(x0, y0, min(x0 + w, width), min(y0 + h, height))
            if min(window.width, window.height) < 1:
                raise BadInput(f"crop layer {layer} leaves no pixel to a crop of {width}x{height}")
            yield layer, window


@torch.inference_mode()
def _search(
    segmenter: PointSegmenter, image: Image, window: Window, layer: int, settings: Settings
) -> Judged:
    """What is found in one window of the image, without duplicates."""
    features = segmenter.features([(image, window)])
    size = segmenter.preprocessing.size
    side = max(settings.points_per_side // settings.crop_points_divisor**layer, 1)
    judge = Judge((image.height, image.width), window, settings)
    parts = []
    batch = batch_size(size, features[-1].device, settings.points_per_batch)
    for points in torch.split(_grid(side), batch):
        logits, scores = segmenter.every_mask(features, points * size)
        parts.append(judge(logits, scores, points))
    return without_duplicates(Judged.joined(parts), settings)


def _grid(side: int) -> torch.Tensor:
    """(side², 2) points x, y in 0..1, row after row: the middles of a regular grid's cells."""
    steps = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def _full_size(found: Judged, image: Image, limit: int | None) -> AutomaticMasks:
    """Brought to the image's size, one at a time; what has no pixel there is left out."""
    size = (image.height, image.width)
    found = found.take(torch.arange(min(len(found.scores), limit or len(found.scores))))
    masks = np.zeros((len(found.scores), *size), dtype=np.bool_)
    for out, square, window in zip(masks, found.logits, found.windows.tolist(), strict=True):
        paste_logits(square, Window(*window), size, out)
    boxes = [mask_to_box(mask) for mask in masks]
    rows = [row for row, box in enumerate(boxes) if box is not None]
    tight = [box.xyxy for box in boxes if box is not None]

    def column(tensor: torch.Tensor) -> NDArray[np.float32]:
        return tensor.float().cpu().numpy()[rows]

    return AutomaticMasks(
        Masks(masks if len(rows) == len(masks) else masks[rows], column(found.scores.clamp(0, 1))),
        np.array(tight, dtype=np.float32).reshape(-1, 4),
        column(found.stability.nan_to_num(0)),
        column(found.points),
    )


class AutomaticDetector:
    """The segmenter's own masks as candidates: a `Detector` that reads no phrase.

    Attributes:
        name: ``automatic:`` and the segmenter's name.
    """

    def __init__(self, segmenter: str | PointSegmenter, **settings: Any) -> None:
        """Load the segmenter, or share one.

        Args:
            segmenter: a spec, e.g. ``sam2:embedded``, or the segmenter itself.
            settings: fields of `Settings`; here duplicates go by masks unless told otherwise, as
                different things may fill the same box.

        Raises:
            BadInput: an unknown setting, or a segmenter that cannot be asked at points.
        """
        unknown = settings.keys() - {one.name for one in fields(Settings)}
        if unknown:
            raise BadInput(f"automatic masks have no setting {', '.join(sorted(unknown))}")
        self.settings = replace(Settings(by="masks"), **settings)
        if isinstance(segmenter, str):
            segmenter = cast("PointSegmenter", registry.make("segmenter", segmenter))
        if not callable(getattr(segmenter, "every_mask", None)):
            raise BadInput(f"the segmenter {segmenter.name} gives no automatic masks; sam2 does")
        self.name = f"automatic:{segmenter.name}"
        self._segmenter = segmenter

    def candidates(self, image: Image, phrases: Sequence[str]) -> Candidates:
        """All masks of the image with their boxes, best predicted IoU first.

        Args:
            phrases: not read; every candidate's phrase is "".
        """
        del phrases
        found = automatic_masks(self._segmenter, image, self.settings)
        names = ("",) * len(found)
        return Candidates(found.boxes, found.masks.scores, names, found.masks.masks)
