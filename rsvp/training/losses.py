"""What the VLSM learns from: masks, their predicted IoU, presence, and the match of each place.

Every mean is over all N proposals, absent ones adding nothing to the mask terms: so the mean of a
batch does not depend on how the batch is split over processes and accumulation steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsvp.segmenters.vlsm import VlsmOutput

COVERED = 0.5  # of a place, for the place to be its text's


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each term counts.

    Attributes:
        focal: gamma of the focal loss (https://arxiv.org/abs/1708.02002) instead of plain BCE;
            0 is plain.
        contrast: every covered place picks its own text among all those of the batch, so that the
            batch of a process is a classification. It teaches names fast, where a text of one
            picture is false of the others; the gradient then depends on who shares a batch.
    """

    bce: float = 2.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 0.5
    match: float = 1.0
    contrast: float = 0.0
    focal: float = 0.0


class Truth(NamedTuple):
    """What should have come out.

    Attributes:
        targets: (N, s, s) float32 shares, 0 to 1; logits are brought to their size.
        present: (N,) bool.
        worded: (N,) bool, False where there was no text, so that presence means nothing.
        view: (N,) int64, the view of each proposal.
        names: (N,) int64, the same number for the same text.
    """

    targets: Tensor
    present: Tensor
    worded: Tensor
    view: Tensor
    names: Tensor


class Losses(NamedTuple):
    """The terms, each a scalar; `total` is what is minimised, `mean_iou` only told."""

    total: Tensor
    bce: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor
    match: Tensor
    contrast: Tensor
    mean_iou: Tensor


def losses(found: VlsmOutput, truth: Truth, weights: Weights) -> Losses:
    """The losses of N proposals.

    Of several masks (a lone point) the best one learns; the predicted IoU of all of them does.
    """
    height, width = truth.targets.shape[-2:]
    logits = F.interpolate(
        found.logits.float(), (height, width), mode="bilinear", align_corners=False
    )
    targets = truth.targets[:, None].expand_as(logits)
    bce, dice = mask_bce(logits, targets, weights.focal), dice_loss(logits, targets)
    own = weights.bce * bce + weights.dice * dice  # (N, m)
    best = own.detach().argmin(1, keepdim=True)
    real = hard_iou(logits, targets)
    quality = (found.scores.float() - real).square().mean(1)
    worded = truth.worded.float()
    rows, columns = found.match.shape[-2:]
    share = F.adaptive_avg_pool2d(truth.targets, (rows, columns))
    match = mask_bce(found.match.float()[:, None], share[:, None])[:, 0]
    there = F.binary_cross_entropy_with_logits(
        found.presence.float(), truth.present.float(), reduction="none"
    )
    n = len(logits)
    present = truth.present.float()

    def over_present(values: Tensor) -> Tensor:
        return (values * present).sum() / n

    told = [
        over_present(bce.gather(1, best)[:, 0]),
        over_present(dice.gather(1, best)[:, 0]),
        over_present(quality),
        (there * worded).sum() / n,
        (match * worded).sum() / n,
        (contrast(found.cosines.float(), share.flatten(1), truth) * worded * present).sum() / n,
    ]
    scale = (
        weights.bce, weights.dice, weights.iou, weights.presence, weights.match, weights.contrast,
    )  # fmt: skip
    total = torch.stack([w * term for w, term in zip(scale, told, strict=True)]).sum()
    shown = over_present(real.gather(1, best)[:, 0]) * n / present.sum().clamp(min=1)
    return Losses(total, *(term.detach() for term in (*told, shown)))


def contrast(cosines: Tensor, shares: Tensor, truth: Truth) -> Tensor:
    """(N,) cross-entropy of the text of each covered place among the batch's different texts.

    Args:
        cosines: (B, M, places) with M = N texts.
        shares: (N, places), how much of each place is target; at least half is covered.
    """
    _, columns = torch.unique(truth.names, return_inverse=True)
    first = torch.zeros(int(columns.max()) + 1, dtype=torch.int64, device=columns.device)
    first.scatter_(0, columns.flip(0), torch.arange(len(columns) - 1, -1, -1, device=first.device))
    logits = cosines[:, first][truth.view]  # (N, texts, places)
    labels = columns[:, None].expand(-1, logits.shape[-1])
    each = F.cross_entropy(logits, labels, reduction="none")
    covered = (shares >= COVERED).float()
    return (each * covered).sum(1) / covered.sum(1).clamp(min=1)


def mask_bce(logits: Tensor, targets: Tensor, gamma: float = 0.0) -> Tensor:
    """(N, m) mean binary cross-entropy over the places of (N, m, s, s) logits; focal with gamma."""
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if gamma:
        chance = logits.sigmoid()
        missed = (
            chance + targets - 2 * chance * targets
        )  # 1 - p of the true class, soft targets too
        each = each * missed**gamma
    return each.mean((2, 3))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """(N, m) one minus the smoothed Dice coefficient."""
    chance = logits.sigmoid()
    both = (chance * targets).sum((2, 3))
    return 1 - (2 * both + 1) / (chance.sum((2, 3)) + targets.sum((2, 3)) + 1)


@torch.no_grad()
def hard_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """(N, m) IoU of the masks as they would be cut out."""
    mask, truth = logits > 0, targets > 0.5
    return (mask & truth).sum((2, 3)) / (mask | truth).sum((2, 3)).clamp(min=1)


@torch.no_grad()
def as_targets(logits: Tensor, side: int) -> Tensor:
    """(N, side, side) 0 or 1: a network's own masks, logits (N, s, s), as they would be cut out."""
    large = F.interpolate(
        logits.float()[:, None], (side, side), mode="bilinear", align_corners=False
    )
    return (large[:, 0] > 0).float()
