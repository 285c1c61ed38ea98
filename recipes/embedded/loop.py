"""The loop of both recipes: optimisers, learning rate, checkpoint and log.

A recipe computes the loss of a step; the loop takes the step, logs it, saves it and ends in time:

    loop = Loop(out, config, {"model": model}, clip=1.0, unit="samples")
    for step in loop.steps():
        loop.step_down(loss, schedule(step, config.steps), loss=loss.item())
        if loop.reports():
            loop.report()

`rsvp.training.loop` has another one: it accumulates micro-batches over several processes with
accelerate and validates on the way. Here one process trains a whole network with two optimisers.
Both end, save and load alike (`StopCondition`, `save_checkpoint`, `load_checkpoint`).
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsvp.errors import BadInput
from rsvp.training.monitor import StopCondition
from rsvp.training.run_folder import load_checkpoint, save_checkpoint

CHECKPOINT = "checkpoint.pt"  # in the folder of a run


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train; every recipe adds its own settings.

    Attributes:
        steps: length of the whole run, and with it of the learning-rate schedule.
        batch: samples a step; lr: of AdamW; muon_lr: of Muon.
        decay: share of the run, at its end, over which the learning rates fall.
        minutes: after which this call stops, resumably.
        save_every, log_every: steps between two checkpoints, and between two rows of the log.
    """

    steps: int
    batch: int
    lr: float
    muon_lr: float
    decay: float = 0.25
    minutes: float | None = None
    seed: int = 0
    save_every: int = 250
    log_every: int = 25


class Loop:
    """A training run in a folder, resumed from its checkpoint.

    Args:
        parts: the modules to train, by their keys in the checkpoint.
        clip: largest norm of the gradient.
        unit: what the samples are, for the column of the throughput.
        counts: other counters kept in the checkpoint, with their first values.

    Raises:
        BadInput: the checkpoint in the folder is of another recipe.
    """

    def __init__(
        self,
        out: Path,
        config: LoopConfig,
        parts: Mapping[str, nn.Module],
        *,
        clip: float,
        unit: str,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.config, self.parts, self.clip, self.unit = config, parts, clip, unit
        self.checkpoint, self.log = out / CHECKPOINT, out / "log.csv"
        self.optimizers = optimizers(parts.values(), config.lr, config.muon_lr)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.parameters = [p for group in groups for p in group["params"]]
        self.step, self.counts = 0, dict(counts or {})
        self._resume()
        self._sums: dict[str, float] = {}  # since the last row of the log
        self._summed, self._since = 0, time.monotonic()
        self._stop = StopCondition(config.steps, config.minutes)
        self.over = self._stop.reached(self.step)

    def steps(self) -> Iterator[int]:
        """The number of each step, until it is time to stop; saves after the caller's step."""
        self._since = time.monotonic()
        with self._stop.catching_signals():
            while not self.over:
                yield self.step
                if self.over or self.step % self.config.save_every == 0:
                    self._save()

    def step_down(self, loss: Tensor, rate: float, /, **figures: float) -> None:
        """One optimiser step at a share of the learning rates; add up the figures for the log."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("base_lr", group["lr"])
                group["lr"] = group["base_lr"] * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, figure in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + figure
        self._summed += 1
        self.step += 1
        self.over = self._stop.reached(self.step)

    def reports(self) -> bool:
        return self.step % self.config.log_every == 0

    def report(self, **more: float) -> None:
        """A row of `log.csv`, also printed: counters, means since the last row, `more`, speed."""
        now = time.monotonic()
        row: dict[str, float] = {"time": round(time.time()), "step": self.step, **self.counts}
        row |= {name: total / self._summed for name, total in self._sums.items()} | more
        row[f"{self.unit}_per_second"] = self._summed * self.config.batch / (now - self._since)
        self._sums, self._summed, self._since = {}, 0, now
        new = not self.log.exists()
        with self.log.open("a", newline="") as file:
            csv.writer(file).writerows([row, row.values()] if new else [row.values()])
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps(shown), flush=True)

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        moments = [optimizer.state_dict() for optimizer in self.optimizers]
        whole = {**state, "optimizers": moments, "step": self.step, **self.counts}
        save_checkpoint(self.checkpoint, whole)

    def _resume(self) -> None:
        """Load the checkpoint, if there is one; all of it has to fit."""
        state = load_checkpoint(self.checkpoint)
        if state is None:
            return
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            for optimizer, moments in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(moments)
            self.step = int(state["step"])
            self.counts = {name: int(state[name]) for name in self.counts}
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"{self.checkpoint} does not fit this recipe: resume with the version that wrote "
                "it, or train into another folder"
            ) from error


def read_log(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def optimizers(
    modules: Iterable[nn.Module], lr: float, muon_lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the modules; AdamW for embeddings, convolutions and the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    network = nn.ModuleList(modules)
    embeddings = [m for m in network.modules() if isinstance(m, nn.Embedding)]
    tables = {id(p) for m in embeddings for p in m.parameters()}
    for parameter in network.parameters():  # each once, shared or not
        if parameter.requires_grad:
            inner = parameter.ndim == 2 and min(parameter.shape) >= 32
            chosen = matrices if inner and id(parameter) not in tables else others
            chosen.append(parameter)
    adam = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    if not matrices:
        return [adam]
    muon = torch.optim.Muon(
        matrices, lr=muon_lr, weight_decay=0.01, momentum=0.95, ns_steps=5,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    return [muon, adam]


def warmup(step: int, steps: int = 200) -> float:
    """The share of the learning rate in the linear warm-up."""
    return min(1.0, (step + 1) / steps)


def schedule(step: int, steps: int, *, decay: float = 0.25) -> float:
    """Warm up, hold, and fall to 2 % over the last `decay` of the steps."""
    left = (steps - step) / max(1.0, decay * steps)
    return max(0.02, min(warmup(step), left))


def prepare(model: Any, device: str) -> None:
    """Put a transformers model on the device, in training mode, with the attention fast there."""
    if device == "cpu":  # the backward of its fused kernel is several times slower than plain bmm
        model.set_attn_implementation("eager")
    model.to(device).train()


def save_bf16(model: Any, folder: Path) -> None:
    """Write a transformers model as bf16 safetensors and its config; the model itself is unchanged.

    Every file is at most 15 MB.
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="15MB")
    model.float().load_state_dict(kept)
