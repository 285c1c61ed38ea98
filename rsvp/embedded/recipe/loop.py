"""What both recipes share: optimisers, schedule, checkpoints, the log."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass
class Clock:
    """Stops the loop at a step, at a wall time, or at the first Ctrl-C or SIGTERM."""

    steps: int
    minutes: float
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def listen(self) -> None:
        """Take the first signal as a wish to checkpoint and stop; a second one kills."""

        def stop(number: int, _frame: object) -> None:
            self.stopped = True
            signal.signal(number, signal.SIG_DFL)

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)

    def over(self, step: int) -> bool:
        late = (time.monotonic() - self.started) / 60 >= self.minutes
        return self.stopped or late or step >= self.steps


def optimizers(
    modules: Iterable[nn.Module], lr: float, muon_lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, AdamW for embeddings, convolutions, norms, heads."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    tables = {
        id(p)
        for module in modules
        for m in module.modules()
        if isinstance(m, nn.Embedding)
        for p in m.parameters()
    }
    seen: set[int] = set()
    for module in modules:
        for parameter in module.parameters():
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            inner = (
                parameter.ndim == 2 and min(parameter.shape) >= 32 and id(parameter) not in tables
            )
            (matrices if inner else others).append(parameter)
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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training checkpoint; a kill halfway leaves the former one whole."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The training checkpoint at `path`, or None."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


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
