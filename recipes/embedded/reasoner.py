"""Train the embedded reasoner: perception first, then language, on scenes rendered as it goes.

From scratch, language loss alone learns next to nothing in hours, so two dense helpers, dropped
after training, tell every cell of the image what lies there: name and box on the vision tower's
features, and on the encoder's states also whether it is what the question asks for. DESIGN section
5 has the pilot's figures.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.embedded.examples import SHARES, TRAIN_SEED, Pool, pixels
from recipes.embedded.loop import Loop, Pace, schedule, warm
from recipes.embedded.tokenizer import make_tokenizer
from recipes.embedded.trainee import Conversed, Trainee

POOL = 3000  # scenes kept for several uses
FRESH = 0.35  # share of the scenes drawn that are new


@dataclass(frozen=True)
class Plan(Pace):
    """How to train.

    Attributes:
        perceive: steps before the first question.
        settle: steps in which the helpers learn without teaching the model.
        asks: questions an image.
        shares: strategy -> its share of the images.
    """

    steps: int = 5000
    batch: int = 12
    lr: float = 1.5e-3
    muon_lr: float = 2.5e-3
    decay: float = 0.42
    save_every: int = 200
    log_every: int = 20
    perceive: int = 1250
    settle: int = 0
    asks: int = 4
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)


@dataclass(frozen=True)
class Tuning(Plan):
    """How to go on from a trained model: gently, with helpers that have to catch up first."""

    steps: int = 2500
    lr: float = 5e-4
    muon_lr: float = 8e-4
    decay: float = 0.8
    perceive: int = 0
    settle: int = 150


def learning_rate(step: int, plan: Plan) -> float:
    """The share of the learning rates; the language half warms up when its turn comes."""
    begun = step - plan.perceive if step >= plan.perceive else step
    return min(schedule(step, plan.steps, decay=plan.decay), warm(begun))


def train(
    out: Path,
    plan: Plan,
    photos: Sequence[NDArray[np.uint8]] = (),
    device: str = "cpu",
    *,
    trainee_class: type[Trainee] = Trainee,
    start: Path | None = None,
) -> None:
    """Train or go on training in `out`; the checkpoint there is read first.

    Args:
        photos: (H, W, 3) uint8 arrays, used as backgrounds now and then.
        start: folder of a trained model to go on from, with new helpers and optimisers.

    Raises:
        BadInput: the checkpoint does not fit, or there is no model in `start`.
    """
    tokenizer = make_tokenizer(out / "tokenizer", start=start)
    torch.manual_seed(plan.seed)
    trainee = trainee_class(tokenizer, device, start)
    parts = {"model": trainee.model, "helpers": trainee.helpers}
    loop = Loop(out, plan, parts, clip=2.0, counts={"scenes": 0})
    # A resumed run draws new scenes: the world is endless, so no position need be kept.
    seed = TRAIN_SEED + plan.seed + loop.step
    pool = Pool(seed, POOL, FRESH, photos, plan.asks + 2, shares=plan.shares)
    rng = random.Random(loop.step)
    silence = Conversed(torch.zeros((), device=device), torch.zeros((), device=device), 0.0)
    for step in loop.steps():
        examples = pool.draw(plan.batch)
        images = pixels(examples, pool.rng).to(device)
        teach = step >= plan.settle
        with torch.autocast(device, dtype=torch.bfloat16):
            seen = trainee.perceive(examples, images, teach=teach)
            said = silence
            if step >= plan.perceive:
                said = trainee.converse(examples, seen, rng, plan.asks, teach=teach)
            loss = seen.loss + said.spoken + said.understood
        rate = learning_rate(step, plan)
        loop.counts["scenes"] += plan.batch
        loop.learn(
            loss, rate, perception=seen.loss.item(), cell_accuracy=seen.accuracy,
            numbers_read=seen.numbers, language=said.spoken.item(),
            understanding=said.understood.item(), picked=said.picked,
        )  # fmt: skip
        if loop.reports():
            means, speed = loop.window()
            loop.log.row(
                step=loop.step, scenes=loop.counts["scenes"], **means, rate=rate,
                scenes_per_second=speed,
            )  # fmt: skip
    trainee.export(out / "model")
