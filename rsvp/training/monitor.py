"""What the loop watches: mean losses, throughput, non-finite losses, and the reasons to stop."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsvp.errors import BadInput
from rsvp.training.losses import Losses


class LossMeans:
    """Mean losses since the last row of the log; the sums stay on the device until they are read.

    Args:
        sums: what `sums` gave before the run was stopped.
    """

    NAMES = (*Losses._fields, "count")

    def __init__(self, device: torch.device, sums: Mapping[str, float]) -> None:
        self._sums = torch.tensor([sums.get(name, 0.0) for name in self.NAMES], device=device)

    def add(self, losses: Losses) -> None:
        self._sums += torch.stack([*losses, torch.ones_like(losses.total)]).detach()

    def sums(self, accelerator: Any) -> dict[str, float]:
        """The sums since the last row, as the mean of all processes."""
        sums = accelerator.reduce(self._sums, "mean").tolist()
        return dict(zip(self.NAMES, sums, strict=True))

    def take(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes; begins the next row."""
        sums = self.sums(accelerator)
        self._sums = torch.zeros_like(self._sums)
        count = sums.pop("count")
        return {name: value / count for name, value in sums.items()}


class Throughput:
    """Samples per second, the fraction of time in the frozen encoder, and peak memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.samples, self.encoder_seconds = 0, 0.0
        self._events: list[tuple[Any, Any]] = []  # CUDA events around the encoder
        self._run_start = self._row_start = self._now()

    @contextlib.contextmanager
    def encoding(self) -> Iterator[None]:
        """Count the time of the block as the encoder's."""
        if self.device.type == "cuda":
            event: Any = torch.cuda.Event
            start, end = event(enable_timing=True), event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((start, end))
        else:
            started = time.perf_counter()
            yield
            self.encoder_seconds += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        figures, self._row_start = self._figures(self._row_start), self._now()
        return figures

    def summary(self) -> str:
        """The figures of the whole run in one line."""
        figures = self._figures(self._run_start)
        gigabytes, where = peak_memory(self.device)
        return (
            f"{figures['views_per_second']:.1f} views a second, {figures['encoder_share']:.0%} of "
            f"the time in the frozen encoder; peak memory {gigabytes:.1f} GB ({where})"
        )

    def _now(self) -> tuple[float, int, float]:
        if self._events:
            torch.cuda.synchronize(self.device)
            self.encoder_seconds += sum(a.elapsed_time(b) for a, b in self._events) / 1000
            self._events = []
        return time.perf_counter(), self.samples, self.encoder_seconds

    def _figures(self, since: tuple[float, int, float]) -> dict[str, float]:
        seconds, samples, encoder_seconds = np.subtract(self._now(), since).tolist()
        seconds = max(seconds, 1e-9)
        return {"views_per_second": samples / seconds, "encoder_share": encoder_seconds / seconds}


def peak_memory(device: torch.device) -> tuple[float, str]:
    """Peak memory in 10^9 bytes, and whether it is the GPU's or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9, "GPU"
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, "process"


class StopCondition:
    """Ends a run at its last step, at a time limit, or at the first Ctrl-C or SIGTERM."""

    def __init__(self, steps: int, minutes: float | None = None) -> None:
        self.steps, self.interrupted = steps, False  # interrupted by a signal
        self._deadline = time.monotonic() + 60 * (math.inf if minutes is None else minutes)

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Take the first signal as a request to checkpoint and stop; a second one kills."""

        def stop(number: int, _frame: object) -> None:
            self.interrupted = True
            signal.signal(number, signal.SIG_DFL)

        previous = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(ValueError):  # only the main thread can set handlers
                    previous[number] = signal.signal(number, stop)
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def reached(self, step: int) -> bool:
        return self.interrupted or step >= self.steps or time.monotonic() >= self._deadline


class NanGuard:
    """First step with a non-finite loss or gradient norm; synchronises only in `check`."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.tensor(math.inf, device=device)

    def see(self, step: int, value: Tensor) -> None:
        earliest = self._first.clamp(max=float(step))
        self._first = torch.where(torch.isfinite(value.detach()), self._first, earliest)

    def check(self) -> None:
        """Raises BadInput if a value was not finite, before anything of it is saved."""
        first = float(self._first)
        if math.isfinite(first):
            raise BadInput(
                f"at step {first:.0f} the loss or its gradient is not a finite number; what was "
                "saved before stays. Train into another folder with a smaller --lr, or with "
                "--precision no"
            )
