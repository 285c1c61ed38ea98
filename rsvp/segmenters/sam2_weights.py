"""Official SAM 2 checkpoints (`.pt`) as transformers' `Sam2Model` in float32.

From https://github.com/facebookresearch/sam2, versions 2.0 and 2.1, tiny to large. The two projects
name the same weights differently; a table of rules renames one state dict into the other, strictly:
no weight is missing and none is left over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rsvp.platform.pretrained import (
    check_state_dict,
    read_checkpoint,
    reading,
    rename,
    transformers,
)

OFFICIAL_SIZE = 1024  # side of the square input of every official model
SIZES = ("tiny", "small", "base-plus", "large")

# Official names -> transformers' names.
_RULES = (
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
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
)

# The memory and the object pointers, which only the video predictor uses.
_VIDEO_ONLY = re.compile(
    r"^(memory_attention\.|memory_encoder\.|maskmem_tpos_enc$|no_mem_pos_enc$|no_obj_ptr$|"
    r"no_obj_embed_spatial$|obj_ptr_proj\.|obj_ptr_tpos_proj\.|mask_downsample\.)"
)

# (width of the first stage, number of blocks) -> config of the hiera, in the order of SIZES; the
# same for 2.0 and 2.1.
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
    """The state dict of transformers' `Sam2Model` from an official one; unknown names stay.

    The four point embeddings become one table, transformers has the matrix of position frequencies
    a second time, and weights of the video predictor are left out.
    """
    renamed = {rename(k, _RULES): v for k, v in state.items() if not _VIDEO_ONLY.match(k)}
    points = [f"prompt_encoder.point_embeddings.{index}.weight" for index in range(4)]
    if all(key in renamed for key in points):
        renamed["prompt_encoder.point_embed.weight"] = torch.cat([renamed.pop(k) for k in points])
    frequencies = "prompt_encoder.shared_embedding.positional_embedding"
    if frequencies in renamed:
        renamed["shared_image_embedding.positional_embedding"] = renamed[frequencies].clone()
    return renamed


def official_size(state: Mapping[str, torch.Tensor]) -> str:
    """Which of `SIZES` an official state dict has, by its shapes; ValueError if none."""
    position = state.get("image_encoder.trunk.pos_embed")
    if position is None or position.ndim != 4:
        raise ValueError("it lacks image_encoder.trunk.pos_embed")
    blocks = {match[1] for key in state if (match := re.match(r".*trunk\.blocks\.(\d+)\.", key))}
    shape = (position.shape[1], len(blocks))
    if shape not in _HIERA:
        raise ValueError(f"no SAM 2 has {shape[1]} blocks and a first stage of width {shape[0]}")
    return SIZES[list(_HIERA).index(shape)]


def official_config(size: str) -> transformers.Sam2Config:
    """The config of one of `SIZES`."""
    (width, _), hiera = list(_HIERA.items())[SIZES.index(size)]
    widths = [width, 2 * width, 4 * width, 8 * width]
    hiera = {"hidden_size": width, "embed_dim_per_stage": widths, **hiera}
    backbone = transformers.Sam2HieraDetConfig(**hiera)
    vision: Any = {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}
    return transformers.Sam2Config(vision_config=transformers.Sam2VisionConfig(**vision))


def load_official(path: Path) -> transformers.Sam2Model:
    """Read an official `.pt` file; ModelUnavailable, with the first differing names, if other."""
    state = read_checkpoint(path, "SAM 2")
    with reading(path, "SAM 2", official=True):
        config = official_config(official_size(state))
        with torch.device("meta"):  # every weight is replaced below
            net = transformers.Sam2Model(config)
        renamed = rename_official(state)
        check_state_dict(net.state_dict(), renamed)
    net.load_state_dict(renamed, assign=True)
    return net
