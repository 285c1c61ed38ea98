"""The parts of a training run: the network, its frozen halves, the optimiser, the kernels."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rsvp.errors import BadInput
from rsvp.platform.pretrained import weights_digest
from rsvp.segmenters.sam2_weights import Preprocessing, load_sam2
from rsvp.segmenters.text_encoder import TextEncoder
from rsvp.segmenters.vlsm import Vlsm, build, from_pretrained
from rsvp.training.batches import Batch, FeatureCache
from rsvp.training.pictures import signature
from rsvp.training.plan import Plan
from rsvp.training.views import Views


@dataclass(frozen=True, slots=True)
class Parts:
    """The network in training and what it needs.

    Attributes:
        sam2: where its SAM 2 came from.
    """

    net: Vlsm
    text: TextEncoder
    preprocessing: Preprocessing
    sam2: str


def load_parts(plan: Plan) -> Parts:
    name, _, model = plan.segmenter.partition(":")
    if name == "vlsm" and model:
        loaded = from_pretrained(model)
        return Parts(loaded.net, loaded.text, loaded.preprocessing, loaded.config.sam2.source)
    if name != "sam2" or not model:
        raise BadInput(f"train on sam2:MODEL, or go on from vlsm:MODEL; found {plan.segmenter!r}")
    sam2, preprocessing = load_sam2(model)
    text = TextEncoder(plan.text_encoder)
    return Parts(build(sam2, text, **plan.fusion), text, preprocessing, model)


def make_optimizer(net: Vlsm, plan: Plan) -> torch.optim.Optimizer:
    """AdamW; no decay on biases, norms, learned tokens."""
    named = list(net.fusion.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and name.endswith("weight")]
    chosen = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98))


def kernels(net: Vlsm, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The attention kernels to train with: on a CPU the fused one is 3 times slower backward."""
    if device.type != "cpu":
        return contextlib.nullcontext()
    warner = logging.getLogger("transformers.modeling_utils")
    level = warner.level
    warner.setLevel(logging.ERROR)  # it warns of parts of SAM 2 that take the setting very well
    try:
        net.sam2.set_attn_implementation("eager")
    finally:
        warner.setLevel(level)
    plain: contextlib.AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return plain


def set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


class Encoder:
    """The frozen half of a step; it rests where its features are known."""

    def __init__(self, parts: Parts, views: Views, accelerator: Any, cache: str | None) -> None:
        self.net, self.accelerator = parts.net, accelerator
        self.cache: FeatureCache | None = None
        if cache is not None:
            weights = weights_digest(parts.net.sam2.vision_encoder)
            precision = accelerator.mixed_precision
            drawn = repr(
                [signature(views.pictures), views.seed, views.mix, parts.preprocessing, precision]
            ).encode()
            self.cache = FeatureCache(
                Path(cache), weights_digest(torch.nn.Module(), drawn + weights.encode())
            )

    def features(self, batch: Batch) -> list[Tensor]:
        """(B, C, h, w) a level, high to low resolution."""
        known = self.cache.get(batch.indices) if self.cache else None
        if known is not None:
            return [level.to(self.accelerator.device) for level in known]
        with self.accelerator.autocast():
            found: list[Tensor] = self.net.sam2.get_image_embeddings(batch.pixels)
        if self.cache:
            self.cache.put(batch.indices, found)
            found = [level.to(torch.bfloat16).float() for level in found]  # as the cache gives them
        return found
