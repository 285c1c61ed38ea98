"""Views to batches: the same global batch at every step, however it is split over processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rsvp.errors import BadInput
from rsvp.segmenters.point_prompts import BOTTOM_RIGHT, TOP_LEFT, PromptBatch
from rsvp.training.views import View, Views

ON_TARGET = 1  # the prompt encoder's label of a point


@dataclass(frozen=True, slots=True)
class Batch:
    """B views and the N = B x P proposals on them.

    Attributes:
        indices: the picture of each view.
        pixels: (B, 3, S, S) float32.
        view: (N,) int64, the view of each proposal.
        prompts: N of them.
        texts: N of them.
        targets: (N, s, s) float32.
        present: (N,) bool.
        keep: (N,) bool, SAM 2's own masks are the truth.
        broken: pictures that were passed over, each with its cause.
    """

    indices: tuple[int, ...]
    pixels: Tensor
    view: Tensor
    prompts: PromptBatch
    texts: tuple[str, ...]
    targets: Tensor
    present: Tensor
    keep: Tensor
    broken: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(
            self.indices,
            self.pixels.to(device, non_blocking=True),
            self.view.to(device),
            PromptBatch(self.prompts.coords.to(device), self.prompts.labels.to(device)),
            self.texts,
            self.targets.to(device, non_blocking=True),
            self.present.to(device),
            self.keep.to(device),
            self.broken,
        )

    @property
    def names(self) -> Tensor:
        """(N,) int64, the same number for the same text."""
        numbers = {text: number for number, text in enumerate(dict.fromkeys(self.texts))}
        return torch.tensor([numbers[text] for text in self.texts], device=self.view.device)

    @property
    def pointed(self) -> bool:
        """Whether the prompts are single points."""
        return self.prompts.single_point


def collate(numbered: Sequence[tuple[int, View]]) -> Batch:
    """One batch of views, each with the index of its picture."""
    views = [view for _, view in numbered]
    spots = torch.cat([view.spots for view in views])
    corners = spots.shape[1] == 2
    kinds = [TOP_LEFT, BOTTOM_RIGHT] if corners else [ON_TARGET]
    counts = torch.tensor([len(view.texts) for view in views])
    return Batch(
        tuple(index for index, _ in numbered),
        torch.stack([view.pixels for view in views]),
        torch.repeat_interleave(torch.arange(len(views)), counts),
        PromptBatch(spots, torch.tensor(kinds).expand(len(spots), -1)),
        tuple(text for view in views for text in view.texts),
        torch.cat([view.targets for view in views]),
        torch.cat([view.present for view in views]),
        torch.repeat_interleave(torch.tensor([view.keep for view in views]), counts),
        tuple(cause for view in views for cause in view.broken),
    )


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every global batch a process takes, in how many pieces.

    Attributes:
        batch: views a step, over all processes and pieces.
        processes, rank: how many there are, and which one this is.
        pieces: micro-batches of a process a step, whose gradients are added up.
    """

    batch: int
    processes: int = 1
    rank: int = 0
    pieces: int = 1

    def __post_init__(self) -> None:
        if self.batch % (self.processes * self.pieces):
            raise BadInput(
                f"a batch of {self.batch} does not divide into {self.processes} processes with "
                f"{self.pieces} pieces each"
            )

    @property
    def micro(self) -> int:
        """Views in one micro-batch."""
        return self.batch // (self.processes * self.pieces)

    def positions(self, first_step: int, steps: int) -> Iterator[list[int]]:
        """The positions of each micro-batch, from a step on."""
        for step in range(first_step, steps):
            for piece in range(self.pieces):
                start = step * self.batch + (piece * self.processes + self.rank) * self.micro
                yield list(range(start, start + self.micro))


Made = tuple[int, View] | BadInput


class _Numbered(Dataset[Made]):
    def __init__(self, views: Views) -> None:
        self.views = views

    def __getitem__(self, position: int) -> Made:
        try:
            return self.views.index(position), self.views[position]
        except BadInput as error:  # raised in a worker, it would come back with a traceback in it
            return error


def _collate(made: Sequence[Made]) -> Batch | BadInput:
    views = []
    for one in made:
        if isinstance(one, BadInput):
            return one
        views.append(one)
    return collate(views)


class _Ahead(Sampler[list[int]]):
    def __init__(self, share: Share, first_step: int, steps: int) -> None:
        self.share, self.first, self.steps = share, first_step, steps

    def __iter__(self) -> Iterator[list[int]]:
        return self.share.positions(self.first, self.steps)

    def __len__(self) -> int:
        return (self.steps - self.first) * self.share.pieces


def batches(
    views: Views, share: Share, first_step: int, steps: int, *, workers: int
) -> Iterator[Batch]:
    """The micro-batches of this process, from a step on; made ahead by `workers` processes.

    Raises:
        BadInput: no picture can be used.
    """
    made = DataLoader(
        _Numbered(views),
        batch_sampler=_Ahead(share, first_step, steps),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
    )
    for batch in made:
        if isinstance(batch, BadInput):
            raise batch
        yield batch


def _begin_worker(_worker: int) -> None:
    """One thread; a signal to all is the main process's to heed, which then ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class FeatureCache:
    """Features of views on disk, in bfloat16: where pictures come again, the encoder rests.

    Args:
        folder: of this cache.
        key: what the features depend on besides the picture: another key is another cache.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / key[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, indices: Sequence[int]) -> list[Tensor] | None:
        """(B, C, h, w) float32 a level, None unless all are there."""
        rows = []
        for index in indices:
            try:
                rows.append(load_file(self._file(index)))
            except (OSError, SafetensorError):
                return None
        names = sorted(rows[0], key=int)
        return [torch.stack([row[name].float() for row in rows]) for name in names]

    def put(self, indices: Sequence[int], features: Sequence[Tensor]) -> None:
        """Keep the features of views; a kill halfway leaves no torn file."""
        for row, index in enumerate(indices):
            levels = {
                str(number): level[row].detach().to("cpu", torch.bfloat16).contiguous()
                for number, level in enumerate(features)
            }
            draft = self._file(index).with_suffix(f".{os.getpid()}.part")
            save_file(levels, draft)
            draft.replace(self._file(index))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index // 1000:06d}-{index % 1000:03d}.safetensors"
