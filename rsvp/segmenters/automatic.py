"""All masks that a grid of points gives on an image, filtered and without duplicates.

The method of the official generator (https://github.com/facebookresearch/sam2,
`automatic_mask_generator.py`), with the same results: three masks for each point of a regular grid;
masks with a low predicted IoU are dropped, then unstable ones, then duplicates; optionally once
more on crops of the image. It is faster because masks are filtered at a small size: dropped masks
are never resized to the size of the photo.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rsvp import registry
from rsvp.detectors import Candidates
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.segmenters.mask_filter import (
    AutomaticSettings,
    MaskBatch,
    MaskFilter,
    deduplicate,
    merge_windows,
)
from rsvp.segmenters.point_prompts import decoder_batch_size
from rsvp.segmenters.promptable import PromptableSegmenter
from rsvp.segmenters.transforms import Window, content_size, paste_logits
from rsvp.types import Image, PackedMask


@dataclass(frozen=True, slots=True, eq=False)
class AutomaticMasks:
    """The n masks of one image, best predicted IoU first; none of them is empty.

    With crops, masks from smaller crops come first.

    Attributes:
        masks: n, of the image's size.
        scores: (n,) float32, the predicted IoU, 0 to 1.
        boxes: (n, 4) float32, xyxy in pixels, right and bottom exclusive, tight.
        stability: (n,) float32, 0 to 1: the IoU of the mask at a higher and a lower threshold.
        points: (n, 2) float32, x, y in pixels: the point that each comes from.
    """

    masks: tuple[PackedMask, ...]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    stability: NDArray[np.float32]
    points: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)


def automatic_masks(
    segmenter: PromptableSegmenter, image: Image, settings: AutomaticSettings | None = None
) -> AutomaticMasks:
    """Every mask of an image that passes the filters; a crop margin has no effect.

    Raises:
        BadInput: more crop layers than the image has pixels for.
    """
    settings = settings or AutomaticSettings()
    crops = list(crop_windows((image.height, image.width), settings))
    batches = [_search(segmenter, image, window, layer, settings) for layer, window in crops]
    padded = segmenter.preprocessing.padded
    return _full_size(merge_windows(batches, settings), image, settings.limit, padded)


def crop_windows(
    image_size: tuple[int, int], settings: AutomaticSettings
) -> Iterator[tuple[int, Window]]:
    """The layer and the window of the whole image, (H, W), then of every crop.

    Raises:
        BadInput: the crops of a layer have no pixels.
    """
    height, width = image_size
    yield 0, Window.whole(image_size)
    for layer in range(1, settings.crop_layers + 1):
        per_side = 2**layer
        overlap = int(settings.crop_overlap * min(height, width) * 2 / per_side)
        w, h = (math.ceil((overlap * (per_side - 1) + n) / per_side) for n in (width, height))
        for column, row in itertools.product(range(per_side), repeat=2):
            x0, y0 = column * (w - overlap), row * (h - overlap)
            window = Window(x0, y0, min(x0 + w, width), min(y0 + h, height))
            if min(window.width, window.height) < 1:
                raise BadInput(f"crop layer {layer} leaves no pixel to a crop of {width}x{height}")
            yield layer, window


@torch.inference_mode()
def _search(
    segmenter: PromptableSegmenter,
    image: Image,
    window: Window,
    layer: int,
    settings: AutomaticSettings,
) -> MaskBatch:
    """The masks of one window of the image, without duplicates."""
    features = segmenter.features([(image, window)])
    made = segmenter.preprocessing
    side = max(settings.points_per_side // settings.crop_points_divisor**layer, 1)
    mask_filter = MaskFilter((image.height, image.width), window, settings, made.padded)
    batch = decoder_batch_size(made.mask_side, features[-1].device, settings.points_per_batch)
    height, width = content_size(window, made.size, pad=made.pad)
    content = torch.tensor([width, height])
    steps = (torch.arange(side) + 0.5) / side  # the centres of a regular grid's cells
    grid = torch.cartesian_prod(steps, steps).flip(1)  # (side², 2) x, y in 0..1, row after row
    passed = [
        mask_filter(*segmenter.every_mask(features, points * content), points)
        for points in torch.split(grid, batch)
    ]
    return deduplicate(MaskBatch.concat(passed), settings)


def _full_size(
    batch: MaskBatch, image: Image, limit: int | None, padded: int | None
) -> AutomaticMasks:
    """The masks at the image's size, resized one at a time; empty ones are left out."""
    size = (image.height, image.width)
    batch = batch.take(torch.arange(min(len(batch.scores), limit or len(batch.scores))))
    full = np.zeros(size, dtype=np.bool_)
    masks: dict[int, PackedMask] = {}
    boxes: list[tuple[float, ...]] = []
    for row, (logits, window) in enumerate(zip(batch.logits, batch.windows.tolist(), strict=True)):
        paste_logits(logits, Window(*window), size, full, padded)
        if box := mask_to_box(full):
            masks[row] = PackedMask.pack(full)
            boxes.append(box.xyxy)
    rows = list(masks)

    def column(tensor: torch.Tensor) -> NDArray[np.float32]:
        return tensor.float().cpu().numpy()[rows]

    return AutomaticMasks(
        tuple(masks.values()),
        column(batch.scores.clamp(0, 1)),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        column(batch.stability.nan_to_num(0)),
        column(batch.points),
    )


class AutomaticDetector:
    """The segmenter's own masks as candidates: a `Detector` that ignores the phrases.

    Attributes:
        name: ``automatic:`` and the segmenter's name.
    """

    def __init__(
        self,
        segmenter: str | PromptableSegmenter,
        *,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        min_iou: float = 0.8,
        min_stability: float = 0.95,
        stability_offset: float = 1.0,
        overlap: float = 0.7,
        by: Literal["boxes", "masks"] = "masks",
        crop_layers: int = 0,
        crop_overlap: float = 512 / 1500,
        crop_points_divisor: int = 1,
        judged_side: int | None = 256,
        limit: int | None = None,
    ) -> None:
        """Load the segmenter, or share one.

        Args:
            segmenter: a spec, e.g. ``sam2:embedded``, or the segmenter itself.
            by: what NMS compares; masks by default, as different objects may fill the same box.

        The other options are those of `AutomaticSettings`.

        Raises:
            BadInput: an option out of its range, or a segmenter without `every_mask`.
        """
        self.settings = AutomaticSettings(
            points_per_side, points_per_batch, min_iou, min_stability, stability_offset, overlap,
            by, crop_layers, crop_overlap, crop_points_divisor, judged_side, limit,
        )  # fmt: skip
        if isinstance(segmenter, str):
            segmenter = cast("PromptableSegmenter", registry.make("segmenter", segmenter))
        if not callable(getattr(segmenter, "every_mask", None)):
            raise BadInput(
                f"the segmenter {segmenter.name} gives no automatic masks; those of SAM do"
            )
        self.name = f"automatic:{segmenter.name}"
        self._segmenter = segmenter

    def candidates(self, image: Image, phrases: Sequence[str]) -> Candidates:
        """All masks of the image, best predicted IoU first, whatever the phrases; theirs is ""."""
        del phrases
        found = automatic_masks(self._segmenter, image, self.settings)
        return Candidates(found.boxes, found.scores, ("",) * len(found), found.masks)
