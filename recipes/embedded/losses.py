"""The reasoner's losses, each a pure function of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.embedded.model import CELLS


def box_loss(predicted: Tensor, true: Tensor, cell: Tensor) -> Tensor:
    """L1 + (1 - IoU) of boxes told as offsets from the centre of their cell.

    Args:
        predicted: (n, 4) offsets; true: (n, 4) xyxy, 0 to 1; cell: (n,) cell numbers.
    """
    center = torch.stack([cell % CELLS, cell // CELLS], 1).float().add(0.5).div(CELLS)
    box = predicted.float() * 0.2 + center.repeat(1, 2)
    low, high = torch.maximum(box[:, :2], true[:, :2]), torch.minimum(box[:, 2:], true[:, 2:])
    overlap = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (box, true)]
    iou = overlap / (areas[0] + areas[1] - overlap + 1e-6)
    return (box - true).abs().sum(1).mean() * 3 + (1 - iou).mean()


def tag_loss(logits: Tensor, true: Tensor) -> tuple[Tensor, float]:
    """How badly the numbers drawn in the cells are read, and the share of them read right.

    Args:
        logits: (B, cells, numbers), the first for none; true: (B, cells), 0 for none.
    """
    drawn = true > 0
    blank = F.cross_entropy(logits[~drawn], true[~drawn])
    if not drawn.any():
        return blank, 0.0
    right = (logits[drawn].argmax(-1) == true[drawn]).float().mean().item()
    return blank + F.cross_entropy(logits[drawn], true[drawn]), right


def cells_meant(about: Tensor, numbers: Tensor, owners: Tensor, tag_owners: Tensor) -> Tensor:
    """(n, length, cells) bool: where to look for each token.

    A number is read off the tag of the object that it speaks of, where that has one.

    Args:
        about: (n, length) objects, -1 for none; numbers: (n, length) bool, the token is a number.
        owners, tag_owners: (n, cells) the object in each cell, and the one whose tag is there.
    """
    shown, tagged = (
        (about[:, :, None] == cells[:, None, :]) & (about >= 0)[:, :, None]
        for cells in (owners, tag_owners)
    )
    tagged &= numbers[:, :, None]
    return torch.where(tagged.any(-1, keepdim=True), tagged, shown)


def look_loss(attended: Sequence[Tensor], match: Tensor) -> Tensor:
    """-log of the attention that falls on the right cells.

    Args:
        attended: per layer (n, heads, length, cells) attention; match: as of `cells_meant`.
    """
    seen = match.any(-1)
    if not seen.any():  # no reply of the batch speaks of an object
        return attended[0].new_zeros(())
    losses = []
    for layer in attended:
        mass = (layer.float() * match[:, None]).sum(-1).transpose(1, 2)[seen]
        losses.append(-(mass + 1e-4).log().mean())
    return torch.stack(losses).mean()


def near_loss(logs: Tensor, value: Tensor) -> Tensor:
    """(n,) cross-entropy with a narrow bell of numbers around `value`.

    Args:
        logs: (n, 101) log-probabilities of the numbers 0 to 100; value: (n,) the true ones.
    """
    step = torch.arange(-2, 3, device=logs.device)
    bell = torch.exp(-0.5 * step.float().square())
    near = logs.gather(1, (value[:, None] + step).clamp(0, 100))
    return -(near * (bell / bell.sum())).sum(1)


def token_loss(logs: Tensor, labels: Tensor, coordinates: Tensor, numbers: Tensor) -> Tensor:
    """Mean cross-entropy of tokens; a coordinate's neighbours count as nearly right.

    Args:
        logs: (n, vocabulary) log-probabilities; labels: (n,) token ids.
        coordinates: (n,) bool, a number at this place is a coordinate.
        numbers: (2, 101) token ids of 0 to 100 before a comma, and before a bracket.
    """
    losses = -logs.gather(1, labels[:, None])[:, 0]
    is_number = labels[:, None] == numbers.flatten()
    soft = is_number.any(1) & coordinates
    if soft.any():
        which = is_number[soft].int().argmax(1)
        of_numbers = logs[soft].gather(1, numbers[which // 101])
        losses = losses.masked_scatter(soft, near_loss(of_numbers, which % 101))
    return losses.mean()


def read_loss(logs: Tensor, boxes: Tensor) -> Tensor:
    """How badly the four numbers of each box can be read off.

    Args:
        logs: (n, 4, 101) log-probabilities of each side's whole percent; boxes: (n, 4), 0 to 1.
    """
    value = (boxes * 100).round().long()
    return torch.stack([near_loss(logs[:, k], value[:, k]).mean() for k in range(4)]).mean()
