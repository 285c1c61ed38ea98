"""What a training run is made of: the network, its frozen encoders, the optimizer, accelerate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from rsvp.errors import BadInput
from rsvp.platform.extras import require
from rsvp.platform.pretrained import quiet
from rsvp.segmenters.sam2_weights import Preprocessing, load_sam2
from rsvp.segmenters.text_encoder import TextEncoder
from rsvp.segmenters.vlsm import Vlsm, build, from_pretrained
from rsvp.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Components:
    """The network to train and what it was built on."""

    net: Vlsm
    text: TextEncoder
    preprocessing: Preprocessing
    sam2: str  # the folder or hub id of its SAM 2


def load_components(config: TrainConfig) -> Components:
    """The VLSM that `config.segmenter` names, or a new one on the SAM 2 that it names."""
    name, _, model = config.segmenter.partition(":")
    if name == "vlsm" and model:
        loaded = from_pretrained(model)
        return Components(loaded.net, loaded.text, loaded.preprocessing, loaded.config.sam2.source)
    if name != "sam2" or not model:
        raise BadInput(f"train on sam2:MODEL, or continue vlsm:MODEL; found {config.segmenter!r}")
    sam2, preprocessing = load_sam2(model)
    text = TextEncoder(config.text_encoder)
    return Components(build(sam2, text, **config.fusion), text, preprocessing, model)


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

    Raises:
        MissingExtra: accelerate or TensorBoard is not installed.
        BadInput: the precision or the device is not available here.
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
