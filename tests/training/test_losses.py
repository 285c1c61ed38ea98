"""The terms of the loss by hand, and that the mean of a batch does not depend on its split."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rsvp.segmenters.vlsm import VlsmOutput
from rsvp.training.config import LossWeights
from rsvp.training.losses import LossTargets, dice_loss, losses, mask_bce, mask_iou


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def output(n: int, masks: int = 1, side: int = 4, seed: int = 0) -> VlsmOutput:
    """A random network output for n proposals, one per view."""
    g = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {
        "logits": torch.randn(n, masks, side, side, generator=g) * 2,
        "scores": torch.rand(n, masks, generator=g),
        "presence": torch.randn(n, generator=g),
        "match": torch.randn(n, 2, 2, generator=g),
        "cosines": torch.randn(n, n, 4, generator=g),
    }
    return VlsmOutput(**{name: made[name] for name in VlsmOutput._fields})


def targets(n: int, side: int = 4, seed: int = 1) -> LossTargets:
    g = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {
        "masks": torch.rand(n, side, side, generator=g),
        "present": torch.arange(n) % 3 != 1,
        "has_text": torch.arange(n) % 4 != 2,
        "view": torch.arange(n),
        "text_ids": torch.arange(n),
    }
    return LossTargets(**{name: made[name] for name in LossTargets._fields})


def part_of(values: Any, part: slice) -> Any:
    """Some of the proposals, with the matching part of the tensors that are per view."""
    cut = {name: value[part] for name, value in values._asdict().items()}
    if "cosines" in cut:
        cut["cosines"] = cut["cosines"][:, part]
    if "view" in cut:
        cut["view"] = cut["view"] - cut["view"].min()
    return type(values)(**cut)


def test_bce_by_hand() -> None:
    logits = torch.tensor([logit(0.9), logit(0.2)]).view(1, 1, 1, 2)
    targets = torch.tensor([1.0, 0.25]).view(1, 1, 1, 2)
    soft = -(0.25 * math.log(0.2) + 0.75 * math.log(0.8))
    assert mask_bce(logits, targets).item() == pytest.approx((-math.log(0.9) + soft) / 2, rel=1e-5)


def test_focal_by_hand() -> None:
    """Each pixel counts by how wrong it is, to the power of gamma."""
    logits = torch.tensor([logit(0.9), logit(0.3)]).view(1, 1, 1, 2)
    targets = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    by_hand = (-math.log(0.9) * 0.1**2 - math.log(0.7) * 0.3**2) / 2
    assert mask_bce(logits, targets, 2.0).item() == pytest.approx(by_hand, rel=1e-4)
    assert mask_bce(logits, targets, 0.0).item() > mask_bce(logits, targets, 1.0).item() > by_hand


def test_dice_by_hand() -> None:
    logits = torch.tensor([logit(0.5), logit(0.25), -40.0, 40.0]).view(1, 1, 2, 2)
    targets = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
    expected = 1 - (2 * 1.5 + 1) / (1.75 + 2 + 1)
    assert dice_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    perfect = (targets * 2 - 1) * 40
    assert dice_loss(perfect, targets).item() == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros(1, 1, 2, 2)
    assert dice_loss(nothing - 40, nothing).item() == pytest.approx(0, abs=1e-6)


def test_mask_iou_by_hand() -> None:
    logits = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(1, 1, 2, 2)
    targets = torch.tensor([0.9, 0.4, 0.8, 0.0]).view(1, 1, 2, 2)
    assert mask_iou(logits, targets).item() == pytest.approx(1 / 3)
    assert mask_iou(-logits.abs(), torch.zeros(1, 1, 2, 2)).item() == 0  # no division by zero


def test_iou_and_presence_terms_by_hand() -> None:
    out, true = output(2), targets(2)._replace(
        present=torch.tensor([True, False]), has_text=torch.tensor([True, True])
    )  # fmt: skip
    result = losses(out, true, LossWeights())
    iou = mask_iou(out.logits, true.masks[:, None])
    assert result.iou.item() == pytest.approx((out.scores[0] - iou[0]).item() ** 2 / 2, rel=1e-5)
    there, absent = out.presence.sigmoid().tolist()
    by_hand = -(math.log(there) + math.log(1 - absent)) / 2
    assert result.presence.item() == pytest.approx(by_hand, rel=1e-5)
    assert result.mean_iou.item() == pytest.approx(iou[0].item())  # of the present one alone


def test_the_total_is_the_weighted_sum() -> None:
    out, true = output(6), targets(6)
    weights = LossWeights(bce=3.0, dice=0.5, iou=2.0, presence=0.25, focal=1.5)
    result = losses(out, true, weights)._asdict()
    names = [name for name in result if hasattr(weights, name)]
    assert {"bce", "dice", "iou", "presence"} <= set(names)
    total = sum(getattr(weights, name) * result[name].item() for name in names)
    assert result["total"].item() == pytest.approx(total, rel=1e-5)


def test_absent_proposals_add_nothing_to_the_mask_terms() -> None:
    out, true = output(6), targets(6)
    before = losses(out, true, LossWeights())
    wild = out.logits.clone()
    wild[~true.present] = 99.0
    after = losses(out._replace(logits=wild, scores=out.scores), true, LossWeights())
    for name in ("bce", "dice", "iou", "mean_iou"):
        assert getattr(after, name) == getattr(before, name), name
    wild[true.present] = 99.0
    assert losses(out._replace(logits=wild), true, LossWeights()).bce > before.bce


def test_presence_is_not_trained_without_a_text() -> None:
    out, true = output(8), targets(8)
    wild = out.presence.clone()
    wild[~true.has_text] = 50.0
    before, after = (losses(out._replace(presence=p), true, LossWeights()) for p in
                     (out.presence, wild))  # fmt: skip
    assert before.presence == after.presence


def test_of_several_masks_the_best_is_trained() -> None:
    """A single point is ambiguous: the two worse masks get no gradient, but their scores do."""
    out, true = output(1, masks=3), targets(1)
    best = (true.masks[0] - 0.5) * 20
    logits = torch.stack([out.logits[0, 0], best, out.logits[0, 2]])[None].requires_grad_()
    scores = out.scores.clone().requires_grad_()
    losses(out._replace(logits=logits, scores=scores), true, LossWeights()).total.backward()
    assert [bool(g.any()) for g in logits.grad[0]] == [False, True, False]
    assert bool(scores.grad.all())


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_the_mean_of_a_batch_is_the_mean_of_its_pieces(pieces: int) -> None:
    """Otherwise accumulation or more processes would change the result."""
    out, true = output(12), targets(12)
    whole = losses(out, true, LossWeights(focal=2.0))
    size = 12 // pieces
    parts = [slice(i * size, (i + 1) * size) for i in range(pieces)]
    result = [losses(part_of(out, p), part_of(true, p), LossWeights(focal=2.0)) for p in parts]
    for name in ("total", "bce", "dice", "iou", "presence"):
        mean = torch.stack([getattr(one, name) for one in result]).mean()
        torch.testing.assert_close(mean, getattr(whole, name))
