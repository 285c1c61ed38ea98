"""What a training run is told: the plan decides what is learned, the habits only how it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rsvp.errors import BadInput
from rsvp.training.heldout import FIGURES
from rsvp.training.losses import Weights
from rsvp.training.views import Mix


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides what is learned; saved beside the weights.

    Attributes:
        data: data specs to train on.
        segmenter: ``sam2:MODEL`` to build on, or ``vlsm:MODEL`` to go on from.
        text_encoder: of a new VLSM, as `rsvp.segmenters.text_encoder` takes it.
        keep: data specs of pictures on which SAM 2's own masks are learned, whatever the text.
        eval_data: data specs to measure on; without any, every `hold_out`-th picture of `data`.
        steps: of the optimiser; the learning rate warms up over `warmup` of them and falls over
            the last `decay` share.
        batch: views a step, over all processes and accumulated pieces.
        accumulate: micro-batches of a process a step.
        precision: ``no``, ``bf16`` or ``fp16``, of everything but weights and losses.
        metric: of `rsvp.training.heldout`; the best one is kept.
        fusion: settings of a new VLSM's `FusionConfig`.
    """

    data: tuple[str, ...]
    segmenter: str
    text_encoder: str
    keep: tuple[str, ...] = ()
    eval_data: tuple[str, ...] = ()
    hold_out: int = 20
    eval_pictures: int = 100
    eval_every: int = 500
    steps: int = 5000
    batch: int = 16
    accumulate: int = 1
    lr: float = 5e-4
    weight_decay: float = 0.02
    warmup: int = 200
    decay: float = 0.3
    clip: float = 1.0
    precision: str = "bf16"
    metric: str = "ambiguous"
    seed: int = 0
    mix: Mix = field(default_factory=Mix)
    weights: Weights = field(default_factory=Weights)
    fusion: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "eval_every", "eval_pictures"):
            if getattr(self, name) < 1:
                raise BadInput(
                    f"{name.replace('_', '-')} is at least 1, found {getattr(self, name)}"
                )
        if self.hold_out < 2:
            raise BadInput(f"hold-out is at least 2, found {self.hold_out}")
        if self.precision not in ("no", "bf16", "fp16"):
            raise BadInput(f"precision is no, bf16 or fp16, found {self.precision!r}")
        if self.metric not in FIGURES:
            raise BadInput(f"the metric is one of {', '.join(FIGURES)}, found {self.metric!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"the learning rate is above 0, found {self.lr}")

    def rate(self, step: int) -> float:
        """The share of the learning rate at a step: up, level, and down to 2 %."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return max(0.02, min(1.0, (step + 1) / max(1, self.warmup), left))


@dataclass(frozen=True, slots=True)
class Habits:
    """How a run is run; none of it changes what is learned.

    Attributes:
        minutes: after which this call stops, resumably.
        save_every, log_every: steps between two checkpoints, and between two rows of the log.
        workers: processes that make batches ahead.
        cache: folder for the encoder's features; pictures' boxes are then the same in every pass.
        device: asked for, e.g. ``cpu``; by default the best one here.
    """

    minutes: float = 1e9
    save_every: int = 200
    log_every: int = 20
    workers: int = 1
    cache: str | None = None
    device: str | None = None
