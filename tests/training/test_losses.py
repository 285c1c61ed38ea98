"""The terms of the loss by hand, and that a batch may be cut into pieces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rsvp.segmenters.vlsm import VlsmOutput
from rsvp.training.losses import Truth, Weights, dice_loss, hard_iou, losses, mask_bce


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def found(n: int, masks: int = 1, side: int = 4, seed: int = 0) -> VlsmOutput:
    """What a network might have said of n proposals, one a view."""
    g = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {
        "logits": torch.randn(n, masks, side, side, generator=g) * 2,
        "scores": torch.rand(n, masks, generator=g),
        "presence": torch.randn(n, generator=g),
        "match": torch.randn(n, 2, 2, generator=g),
        "cosines": torch.randn(n, n, 4, generator=g),
    }
    return VlsmOutput(**{name: made[name] for name in VlsmOutput._fields})


def truth(n: int, side: int = 4, seed: int = 1) -> Truth:
    g = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {
        "targets": torch.rand(n, side, side, generator=g),
        "present": torch.arange(n) % 3 != 1,
        "worded": torch.arange(n) % 4 != 2,
        "view": torch.arange(n),
        "names": torch.arange(n),
    }
    return Truth(**{name: made[name] for name in Truth._fields})


def rows(values: Any, part: slice) -> Any:
    """Some proposals; each sees only its own part of what is told of view by view."""
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
    """Each place counts by how wrong it is, to the power of gamma."""
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


def test_hard_iou_by_hand() -> None:
    logits = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(1, 1, 2, 2)
    targets = torch.tensor([0.9, 0.4, 0.8, 0.0]).view(1, 1, 2, 2)
    assert hard_iou(logits, targets).item() == pytest.approx(1 / 3)
    assert hard_iou(-logits.abs(), torch.zeros(1, 1, 2, 2)).item() == 0  # no division by zero


def test_iou_and_presence_terms_by_hand() -> None:
    said, true = found(2), truth(2)._replace(
        present=torch.tensor([True, False]), worded=torch.tensor([True, True])
    )  # fmt: skip
    told = losses(said, true, Weights())
    real = hard_iou(said.logits, true.targets[:, None])
    assert told.iou.item() == pytest.approx((said.scores[0] - real[0]).item() ** 2 / 2, rel=1e-5)
    there, absent = said.presence.sigmoid().tolist()
    by_hand = -(math.log(there) + math.log(1 - absent)) / 2
    assert told.presence.item() == pytest.approx(by_hand, rel=1e-5)
    assert told.mean_iou.item() == pytest.approx(real[0].item())  # of the present one alone


def test_the_total_is_what_the_weights_say() -> None:
    said, true = found(6), truth(6)
    weights = Weights(bce=3.0, dice=0.5, iou=2.0, presence=0.25, focal=1.5)
    told = losses(said, true, weights)._asdict()
    names = [name for name in told if hasattr(weights, name)]
    assert {"bce", "dice", "iou", "presence"} <= set(names)
    total = sum(getattr(weights, name) * told[name].item() for name in names)
    assert told["total"].item() == pytest.approx(total, rel=1e-5)


def test_absent_proposals_add_nothing_to_the_mask_terms() -> None:
    said, true = found(6), truth(6)
    before = losses(said, true, Weights())
    wild = said.logits.clone()
    wild[~true.present] = 99.0
    after = losses(said._replace(logits=wild, scores=said.scores), true, Weights())
    for name in ("bce", "dice", "iou", "mean_iou"):
        assert getattr(after, name) == getattr(before, name), name
    wild[true.present] = 99.0
    assert losses(said._replace(logits=wild), true, Weights()).bce > before.bce


def test_presence_means_nothing_without_a_text() -> None:
    said, true = found(8), truth(8)
    wild = said.presence.clone()
    wild[~true.worded] = 50.0
    before, after = (losses(said._replace(presence=p), true, Weights()) for p in
                     (said.presence, wild))  # fmt: skip
    assert before.presence == after.presence


def test_of_several_masks_the_best_learns() -> None:
    """A lone point is ambiguous: the two worse masks get no gradient, but their scores do."""
    said, true = found(1, masks=3), truth(1)
    best = (true.targets[0] - 0.5) * 20
    logits = torch.stack([said.logits[0, 0], best, said.logits[0, 2]])[None].requires_grad_()
    scores = said.scores.clone().requires_grad_()
    losses(said._replace(logits=logits, scores=scores), true, Weights()).total.backward()
    assert [bool(g.any()) for g in logits.grad[0]] == [False, True, False]
    assert bool(scores.grad.all())


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_the_mean_of_a_batch_is_the_mean_of_its_pieces(pieces: int) -> None:
    """Else accumulation, or more processes, would learn something else."""
    said, true = found(12), truth(12)
    whole = losses(said, true, Weights(focal=2.0))
    size = 12 // pieces
    parts = [slice(i * size, (i + 1) * size) for i in range(pieces)]
    told = [losses(rows(said, p), rows(true, p), Weights(focal=2.0)) for p in parts]
    for name in ("total", "bce", "dice", "iou", "presence"):
        mean = torch.stack([getattr(one, name) for one in told]).mean()
        torch.testing.assert_close(mean, getattr(whole, name))
