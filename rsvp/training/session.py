"""A training session: the models, the data, the folder and the logs of one call of `train`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rsvp.platform.files import locked
from rsvp.training.batches import TrainingBatch, micro_batches
from rsvp.training.components import (
    FrozenEncoder,
    load_components,
    make_accelerator,
    make_optimizer,
)
from rsvp.training.config import RunConfig, TrainConfig
from rsvp.training.data import ConcatImages, ImageSource, ImageSubset, hold_out, open_sources
from rsvp.training.monitor import LossMeans, NanGuard, Throughput
from rsvp.training.run_folder import LOG, RunFolder
from rsvp.training.samples import TrainingDataset
from rsvp.training.validation import ValidationSet, Validator


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a call of `train`."""

    step: int
    steps: int
    figures: dict[str, float]  # the last validation; ``base_`` ones are SAM 2's
    broken: int  # how often a broken image was skipped
    speed: str  # throughput and memory, for people
    interrupted: bool = False  # whether a signal ended it
    main: bool = True  # whether this is the process that prints

    def to_dict(self) -> dict[str, Any]:
        """The content of `rsvp train --json`; null for a figure that is not a number."""
        figures = {k: v if math.isfinite(v) else None for k, v in self.figures.items()}
        return {k: v for k, v in {**asdict(self), "figures": figures}.items() if k != "main"}

    def lines(self, out: Path) -> Iterator[str]:
        yield self.speed
        if self.broken:
            yield f"skipped broken images {self.broken} times; they are named above"
        if self.step < self.steps:
            yield f"stopped at step {self.step} of {self.steps}; continue with --resume"
        else:
            yield f"done after {self.step} steps; use it with --segmenter vlsm:{out / 'best'}"


class Session:
    """Everything that the training loop works with, ready for the next step.

    `model` is the network as accelerate wraps it for several processes; the loop advances `state`.
    The run's folder stays locked until `lock` is closed.
    """

    def __init__(
        self, config: TrainConfig, out: Path, run: RunConfig, lock: ExitStack, *, resume: bool
    ) -> None:
        train_images, validation_images = open_images(config)
        accelerator = make_accelerator(config.precision, config.accumulate, run.device, out)
        config.micro_batch(accelerator.num_processes)  # or BadInput, before anything is written
        torch.manual_seed(config.seed)
        components = load_components(config)
        optimizer = make_optimizer(components.net, config)
        fixed = run.cache is not None
        with accelerator.main_process_first():
            saved = {**config.model_dump(mode="json"), "cached": fixed}
            if main := bool(accelerator.is_main_process):
                lock.enter_context(locked(out))
            self.folder = RunFolder(out, saved, resume=resume, main=main)
        self.state = self.folder.restore(components.net.fusion, optimizer, accelerator.scaler)
        self.model, self.optimizer = accelerator.prepare(components.net, optimizer)
        components.text.to(accelerator.device)
        purge = {"tensorboard": {"purge_step": self.state.step}}
        accelerator.init_trackers("tb", init_kwargs=purge)
        self.config, self.components, self.accelerator = config, components, accelerator
        preprocessing = components.preprocessing
        self.dataset = TrainingDataset(train_images, preprocessing, config, fixed=fixed)
        self.encoder = FrozenEncoder(components.net.sam2, self.dataset, accelerator, run.cache)
        validation = ValidationSet(validation_images, config.eval_pictures)
        self.validator = Validator(components, validation, config.metric, self.folder, accelerator)
        self.guard = NanGuard(accelerator.device)
        self.means = LossMeans(accelerator.device, self.state.sums)
        self.throughput = Throughput(accelerator.device)
        self._reported: set[str] = set()

    def micro_batches(self, workers: int) -> Iterator[TrainingBatch]:
        """The micro-batches of this process from the next step on, on its device."""
        from accelerate.utils import send_to_device

        one = self.accelerator
        part = {"processes": one.num_processes, "process_index": one.process_index}
        step = self.state.step
        for batch in micro_batches(self.dataset, self.config, step, workers=workers, **part):
            yield send_to_device(batch, one.device, non_blocking=True)

    def progress_bar(self) -> Any:
        """A progress bar on stderr, if that is a terminal."""
        from accelerate.utils import tqdm

        return tqdm(
            total=self.config.steps, initial=self.state.step, desc="training",
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def report_broken(self, causes: Sequence[str], report: Callable[[str], None]) -> None:
        """Count the skipped images, and report each cause once."""
        self.state.broken += len(causes)
        for cause in causes:
            if cause not in self._reported:
                self._reported.add(cause)
                report(f"skipped {cause}")

    def sum_over_processes(self, value: float) -> float:
        """The sum of a value, equal in every process."""
        if self.accelerator.num_processes == 1:
            return value  # without waiting for the device
        own = torch.tensor(float(value), device=self.accelerator.device)
        return float(self.accelerator.reduce(own, "sum"))

    def broken(self) -> int:
        """How often all processes skipped a broken image."""
        return round(self.sum_over_processes(self.state.broken))

    def log(self, bar: Any) -> None:
        """Write a row of `log.csv`, and the same figures to TensorBoard and the progress bar."""
        figures = {**self.means.take(self.accelerator), **self.throughput.take()}
        row = {"step": self.state.step, **figures, "broken": self.broken()}
        self.folder.append(LOG, row)
        self.accelerator.log({f"train/{k}": v for k, v in figures.items()}, step=self.state.step)
        bar.set_postfix(loss=f"{figures['total']:.3f}")

    def save(self) -> None:
        sums = self.means.sums(self.accelerator)
        state = replace(self.state, broken=self.broken(), sums=sums)
        fusion = self.components.net.fusion
        self.folder.save(state, fusion, self.optimizer, self.accelerator.scaler)

    def finish(self, *, interrupted: bool) -> TrainResult:
        """Close the logs. `Accelerator.end_training` would also end the process group."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        step, steps, figures = self.state.step, self.config.steps, self.validator.figures
        return TrainResult(
            step, steps, figures, self.broken(), self.throughput.summary(),
            interrupted=interrupted and step < steps, main=bool(self.accelerator.is_main_process),
        )  # fmt: skip


def open_images(config: TrainConfig) -> tuple[ImageSource, ImageSource]:
    train = open_sources(config.data)
    if config.eval_data:
        validation = open_sources(config.eval_data)
    else:
        train, validation = hold_out(train, config.hold_out)
    if config.keep:
        kept = open_sources(config.keep)
        train = ConcatImages([train, ImageSubset(kept, range(len(kept)), keep=True)])
    return train, validation
