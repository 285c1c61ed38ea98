"""Text encoders of every kind with small random weights, as folders that the hub could hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_tokenizer

from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from transformers import (  # noqa: E402
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    SiglipConfig,
    SiglipModel,
)

_SMALL = {
    "vocab_size": 259, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258,
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip


def bert(folder: Path, seed: int = 0) -> Path:
    """As masked-language checkpoints are: no pooler among the weights."""
    return _save(folder, BertForMaskedLM, BertConfig(**_SMALL), seed)


def clip_text(folder: Path, seed: int = 0) -> Path:
    """CLIP's text tower alone."""
    return _save(folder, CLIPTextModel, CLIPTextConfig(**_SMALL), seed)


def clip(folder: Path, seed: int = 0) -> Path:
    """All of CLIP."""
    config = CLIPConfig(text_config=_SMALL, vision_config=_VISION, projection_dim=16)
    return _save(folder, CLIPModel, config, seed)


def siglip(folder: Path, seed: int = 0) -> Path:
    """All of SigLIP."""
    config = SiglipConfig(text_config=_SMALL, vision_config=_VISION)
    return _save(folder, SiglipModel, config, seed)


def _save(folder: Path, model: Any, config: Any, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = model(config)
        for weight in net.parameters():  # some start as zeros, which tell nothing apart
            weight.data += 0.1 * torch.randn(weight.shape)
    net.save_pretrained(folder)
    tokens = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    tiny_tokenizer([*tokens.values()], "", **tokens).save_pretrained(folder)
    return folder
