"""Small SAM 3, HQ-SAM and EdgeTAM networks with random weights, in folders as they are published.

facebook/sam3 and yonigozlan/EdgeTAM-hf hold a video model's config.json and weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import tiny_tokenizer
from tiny_sam2 import randomize
from transformers.utils import is_timm_available

from rsvp.platform.pretrained import transformers

SAM3_SIZE, HQ_SIZE = 112, 64
DECODER = {
    "hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
}  # fmt: skip
BLOCKS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_layers": 1}
DETR = {
    "geometry_encoder_config": BLOCKS,
    "detr_encoder_config": BLOCKS,
    "detr_decoder_config": {**BLOCKS, "num_queries": 12},
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
}


def sam3_vision(size: int = SAM3_SIZE) -> dict[str, Any]:
    """56 pixels at pretraining, windows of 2 x 2 cells and global attention."""
    cells = size // 14
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": size,
        "pretrain_image_size": 56, "window_size": 2, "global_attn_indexes": [1],
    }  # fmt: skip
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[cells * n, cells * n] for n in (4, 2, 1)],
    }


def save_sam3(folder: Path) -> Path:
    """A `Sam3VideoModel`, detector and tracker, as facebook/sam3 holds it."""
    text = {
        "model_type": "clip_text_model", "vocab_size": 259, "hidden_size": 32, "pad_token_id": 256,
        "bos_token_id": 257, "eos_token_id": 258, "intermediate_size": 64, "projection_dim": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
        "hidden_act": "gelu",
    }  # fmt: skip
    detector = {"vision_config": sam3_vision(), "text_config": text, **DETR}
    tracker = {
        "vision_config": sam3_vision(),
        "prompt_encoder_config": {"hidden_size": 32, "image_size": SAM3_SIZE},
        "mask_decoder_config": DECODER,
        "image_size": SAM3_SIZE,
        "memory_attention_hidden_size": 32,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_num_attention_heads": 1,
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
    }
    torch.manual_seed(0)
    config = transformers.Sam3VideoConfig(detector_config=detector, tracker_config=tracker)
    _save(transformers.Sam3VideoModel(config), folder)
    return _sam3_files(folder)


def save_sam3_lite(folder: Path) -> Path:
    """A `Sam3LiteTextModel` as yonigozlan/sam3-litetext-s0 holds it."""
    text = {
        "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "projection_dim": 32,
        "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 32,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Sam3LiteTextConfig(vision_config=sam3_vision(), text_config=text, **DETR)
    _save(transformers.Sam3LiteTextModel(config), folder)
    return _sam3_files(folder)


def _sam3_files(folder: Path) -> Path:
    _settings(folder, "Sam3ImageProcessor", {"height": SAM3_SIZE, "width": SAM3_SIZE}, [0.5] * 3)
    tokens = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    tiny_tokenizer([*tokens.values()], "", **tokens).save_pretrained(folder)
    return folder


def save_sam_hq(folder: Path) -> Path:
    """A `SamHQModel` as syscv-community/sam-hq-vit-base holds it."""
    vision = {
        "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": HQ_SIZE, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 16,
        "mlp_dim": 64,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.SamHQConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": HQ_SIZE},
        mask_decoder_config={**DECODER, "vit_dim": 32},
    )
    _save(transformers.SamHQModel(config), folder)
    _settings(folder, "SamImageProcessor", {"longest_edge": HQ_SIZE}, None)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["pad_size"] = {"height": HQ_SIZE, "width": HQ_SIZE}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


class TinyBackboneConfig(transformers.PretrainedConfig):
    """In place of timm's RepViT, for which transformers needs torchvision."""

    model_type = "tiny_backbone"


class TinyBackbone(transformers.PreTrainedModel):
    """Four levels, as RepViT's; `last_hidden_state` is the list of them."""

    config_class = TinyBackboneConfig

    def __init__(self, config: TinyBackboneConfig) -> None:
        super().__init__(config)
        widths = (3, 48, 96, 192, 384)
        strides = (4, 2, 2, 2)
        self.stages = torch.nn.ModuleList(
            torch.nn.Conv2d(before, after, stride, stride)
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.post_init()

    def forward(self, pixels: torch.Tensor, **_: Any) -> Any:
        levels = []
        for stage in self.stages:
            pixels = torch.tanh(stage(pixels))
            levels.append(pixels)
        output = transformers.modeling_outputs.BaseModelOutput
        return output(last_hidden_state=levels, hidden_states=None)  # type: ignore[arg-type]


transformers.AutoConfig.register("tiny_backbone", TinyBackboneConfig)
transformers.AutoModel.register(TinyBackboneConfig, TinyBackbone)


def save_edgetam(folder: Path, size: int = 128) -> Path:
    """An `EdgeTamModel` as yonigozlan/EdgeTAM-hf holds it; with timm's RepViT where that runs."""
    vision: dict[str, Any] = {
        "model_type": "edgetam_vision_model",
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[size // s, size // s] for s in (4, 8, 16)],
        "backbone_config": {"model_type": "tiny_backbone"},
    }
    if is_timm_available():
        arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        vision["backbone_config"] = {
            "model_type": "timm_wrapper", "architecture": "repvit_m1", "model_args": arguments,
            "num_classes": 2, "label_names": ["one", "two"],
        }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.EdgeTamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": size},
        mask_decoder_config=DECODER,
    )
    _save(transformers.EdgeTamModel(config), folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "edgetam_video"}))
    _settings(folder, "Sam2ImageProcessor", {"height": size, "width": size}, None)
    return folder


def _save(net: Any, folder: Path) -> None:
    randomize(net)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_().add_(0.5)
    # Both tables of position frequencies are one in every real checkpoint.
    for part in (net, getattr(net, "tracker_model", None)):
        if hasattr(part, "shared_image_embedding"):
            with torch.no_grad():
                part.shared_image_embedding.positional_embedding.copy_(
                    part.prompt_encoder.shared_embedding.positional_embedding
                )
    net.config.save_pretrained(folder)
    # transformers 5.23 would write tracker_model.tracker_model; the published names are these.
    weights = {name: weight.clone() for name, weight in net.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _settings(folder: Path, name: str, size: dict[str, int], mean: list[float] | None) -> None:
    settings: dict[str, Any] = {"image_processor_type": name, "size": size}
    if mean:
        settings |= {"image_mean": mean, "image_std": mean}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


SAVE = {"sam3": save_sam3, "sam-hq": save_sam_hq, "edgetam": save_edgetam}
