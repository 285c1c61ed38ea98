"""RoI align without torchvision, for SAM 3's example boxes (https://arxiv.org/abs/1703.06870)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor


def provide_roi_align(net: torch.nn.Module) -> None:
    """Give the module of a network's class the one function of torchvision that it calls.

    transformers imports torchvision there only where it is installed.
    """
    module = sys.modules[type(net).__module__]
    if not hasattr(module, "torchvision"):
        ops = SimpleNamespace(roi_align=roi_align)
        module.torchvision = SimpleNamespace(ops=ops)  # type: ignore[attr-defined]


def roi_align(features: Tensor, boxes: Sequence[Tensor], size: int) -> Tensor:
    """`torchvision.ops.roi_align` with its defaults, for boxes inside the map.

    Args:
        features: (B, C, H, W).
        boxes: for each map (k, 4), xyxy in its cells.
        size: of the result.

    Returns:
        (k of all maps, C, size, size).
    """
    height, width = features.shape[-2:]
    pooled = []
    for one, corners in zip(features, boxes, strict=True):
        for x0, y0, x1, y1 in corners.tolist():
            rows, columns = _samples(y0, y1, size, height), _samples(x0, x1, size, width)
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            grid = torch.stack((x, y), dim=-1)[None].to(one)
            sampled = F.grid_sample(one[None], grid, padding_mode="border", align_corners=True)
            pooled.append(F.avg_pool2d(sampled, (len(rows) // size, len(columns) // size)))
    return torch.cat(pooled)


def _samples(low: float, high: float, bins: int, cells: int) -> Tensor:
    """Where a side is sampled, in the units of `grid_sample`: equally often in each bin."""
    length = max(high - low, 1.0)
    count = bins * math.ceil(length / bins)
    places = low + (torch.arange(count) + 0.5) * (length / count)
    return 2 * places / max(1, cells - 1) - 1
