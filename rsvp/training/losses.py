"""The loss of the VLSM: masks, their predicted IoU, presence, and the match of spatial tokens.

Every mean is over all N proposals, and absent ones add nothing to the mask terms: the mean of a
batch does not depend on how the batch is split over processes and accumulation steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsvp.segmenters.vlsm import VlsmOutput
from rsvp.training.config import LossWeights

COVERED = 0.5  # fraction of a spatial token from which on it belongs to the text


class LossTargets(NamedTuple):
    """The targets of N proposals."""

    masks: Tensor  # (N, s, s) float32, the covered fraction of each pixel; logits are resized to it
    present: Tensor  # (N,) bool
    has_text: Tensor  # (N,) bool; without a text, presence and match are not trained
    view: Tensor  # (N,) int64, the view of each proposal
    text_ids: Tensor  # (N,) int64, equal for equal texts


class Losses(NamedTuple):
    """The terms, each a scalar; only `total` has a gradient, `mean_iou` is for the log."""

    total: Tensor
    bce: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor
    match: Tensor
    contrast: Tensor
    mean_iou: Tensor


TERMS = Losses._fields[1:-1]


def losses(output: VlsmOutput, targets: LossTargets, weights: LossWeights) -> Losses:
    """The losses of N proposals.

    With several masks per proposal (a single point), only the best one is trained, but the
    predicted IoU of all of them.
    """
    logits = resized(output.logits, targets.masks.shape[-1])
    masks = targets.masks[:, None].expand_as(logits)
    bce, dice = mask_bce(logits, masks, weights.focal), dice_loss(logits, masks)
    best = (weights.bce * bce + weights.dice * dice).detach().argmin(1, keepdim=True)
    iou = mask_iou(logits, masks)
    iou_error = (output.scores.float() - iou).square().mean(1)
    presence = F.binary_cross_entropy_with_logits(
        output.presence.float(), targets.present.float(), reduction="none"
    )
    rows, columns = output.match.shape[-2:]
    covered = F.adaptive_avg_pool2d(targets.masks, (rows, columns))
    match = mask_bce(output.match.float()[:, None], covered[:, None])[:, 0]
    contrast = contrast_loss(output.cosines.float(), covered.flatten(1), targets)
    n = len(logits)
    present, has_text = targets.present.float(), targets.has_text.float()
    per_proposal = (  # in the order of TERMS
        bce.gather(1, best)[:, 0] * present,
        dice.gather(1, best)[:, 0] * present,
        iou_error * present,
        presence * has_text,
        match * has_text,
        contrast * has_text * present,
    )
    terms = torch.stack([term.sum() / n for term in per_proposal])
    total = torch.stack([getattr(weights, name) * terms[i] for i, name in enumerate(TERMS)]).sum()
    mean_iou = (iou.gather(1, best)[:, 0] * present).sum() / n * n / present.sum().clamp(min=1)
    return Losses._make([total, *terms.detach(), mean_iou.detach()])


def contrast_loss(cosines: Tensor, covered: Tensor, targets: LossTargets) -> Tensor:
    """(N,) cross-entropy of the text of each covered token among the batch's different texts.

    Args:
        cosines: (B, M, tokens) with M = N texts.
        covered: (N, tokens), the fraction of each token that the target covers.
    """
    _, columns = torch.unique(targets.text_ids, return_inverse=True)
    first = torch.zeros(int(columns.max()) + 1, dtype=torch.int64, device=columns.device)
    first.scatter_(0, columns.flip(0), torch.arange(len(columns) - 1, -1, -1, device=first.device))
    logits = cosines[:, first][targets.view]  # (N, texts, tokens)
    labels = columns[:, None].expand(-1, logits.shape[-1])
    loss = F.cross_entropy(logits, labels, reduction="none")
    is_covered = (covered >= COVERED).float()
    return (loss * is_covered).sum(1) / is_covered.sum(1).clamp(min=1)


def mask_bce(logits: Tensor, masks: Tensor, gamma: float = 0.0) -> Tensor:
    """(N, m) mean binary cross-entropy over the pixels of (N, m, s, s) logits; focal with gamma."""
    loss = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    if gamma:
        probability = logits.sigmoid()
        error = probability + masks - 2 * probability * masks  # 1 - p of the true class
        loss = loss * error**gamma
    return loss.mean((2, 3))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """(N, m) one minus the smoothed Dice coefficient."""
    probability = logits.sigmoid()
    intersection = (probability * masks).sum((2, 3))
    return 1 - (2 * intersection + 1) / (probability.sum((2, 3)) + masks.sum((2, 3)) + 1)


@torch.no_grad()
def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """(N, m) IoU of the thresholded masks."""
    found, true = logits > 0, masks > 0.5
    return (found & true).sum((2, 3)) / (found | true).sum((2, 3)).clamp(min=1)


def resized(logits: Tensor, side: int) -> Tensor:
    """(N, m, s, s) logits as (N, m, side, side) float32."""
    return F.interpolate(logits.float(), (side, side), mode="bilinear", align_corners=False)
