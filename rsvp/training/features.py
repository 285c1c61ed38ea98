"""The features of SAM 2's frozen image encoder, computed or read from a cache on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rsvp.platform.files import atomic_write
from rsvp.platform.pretrained import weights_digest
from rsvp.training.batches import TrainingBatch
from rsvp.training.data import source_digest
from rsvp.training.samples import TrainingDataset


class FeatureCache:
    """Features of images on disk, in bfloat16, a file per image.

    Args:
        key: everything that the features depend on besides the image's index.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, indices: Sequence[int]) -> list[Tensor] | None:
        """(B, C, h, w) float32 per level; None unless all of them are there."""
        rows = []
        for index in indices:
            try:
                rows.append(load_file(self._file(index)))
            except (OSError, SafetensorError):
                return None
        names = sorted(rows[0], key=int)
        return [torch.stack([row[name].float() for row in rows]) for name in names]

    def put(self, indices: Sequence[int], features: Sequence[Tensor]) -> None:
        for row, index in enumerate(indices):
            levels = {
                str(number): level[row].detach().to("cpu", torch.bfloat16).contiguous()
                for number, level in enumerate(features)
            }
            atomic_write(self._file(index), save(levels))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index // 1000:06d}-{index % 1000:03d}.safetensors"


class FrozenEncoder:
    """The frozen image encoder of a `transformers.Sam2Model`; `cache` is a folder or None."""

    def __init__(
        self, sam2: Any, dataset: TrainingDataset, accelerator: Any, cache: str | None
    ) -> None:
        self.sam2, self.accelerator, self.cache = sam2, accelerator, None
        if cache is not None:
            key = [source_digest(dataset.source), dataset.seed, dataset.config]
            key += [dataset.preprocessing, accelerator.mixed_precision]
            self.cache = FeatureCache(Path(cache), f"{key} {weights_digest(sam2.vision_encoder)}")

    def features(self, batch: TrainingBatch) -> list[Tensor]:
        """(B, C, h, w) per level, high to low resolution."""
        if self.cache and (cached := self.cache.get(batch.indices)) is not None:
            return [level.to(self.accelerator.device) for level in cached]
        with self.accelerator.autocast():
            features: list[Tensor] = self.sam2.get_image_embeddings(batch.pixels)
        if self.cache:
            self.cache.put(batch.indices, features)
            features = [level.to(torch.bfloat16).float() for level in features]  # as cached ones
        return features
