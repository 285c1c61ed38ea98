"""Filters and deduplicates the masks that a grid of points gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rsvp.errors import BadInput
from rsvp.segmenters.transforms import Window, resize_logits

_EDGE = 20.0  # pixels: a mask that ends this close to a crop's border was cut off by it


@dataclass(frozen=True, slots=True)
class AutomaticSettings:
    """How automatic masks are found and filtered; the defaults are the official generator's.

    Attributes:
        points_per_side: of the grid of points on the image, across and down.
        points_per_batch: points in one decoder batch; bounds memory, results don't depend on it.
        min_iou: masks need a higher predicted IoU; 0 disables the filter.
        min_stability: masks need at least this stability; 0 disables the filter.
        stability_offset: how far the threshold of the logits, 0, is raised and lowered.
        overlap: the IoU above which the worse of two masks is dropped; 1 disables NMS.
        by: NMS compares ``boxes`` or ``masks``; between crops always boxes.
        crop_layers: layer i repeats the search on 2^i x 2^i crops; 0 uses the whole image alone.
        crop_overlap: of neighbouring crops, relative to the image's shorter side.
        crop_points_divisor: layer i has points_per_side / divisor^i points a side.
        judged_side: stability and NMS use masks whose longer side has at most this many pixels.
            None: masks at the image's own size, as in the official generator.
        limit: the largest number of masks; None gives all.

    Raises:
        BadInput: a value out of its range.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    min_iou: float = 0.8
    min_stability: float = 0.95
    stability_offset: float = 1.0
    overlap: float = 0.7
    by: Literal["boxes", "masks"] = "boxes"
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_divisor: int = 1
    judged_side: int | None = 256
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "crop_points_divisor"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("min_iou", "min_stability", "overlap"):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("judged_side", "limit"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1, or None")
        self._check("stability_offset", self.stability_offset > 0, "above 0")
        self._check("by", self.by in ("boxes", "masks"), "boxes or masks")
        self._check("crop_layers", self.crop_layers >= 0, "0 or more")
        self._check("crop_overlap", 0 <= self.crop_overlap < 1, "0 to below 1")

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise BadInput(f"{name} is {expected}, found {getattr(self, name)!r}")


class MaskBatch(NamedTuple):
    """Masks that passed the filters, n rows, not yet at the image's size.

    Attributes:
        logits: (n, s, s), each covering its window, or the padded square with it.
        scores, stability: (n,).
        points: (n, 2) x, y in pixels of the image.
        edges: (n, 4) in pixels of the image: the outermost pixels of each mask; right and bottom
            are inclusive, as in the official generator.
        windows: (n, 4) the window of each, xyxy.
        small: (n, h, w) bool, the masks at the size of the filter; (n, 0, 0) where NMS uses boxes.
    """

    logits: Tensor
    scores: Tensor
    stability: Tensor
    points: Tensor
    edges: Tensor
    windows: Tensor
    small: Tensor

    def take(self, rows: Tensor) -> MaskBatch:
        """These rows, by number or by a boolean mask."""
        return MaskBatch(*(column[rows] for column in self))

    @classmethod
    def concat(cls, batches: Sequence[MaskBatch]) -> MaskBatch:
        """All rows; their small masks are of one size."""
        return cls(*(torch.cat(columns) for columns in zip(*batches, strict=True)))


class MaskFilter:
    """Keeps the good masks of one window of an image of size (H, W); see `resize_logits`."""

    def __init__(
        self,
        image_size: tuple[int, int],
        window: Window,
        settings: AutomaticSettings,
        padded: int | None = None,
    ) -> None:
        self._image_size, self._window, self._settings = image_size, window, settings
        self._padded = padded
        self._size = filter_size((window.height, window.width), settings.judged_side)

    def __call__(self, logits: Tensor, scores: Tensor, points: Tensor) -> MaskBatch:
        """The good masks among (n, m, s, s) logits with (n, m) predicted IoUs.

        Their (n, 2) points are x, y in 0..1 of the window.
        """
        settings, window = self._settings, torch.tensor(self._window, device=logits.device)
        pixels = points.to(logits.device) * (window[2:] - window[:2]) + window[:2]
        pixels = pixels.repeat_interleave(logits.shape[1], dim=0)
        logits, scores = logits.flatten(0, 1), scores.flatten()
        if settings.min_iou > 0:  # before anything is resized
            rows = (scores > settings.min_iou).nonzero()[:, 0]
            logits, scores, pixels = logits[rows], scores[rows], pixels[rows]
        resized = resize_logits(logits, self._window, self._size, self._padded)
        stability = _stability(resized, settings.stability_offset)
        if settings.min_stability > 0:
            rows = (stability >= settings.min_stability).nonzero()[:, 0]
            logits, scores, pixels = logits[rows], scores[rows], pixels[rows]
            resized, stability = resized[rows], stability[rows]
        small = resized > 0
        boxes = tight_boxes(small)
        height, width = self._size
        sx, sy = self._window.width / width, self._window.height / height
        inclusive = torch.tensor([0, 0, 1, 1], device=logits.device)
        edges = boxes * boxes.new_tensor([sx, sy, sx, sy]) + (window[[0, 1, 0, 1]] - inclusive)
        whole = torch.tensor(Window.whole(self._image_size), device=edges.device)
        near_crop, near_image = ((edges - border).abs() <= _EDGE for border in (window, whole))
        cut_off = (near_crop & ~near_image).any(dim=1)  # by a border of the crop alone
        complete = (boxes[:, 2] > boxes[:, 0]) & ~cut_off  # and not empty
        windows = window.expand(len(scores), 4)
        small = small if settings.by == "masks" else small[:, :0, :0]
        return MaskBatch(logits, scores, stability, pixels, edges, windows, small).take(complete)


def deduplicate(batch: MaskBatch, settings: AutomaticSettings) -> MaskBatch:
    """NMS among the masks of one window, best predicted IoU first."""
    if settings.overlap >= 1:
        return batch.take(batch.scores.argsort(descending=True, stable=True))
    if settings.by == "masks":
        boxes = tight_boxes(batch.small)
        return batch.take(mask_nms(batch.small, boxes, batch.scores, settings.overlap))
    return batch.take(box_nms(batch.edges, batch.scores, settings.overlap))


def merge_windows(windows: Sequence[MaskBatch], settings: AutomaticSettings) -> MaskBatch:
    """The masks of all windows; NMS prefers those of smaller windows."""
    batch = MaskBatch.concat([one._replace(small=one.small[:, :0, :0]) for one in windows])
    if len(windows) == 1:
        return batch
    sides = batch.windows[:, 2:] - batch.windows[:, :2]
    priority = 1 / sides.prod(dim=1)
    if settings.overlap >= 1:
        return batch.take(priority.argsort(descending=True, stable=True))
    return batch.take(box_nms(batch.edges, priority, settings.overlap))


def filter_size(window_size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """The (h, w) at which the masks of a window of size (H, W) are filtered."""
    height, width = window_size
    scale = 1.0 if longest is None else min(1.0, longest / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def tight_boxes(masks: Tensor) -> Tensor:
    """(n, 4) float32 xyxy boxes of (n, h, w) masks, right and bottom exclusive; 0s if empty."""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    starts = [lines.to(torch.uint8).argmax(dim=1) for lines in (columns, rows)]
    ends = [n.shape[1] - n.flip(1).to(torch.uint8).argmax(dim=1) for n in (columns, rows)]
    return torch.stack([*starts, *ends], dim=1).float() * columns.any(dim=1, keepdim=True)


def _stability(logits: Tensor, offset: float) -> Tensor:
    """(n,) IoUs of masks at the thresholds +offset and -offset of (n, h, w) logits."""
    # One mask contains the other. If both are empty the quotient is NaN and fails the filter.
    high, low = (
        # Two sums over small integers are fastest.
        (logits > threshold).sum(dim=2, dtype=torch.int16).sum(dim=1, dtype=torch.int32)
        for threshold in (offset, -offset)
    )
    return high / low


# ------------------------------------------------------------ non-maximum suppression


def box_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """The rows that no better one overlaps, best score first, as torchvision's `nms` does.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); of equal scores the earlier row comes first.
        iou: a box with a higher IoU than this with a better one is dropped.
    """
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes[order].float()
    areas = (sorted_boxes[:, 2:] - sorted_boxes[:, :2]).prod(dim=1)

    def suppressed(row: int, later: Tensor) -> Tensor:
        shared = _intersections(sorted_boxes[row], sorted_boxes[later])
        # Without a union the quotient is NaN, and NaN is not above the limit.
        return later[shared / (areas[row] + areas[later] - shared) > iou]

    return _greedy(order, suppressed)


def mask_nms(masks: Tensor, boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """As `box_nms` by the IoU of masks: different objects may fill the same box.

    Args:
        masks: (n, h, w) bool, none of them empty.
        boxes: (n, 4) xyxy around them, in pixels of the masks, right and bottom exclusive.
    """
    order = scores.argsort(descending=True, stable=True)
    flat, sorted_boxes = masks.flatten(1)[order], boxes[order].float()
    areas = flat.sum(dim=1)

    def suppressed(row: int, later: Tensor) -> Tensor:
        # Bounds of the intersection spare most comparisons of pixels: it is at most that of the
        # boxes, and for an IoU above the limit at least `iou` of the larger area.
        least = iou * torch.maximum(areas[row], areas[later])
        most = torch.minimum(
            _intersections(sorted_boxes[row], sorted_boxes[later]),
            torch.minimum(areas[row], areas[later]),
        )
        close = later[most >= least]
        shared = (flat[close] & flat[row]).sum(dim=1)
        return close[shared > iou * (areas[row] + areas[close] - shared)]

    return _greedy(order, suppressed)


def _greedy(order: Tensor, suppressed: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The rows of `order`, best first, that no earlier remaining one suppresses.

    Args:
        suppressed: a position in `order` and the remaining positions after it -> those of them
            that it suppresses.
    """
    count = len(order)
    remaining = torch.arange(count, device=order.device)
    alive = torch.ones(count, dtype=torch.bool)
    for row in range(count):
        if alive[row]:
            later = remaining[row + 1 :]
            alive[suppressed(row, later[alive[row + 1 :].to(order.device)]).cpu()] = False
    return order[alive.to(order.device)]


def _intersections(box: Tensor, others: Tensor) -> Tensor:
    """The area that a box, (4,), shares with each of (n, 4)."""
    low = torch.maximum(box[:2], others[:, :2])
    high = torch.minimum(box[2:], others[:, 2:])
    return (high - low).clamp(min=0).prod(dim=1)
