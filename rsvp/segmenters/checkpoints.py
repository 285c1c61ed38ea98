"""Official SAM 2 checkpoints as transformers' `Sam2Model`.

From https://github.com/facebookresearch/sam2, versions 2.0 and 2.1, tiny to large. The two projects
name the same weights differently; a table of rules turns one state dict into the other, strictly:
nothing is missing and nothing left over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rsvp.errors import ModelUnavailable
from rsvp.platform.pretrained import read_checkpoint as read_state
from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from transformers import (  # noqa: E402
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VisionConfig,
)

OFFICIAL_SIZE = 1024  # side of the square input of every official model

# In order, each applied to the result of the one before: an official name -> transformers' name.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
        (r"\.out_proj\.", ".o_proj."),
        # Two-layer MLPs of the blocks, three-layer MLPs of the heads.
        (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
        (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
        (r"(_head|_mlps\.\d+)\.layers\.0\.", r"\1.proj_in."),
        (r"(_head|_mlps\.\d+)\.layers\.1\.", r"\1.layers.0."),
        (r"(_head|_mlps\.\d+)\.layers\.2\.", r"\1.proj_out."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (
            r"\.pe_layer\.positional_encoding_gaussian_matrix$",
            ".shared_embedding.positional_embedding",
        ),
    )
)

# What only the video predictor uses: the memory and the object pointers.
_VIDEO_ONLY = re.compile(
    r"^(memory_attention\.|memory_encoder\.|maskmem_tpos_enc$|no_mem_pos_enc$|no_obj_ptr$|"
    r"no_obj_embed_spatial$|obj_ptr_proj\.|obj_ptr_tpos_proj\.|mask_downsample\.)"
)

SIZES = ("tiny", "small", "base-plus", "large")

# (width of the first stage, number of blocks) -> the hiera that has them, in the order of SIZES;
# 2.0 and 2.1 are the same.
_HIERA: dict[tuple[int, int], dict[str, Any]] = {
    (96, 12): {"blocks_per_stage": [1, 2, 7, 2], "global_attention_blocks": [5, 7, 9]},
    (96, 16): {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    (112, 24): {
        "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_positional_embedding_background_size": [14, 14],
    },
    (144, 48): {
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}


def rename_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turn an official state dict into that of transformers' `Sam2Model`; unknown names stay.

    The four point embeddings become one table, and the matrix of position frequencies is kept
    twice, as transformers does; weights of the video predictor are left out.
    """
    renamed = {_rename(key): value for key, value in state.items() if not _VIDEO_ONLY.match(key)}
    points = [f"prompt_encoder.point_embeddings.{index}.weight" for index in range(4)]
    if all(key in renamed for key in points):
        renamed["prompt_encoder.point_embed.weight"] = torch.cat([renamed.pop(k) for k in points])
    frequencies = "prompt_encoder.shared_embedding.positional_embedding"
    if frequencies in renamed:
        renamed["shared_image_embedding.positional_embedding"] = renamed[frequencies].clone()
    return renamed


def _rename(key: str) -> str:
    for pattern, replacement in _RULES:
        key = pattern.sub(replacement, key)
    return key


def official_size(state: Mapping[str, torch.Tensor]) -> str:
    """Which of `SIZES` an official state dict is, found from its shapes.

    Raises:
        ValueError: it is none of them.
    """
    position = state.get("image_encoder.trunk.pos_embed")
    if position is None or position.ndim != 4:
        raise ValueError("it lacks image_encoder.trunk.pos_embed")
    blocks = {match[1] for key in state if (match := re.match(r".*trunk\.blocks\.(\d+)\.", key))}
    shape = (position.shape[1], len(blocks))
    if shape not in _HIERA:
        raise ValueError(f"no SAM 2 has {shape[1]} blocks from width {shape[0]} on")
    return SIZES[list(_HIERA).index(shape)]


def official_config(state: Mapping[str, torch.Tensor]) -> Sam2Config:
    """The config of an official state dict, found from its shapes.

    Raises:
        ValueError: it is none of hiera tiny, small, base plus and large.
    """
    (width, _), hiera = list(_HIERA.items())[SIZES.index(official_size(state))]
    return _config(width, hiera)


def random_sam2(size: str) -> tuple[Sam2Model, int]:
    """An official architecture, one of `SIZES`, with random weights, and its input's side."""
    (width, _), hiera = list(_HIERA.items())[SIZES.index(size)]
    return Sam2Model(_config(width, hiera)), OFFICIAL_SIZE


def _config(width: int, hiera: dict[str, Any]) -> Sam2Config:
    widths = [width, 2 * width, 4 * width, 8 * width]
    backbone = Sam2HieraDetConfig(hidden_size=width, embed_dim_per_stage=widths, **hiera)
    vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1])
    return Sam2Config(vision_config=vision)


def load_official(path: Path) -> Sam2Model:
    """Read an official `.pt` file, on the CPU, in float32. Nothing in the file is executed.

    Raises:
        ModelUnavailable: unreadable, or not SAM 2; the first differing names are in the message.
    """
    state = read_state(path, "SAM 2")
    try:
        config = official_config(state)
    except ValueError as error:
        raise ModelUnavailable(f"{path} is no official SAM 2 checkpoint: {error}") from error
    with torch.device("meta"):  # every weight is about to be replaced: make none
        net = Sam2Model(config)
    renamed = {key: value.float() for key, value in rename_official(state).items()}
    if fault := difference(net.state_dict(), renamed):
        raise ModelUnavailable(f"{path} is no official SAM 2 checkpoint: {fault}")
    net.load_state_dict(renamed, assign=True)
    return net


def difference(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> str | None:
    """The first missing, unexpected and misshapen names, or None."""
    parts = []
    if missing := [key for key in expected if key not in found]:
        parts.append(f"{len(missing)} weights are missing (first {missing[0]})")
    if unexpected := [key for key in found if key not in expected]:
        parts.append(f"{len(unexpected)} are unexpected (first {unexpected[0]})")
    for key in expected.keys() & found.keys():
        if expected[key].shape != found[key].shape:
            shapes = f"{tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
            parts.append(f"{key} is {shapes}")
            break
    return "; ".join(parts) or None
