"""What both recipes share: the loop around a step, with its optimisers, checkpoints and log.

A recipe says what a step's loss is; the loop takes the step, counts it, saves it and ends in time:

    loop = Loop(out, plan, {"model": model}, clip=1.0)
    for step in loop.steps():
        loop.learn(loss, rate, loss=float(loss))
        if loop.reports():
            means, pace = loop.window()
            loop.log.row(step=loop.step, **means)
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


@dataclass(frozen=True)
class Pace:
    """How long and how fast to train, in every recipe's plan.

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
    minutes: float = 1e9
    seed: int = 0
    save_every: int = 250
    log_every: int = 25


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


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate from the one that it was made with."""
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
        group["lr"] = group["base_lr"] * factor


def warm(step: int, warmup: int = 200) -> float:
    """The share of the learning rate that a part gets so early in its training."""
    return min(1.0, (step + 1) / warmup)


def schedule(step: int, steps: int, *, decay: float = 0.25) -> float:
    """Warm up, hold, and fall to 2 % over the last `decay` of the steps."""
    left = (steps - step) / max(1.0, decay * steps)
    return max(0.02, min(warm(step), left))


class Log:
    """One CSV row a report, and the same on stderr."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()

    def row(self, **values: float | int | str) -> None:
        values = {"time": round(time.time()), **values}
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(values)
            writer.writerow(values.values())
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        print(json.dumps(shown), flush=True)


class Loop:
    """A training run in a folder, taken up where its checkpoint left it.

    Args:
        parts: what is trained, by the name under which the checkpoint keeps it.
        clip: largest norm of the gradient.
        counts: more that is counted and kept beside `step`, with its first values.

    Raises:
        BadInput: the checkpoint in the folder is of another recipe.
    """

    def __init__(
        self,
        out: Path,
        plan: Pace,
        parts: Mapping[str, nn.Module],
        *,
        clip: float,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.plan, self.parts, self.clip = plan, parts, clip
        self.checkpoint, self.log = out / "checkpoint.pt", Log(out / "log.csv")
        self.optimizers = optimizers(parts.values(), plan.lr, plan.muon_lr)
        groups = [group for opt in self.optimizers for group in opt.param_groups]
        self.parameters = [p for group in groups for p in group["params"]]
        self.step, self.counts = 0, dict(counts or {})
        self.resume()
        self.sums: dict[str, float] = {}
        self.summed, self.since = 0, time.monotonic()
        self.stop = StopCondition(plan.steps, plan.minutes)
        self.over = self.stop.reached(self.step)

    def steps(self) -> Iterator[int]:
        """The number of each step, until it is time to stop; saves what the caller has learned."""
        self.since = time.monotonic()
        with self.stop.catching_signals():
            while not self.over:
                yield self.step
                if self.over or self.step % self.plan.save_every == 0:
                    self.save()

    def learn(self, loss: Tensor, rate: float, /, **figures: float) -> None:
        """Take one step down the loss at a share of the learning rates; note the figures."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for optimizer in self.optimizers:
            set_rate(optimizer, rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, figure in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + figure
        self.summed += 1
        self.step += 1
        self.over = self.stop.reached(self.step)

    def reports(self) -> bool:
        """Whether a row of the log is due."""
        return self.step % self.plan.log_every == 0

    def window(self) -> tuple[dict[str, float], float]:
        """The figures' means and the samples a second since the last call."""
        now = time.monotonic()
        means = {name: total / self.summed for name, total in self.sums.items()}
        speed = self.summed * self.plan.batch / (now - self.since)
        self.sums, self.summed, self.since = {}, 0, now
        return means, speed

    def save(self) -> None:
        """Write the checkpoint."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        moments = [optimizer.state_dict() for optimizer in self.optimizers]
        kept = {**state, "optimizers": moments, "step": self.step, **self.counts}
        save_checkpoint(self.checkpoint, kept)

    def resume(self) -> None:
        """Read the checkpoint, if there is one; all of it has to fit."""
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
                f"{self.checkpoint} does not fit this recipe: go on with the version that wrote "
                "it, or train into another folder"
            ) from error


def settle(model: Any, device: str) -> None:
    """Put a transformers model on the device, in training mode, with the attention fast there."""
    if device == "cpu":  # its fused kernel's backward is several times slower than plain bmm
        model.set_attn_implementation("eager")
    model.to(device).train()


def save_bf16(model: Any, folder: Path) -> None:
    """Write a transformers model as bf16 safetensors and its config; the model stays as it is."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="15MB")
    model.float().load_state_dict(kept)
