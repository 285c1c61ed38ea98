"""Train the embedded reasoner: perception first, then language, on scenes rendered as it goes.

The language loss alone learns next to nothing in hours. So auxiliary heads, dropped after training,
predict densely what lies in every cell of the image: category and box from the features of the
vision tower, and from the states of the encoder also whether it is what the query asks for. DESIGN
section 5 has the measurements.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from recipes.embedded.examples import STRATEGY_SHARES, TRAIN_SEED, ExampleBuffer, to_pixels
from recipes.embedded.loop import Loop, LoopConfig, schedule, warmup
from recipes.embedded.tokenizer import make_tokenizer
from recipes.embedded.trainer import ReasonerTrainer, TurnLosses
from rsvp.embedded.vocabulary import STYLES
from rsvp.types import RgbArray

BUFFER = 3000  # examples kept for several uses
FRESH = 0.35  # share of the examples drawn that are new


@dataclass(frozen=True)
class ReasonerConfig(LoopConfig):
    """How to train from scratch.

    Attributes:
        perception_steps: steps before the first prompt.
        freeze_warmup: steps in which the auxiliary heads learn without training the model.
        turns: prompts an image.
        shares: strategy -> its share of the images.
        styles: of the drawings; each object gets one at random.
    """

    steps: int = 5000
    batch: int = 12
    lr: float = 1.5e-3
    muon_lr: float = 2.5e-3
    decay: float = 0.42
    save_every: int = 200
    log_every: int = 20
    perception_steps: int = 1250
    freeze_warmup: int = 0
    turns: int = 4
    shares: Mapping[str, float] = field(default_factory=lambda: STRATEGY_SHARES)
    styles: Sequence[str] = tuple(STYLES)


@dataclass(frozen=True)
class FineTuningConfig(ReasonerConfig):
    """How to fine-tune: with small learning rates, and new heads that have to be trained first."""

    steps: int = 2500
    lr: float = 5e-4
    muon_lr: float = 8e-4
    decay: float = 0.8
    perception_steps: int = 0
    freeze_warmup: int = 150


def learning_rate(step: int, config: ReasonerConfig) -> float:
    """The share of the learning rates; the language half warms up when its turn comes."""
    begun = step - config.perception_steps if step >= config.perception_steps else step
    return min(schedule(step, config.steps, decay=config.decay), warmup(begun))


def train(
    out: Path,
    config: ReasonerConfig,
    photos: Sequence[RgbArray] = (),
    device: str = "cpu",
    *,
    trainer_class: type[ReasonerTrainer] = ReasonerTrainer,
    start: Path | None = None,
) -> None:
    """Train or resume training in `out`.

    Args:
        photos: (H, W, 3) uint8 arrays: backgrounds, and images to refuse.
        start: folder of a trained model to fine-tune, with new heads and optimisers.

    Raises:
        BadInput: the checkpoint does not fit, or there is no model in `start`.
    """
    tokenizer = make_tokenizer(out / "tokenizer", start=start)
    torch.manual_seed(config.seed)
    trainer = trainer_class(tokenizer, device, start)
    parts = {"model": trainer.model, "heads": trainer.heads}
    loop = Loop(out, config, parts, clip=2.0, unit="scenes", counts={"scenes": 0})
    # A resumed run draws new scenes: there is no end of them, so no position needs to be kept.
    seed = TRAIN_SEED + config.seed + loop.step
    buffer = ExampleBuffer(
        seed, BUFFER, FRESH, photos, config.turns + 2, shares=config.shares, styles=config.styles
    )
    rng = random.Random(loop.step)
    none = TurnLosses(torch.zeros((), device=device), torch.zeros((), device=device), 0.0)
    for step in loop.steps():
        examples = buffer.draw(config.batch)
        images = to_pixels(examples, buffer.rng).to(device)
        train_model = step >= config.freeze_warmup
        with torch.autocast(device, dtype=torch.bfloat16):
            seen = trainer.perception_loss(examples, images, train_model=train_model)
            said = none
            if step >= config.perception_steps:
                said = trainer.turn_losses(
                    examples, seen, rng, config.turns, train_model=train_model
                )
            loss = seen.loss + said.language + said.encoder
        rate = learning_rate(step, config)
        loop.counts["scenes"] += config.batch
        loop.step_down(
            loss, rate, perception=seen.loss.item(), cell_accuracy=seen.accuracy,
            numbers_read=seen.numbers_read, language=said.language.item(),
            understanding=said.encoder.item(), picked=said.target_accuracy,
        )  # fmt: skip
        if loop.reports():
            loop.report(rate=rate)
    trainer.export(out / "model")
