"""Greedy non-maximum suppression on tensors, by the IoU of boxes or of masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def box_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Suppress boxes that overlap a better one, as torchvision's `nms` does.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); of equal scores the earlier row comes first.
        iou: a box with a higher IoU than this with a better one is dropped.

    Returns:
        The remaining rows, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes[order].float()
    areas = (sorted_boxes[:, 2:] - sorted_boxes[:, :2]).prod(dim=1)

    def suppressed(row: int, later: Tensor) -> Tensor:
        shared = _intersections(sorted_boxes[row], sorted_boxes[later])
        # Without a union the quotient is NaN, and NaN is not above the limit.
        return later[shared / (areas[row] + areas[later] - shared) > iou]

    return order[_greedy(len(order), suppressed, order.device)]


def mask_nms(masks: Tensor, boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Suppress masks that overlap a better one; different objects may fill the same box.

    Args:
        masks: (n, h, w) bool, none of them empty.
        boxes: (n, 4) xyxy around them, in pixels of the masks, right and bottom exclusive.
        scores, iou: see `box_nms`.

    Returns:
        The remaining rows, best score first.
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

    return order[_greedy(len(order), suppressed, order.device)]


def _greedy(
    count: int, suppressed: Callable[[int, Tensor], Tensor], device: torch.device
) -> Tensor:
    """The rows of 0..count, best first, that no earlier remaining row suppresses.

    Args:
        suppressed: a row and the remaining rows after it -> those of them that it suppresses.
    """
    remaining = torch.arange(count, device=device)
    alive = torch.ones(count, dtype=torch.bool)
    kept = []
    for row in range(count):
        if alive[row]:
            kept.append(row)
            later = remaining[row + 1 :]
            alive[suppressed(row, later[alive[row + 1 :].to(device)]).cpu()] = False
    return torch.tensor(kept, dtype=torch.long, device=device)


def _intersections(box: Tensor, others: Tensor) -> Tensor:
    """The area that a box, (4,), shares with each of (n, 4)."""
    low = torch.maximum(box[:2], others[:, :2])
    high = torch.minimum(box[2:], others[:, 2:])
    return (high - low).clamp(min=0).prod(dim=1)
