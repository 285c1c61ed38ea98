"""Batches of training samples: the same global batch at every step for any number of processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from rsvp.errors import BadInput
from rsvp.segmenters.point_prompts import BOTTOM_RIGHT, TOP_LEFT, PromptBatch
from rsvp.training.config import TrainConfig
from rsvp.training.samples import TrainingDataset, TrainingSample

POINT_ON_TARGET = 1  # the prompt encoder's label of a point


class TrainingBatch(NamedTuple):
    """B views and the N = B x P proposals on them."""

    indices: tuple[int, ...]  # the image of each view
    pixels: Tensor  # (B, 3, S, S) float32
    view: Tensor  # (N,) int64, the view of each proposal
    prompts: PromptBatch  # N of them
    texts: tuple[str, ...]  # N of them
    targets: Tensor  # (N, S / 2, S / 2) float32
    present: Tensor  # (N,) bool
    keep: Tensor  # (N,) bool, SAM 2's own masks are the target
    broken: tuple[str, ...]  # the skipped images, each with its cause

    @property
    def text_ids(self) -> Tensor:
        """(N,) int64, equal for equal texts."""
        ids = {text: number for number, text in enumerate(dict.fromkeys(self.texts))}
        return torch.tensor([ids[text] for text in self.texts], device=self.view.device)


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    points = torch.cat([sample.points for sample in samples])
    is_box = points.shape[1] == 2
    labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT] if is_box else [POINT_ON_TARGET])
    counts = torch.tensor([len(sample.texts) for sample in samples])
    return TrainingBatch(
        tuple(sample.index for sample in samples),
        torch.stack([sample.pixels for sample in samples]),
        torch.repeat_interleave(torch.arange(len(samples)), counts),
        PromptBatch(points, labels.expand(len(points), -1)),
        tuple(text for sample in samples for text in sample.texts),
        torch.cat([sample.targets for sample in samples]),
        torch.cat([sample.present for sample in samples]),
        torch.repeat_interleave(torch.tensor([sample.keep for sample in samples]), counts),
        tuple(cause for sample in samples for cause in sample.broken),
    )


def micro_batches(
    dataset: TrainingDataset,
    config: TrainConfig,
    first_step: int,
    *,
    workers: int,
    processes: int = 1,
    process_index: int = 0,
) -> Iterator[TrainingBatch]:
    """The micro-batches of one process, `config.accumulate` per step, from a step on.

    `workers` processes prepare them in advance. BadInput if no image can be used, or the batch is
    not divisible.
    """
    from accelerate.data_loader import BatchSamplerShard

    positions = range(first_step * config.batch, config.steps * config.batch)
    sampler = BatchSampler(positions, config.micro_batch(processes), drop_last=True)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=BatchSamplerShard(sampler, processes, process_index),
        collate_fn=_collate_or_error,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_init_worker,
    )
    for batch in loader:
        if isinstance(batch, BadInput):
            raise batch
        yield batch


def _collate_or_error(samples: list[TrainingSample] | BadInput) -> TrainingBatch | BadInput:
    return samples if isinstance(samples, BadInput) else collate(samples)


def _init_worker(_worker: int) -> None:
    """One thread; signals to the process group are left to the main process, which ends us."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
