"""The reasoner's losses, each a pure function of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.embedded.model import CELLS


def box_loss(predicted: Tensor, true: Tensor, cell: Tensor) -> Tensor:
    """L1 + (1 - IoU) of boxes predicted as offsets from the centre of their cell.

    Args:
        predicted: (n, 4) offsets; true: (n, 4) xyxy, 0 to 1; cell: (n,) cell indices.
    """
    center = torch.stack([cell % CELLS, cell // CELLS], 1).float().add(0.5).div(CELLS)
    box = predicted.float() * 0.2 + center.repeat(1, 2)
    low, high = torch.maximum(box[:, :2], true[:, :2]), torch.minimum(box[:, 2:], true[:, 2:])
    overlap = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (box, true)]
    iou = overlap / (areas[0] + areas[1] - overlap + 1e-6)
    return (box - true).abs().sum(1).mean() * 3 + (1 - iou).mean()


def reading_loss(logits: Tensor, true: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of the number or detail drawn in each cell, and the share read right.

    Args:
        logits: (B, cells, classes), the first for none; true: (B, cells), 0 for none.
    """
    drawn = true > 0
    blank = F.cross_entropy(logits[~drawn], true[~drawn])
    if not drawn.any():
        return blank, 0.0
    right = (logits[drawn].argmax(-1) == true[drawn]).float().mean().item()
    return blank + F.cross_entropy(logits[drawn], true[drawn]), right


def attention_targets(
    objects: Tensor, is_read: Tensor, cell_objects: Tensor, read_objects: Tensor
) -> Tensor:
    """(n, length, cells) bool: the cells that each token should attend to.

    They are those of the object that the token speaks of; for what is read off its tag or its
    details, their cells, where the object has any.

    Args:
        objects: (n, length), -1 for none; is_read: (n, length) bool.
        cell_objects, read_objects: (n, cells) the object in each cell, and the one whose tag or
            detail it is.
    """
    shown, tagged = (
        (objects[:, :, None] == cells[:, None, :]) & (objects >= 0)[:, :, None]
        for cells in (cell_objects, read_objects)
    )
    tagged &= is_read[:, :, None]
    return torch.where(tagged.any(-1, keepdim=True), tagged, shown)


def attention_loss(attentions: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Mean -log of the attention mass on the target cells.

    Args:
        attentions: per layer (n, heads, length, cells); targets: see `attention_targets`.
    """
    supervised = targets.any(-1)
    if not supervised.any():  # no reply of the batch speaks of an object
        return attentions[0].new_zeros(())
    losses = []
    for layer in attentions:
        mass = (layer.float() * targets[:, None]).sum(-1).transpose(1, 2)[supervised]
        losses.append(-(mass + 1e-4).log().mean())
    return torch.stack(losses).mean()


def soft_number_loss(logs: Tensor, value: Tensor) -> Tensor:
    """(n,) cross-entropy with a narrow Gaussian of numbers around `value`.

    Args:
        logs: (n, 101) log-probabilities of the numbers 0 to 100; value: (n,) the true ones.
    """
    step = torch.arange(-2, 3, device=logs.device)
    weights = torch.exp(-0.5 * step.float().square())
    near = logs.gather(1, (value[:, None] + step).clamp(0, 100))
    return -(near * (weights / weights.sum())).sum(1)


def token_loss(logs: Tensor, labels: Tensor, coordinates: Tensor, number_ids: Tensor) -> Tensor:
    """Mean cross-entropy of tokens; the neighbours of a coordinate count as nearly right.

    Args:
        logs: (n, vocabulary) log-probabilities; labels: (n,) token ids.
        coordinates: (n,) bool, a number at this position is a coordinate.
        number_ids: (2, 101) token ids of 0 to 100 before a comma, and before a bracket.
    """
    losses = -logs.gather(1, labels[:, None])[:, 0]
    is_number = labels[:, None] == number_ids.flatten()
    soft = is_number.any(1) & coordinates
    if soft.any():
        index = is_number[soft].int().argmax(1)
        number_logs = logs[soft].gather(1, number_ids[index // 101])
        losses = losses.masked_scatter(soft, soft_number_loss(number_logs, index % 101))
    return losses.mean()


def box_number_loss(logs: Tensor, boxes: Tensor) -> Tensor:
    """Cross-entropy of the four numbers of each box, with soft targets.

    Args:
        logs: (n, 4, 101) log-probabilities of each side in whole percent; boxes: (n, 4), 0 to 1.
    """
    value = (boxes * 100).round().long()
    return torch.stack([soft_number_loss(logs[:, k], value[:, k]).mean() for k in range(4)]).mean()
