"""What a training run is made of: the network, its frozen encoders, the optimizer, accelerate.

The features of SAM 2's frozen image encoder are computed, or read from a cache on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rsvp.errors import BadInput
from rsvp.platform.extras import require
from rsvp.platform.files import atomic_write
from rsvp.platform.pretrained import quiet, weights_digest
from rsvp.segmenters.networks import KINDS, Preprocessing, load_base
from rsvp.segmenters.text_encoder import TextEncoder
from rsvp.segmenters.vlsm import Vlsm, build, from_pretrained
from rsvp.training.batches import TrainingBatch
from rsvp.training.config import TrainConfig
from rsvp.training.data import source_digest
from rsvp.training.samples import TrainingDataset


@dataclass(frozen=True, slots=True)
class Components:
    """The network to train and what it was built on."""

    net: Vlsm
    text: TextEncoder
    preprocessing: Preprocessing
    sam2: str  # the source of its SAM 2, see `load_base`


def load_components(config: TrainConfig) -> Components:
    """The VLSM that `config.segmenter` names, or a new one on the SAM 2 that it names."""
    name, _, model = config.segmenter.partition(":")
    if name == "vlsm" and model:
        loaded = from_pretrained(model)
        return Components(loaded.net, loaded.text, loaded.preprocessing, loaded.config.sam2.source)
    if name not in KINDS or not model:
        raise BadInput(
            "train on sam2:MODEL, sam3:MODEL or edgetam:MODEL, or continue vlsm:MODEL; "
            f"found {config.segmenter!r}"
        )
    sam2, preprocessing = load_base(config.segmenter)
    text = TextEncoder(config.text_encoder)
    source = config.segmenter.removeprefix("sam2:")
    return Components(build(sam2, text, **config.fusion), text, preprocessing, source)


def make_optimizer(net: Vlsm, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW on the fusion; no weight decay on biases, norms and learned tokens."""
    decayed: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, p in net.fusion.named_parameters():
        decayed[p.ndim == 2 and name.endswith("weight")].append(p)
    groups = [
        {"params": decayed[True], "weight_decay": config.weight_decay},
        {"params": decayed[False], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def make_accelerator(
    precision: str, accumulate: int, device: str | None, out: Path | None = None
) -> Any:
    """An `accelerate.Accelerator`, which logs to TensorBoard in `out`.

    Raises MissingExtra without accelerate or TensorBoard, BadInput for a precision or a device that
    is not available here.
    """
    require("accelerate", "train", "training")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    if out is not None:
        require("tensorboard", "train", "TensorBoard")  # accelerate would leave it out silently
    AcceleratorState._reset_state()  # an earlier run of this process may have had other settings
    # A plugin, since `accelerate launch` overrides a plain number of steps by its own.
    accumulation = GradientAccumulationPlugin(num_steps=accumulate, sync_with_dataloader=False)
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            gradient_accumulation_plugin=accumulation,
            cpu=device == "cpu",
            log_with=None if out is None else "tensorboard",
            project_dir=out,
        )
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            f"{precision} is not available here: {str(error).splitlines()[0]}"
        ) from error
    if device is not None and device.partition(":")[0] != accelerator.device.type:
        raise BadInput(f"the device {device} is not available here; {accelerator.device.type} is")
    return accelerator


def attention_kernels(net: Vlsm, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The attention kernels for training: on a CPU the fused one is 3 times slower backward."""
    if device.type != "cpu":
        return contextlib.nullcontext()
    with quiet():  # transformers warns of parts of SAM 2 that do support the setting
        net.sam2.set_attn_implementation("eager")
    kernel: contextlib.AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return kernel


class FeatureCache:
    """Features of images on disk, in bfloat16, a file per image.

    `key` names everything that the features depend on besides the image's index.
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
