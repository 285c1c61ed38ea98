"""Official Grounding DINO checkpoints (`.pth`) as transformers' `GroundingDinoForObjectDetection`.

From https://github.com/IDEA-Research/GroundingDINO: `groundingdino_swint_ogc.pth`,
`groundingdino_swinb_cogcoor.pth` and what was fine-tuned from them. The two projects name the same
weights differently; a table of rules renames one state dict into the other, strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rsvp.errors import ModelUnavailable
from rsvp.platform.pretrained import non_finite, read_checkpoint, reading, rename, transformers

# Official names -> the names in the hub's checkpoints, which every release of transformers reads.
_RULES = (
    (r"^backbone\.0\.patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^backbone\.0\.patch_embed\.norm\.", "swin.embeddings.norm."),
    *(
        (rf"^backbone\.0\.norm{stage}\.", f"swin.hidden_states_norms.stage{stage + 1}.")
        for stage in range(4)
    ),
    (r"^backbone\.0\.layers\.", "swin.encoder.layers."),
    (r"^(swin\..*blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"^(swin\..*blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"^(swin\..*)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"^(swin\..*)\.attn\.", r"\1.attention.self."),
    (r"^(swin\..*)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(swin\..*)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^swin\.", "model.backbone.conv_encoder.model."),
    (r"^bert\.", "model.text_backbone."),
    (r"^feat_map\.", "model.text_projection."),
    (r"^input_proj\.", "model.input_proj_vision."),
    (r"^transformer\.level_embed$", "model.level_embed"),
    (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
    (r"^transformer\.enc_output", "model.enc_output"),
    (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
    # Each layer of the encoder has three parts.
    *(
        (rf"^transformer\.encoder\.{official}\.(\d+)\.", rf"model.encoder.layers.\1.{part}.")
        for official, part in (
            ("layers", "deformable_layer"),
            ("text_layers", "text_enhancer_layer"),
            ("fusion_layers", "fusion_layer"),
        )
    ),
    (r"(deformable_layer)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(deformable_layer)\.norm2\.", r"\1.final_layer_norm."),
    (r"(text_enhancer_layer)\.norm1\.", r"\1.layer_norm_before."),
    (r"(text_enhancer_layer)\.norm2\.", r"\1.layer_norm_after."),
    (r"(fusion_layer)\.gamma_v$", r"\1.vision_param"),
    (r"(fusion_layer)\.gamma_l$", r"\1.text_param"),
    (r"(fusion_layer)\.layer_norm_v\.", r"\1.layer_norm_vision."),
    (r"(fusion_layer)\.layer_norm_l\.", r"\1.layer_norm_text."),
    (r"(fusion_layer\.attn)\.(values_|out_|)v_proj\.", r"\1.\2vision_proj."),
    (r"(fusion_layer\.attn)\.(values_|out_|)l_proj\.", r"\1.\2text_proj."),
    # The decoder.
    (r"^transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
    (r"^transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
    (r"^transformer\.decoder\.", "model.decoder."),
    (r"^(model\.decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.cross_attn\.", r"\1.encoder_attn."),
    (r"^(model\.decoder\.layers\.\d+)\.ca_text\.", r"\1.encoder_attn_text."),
    (r"^(model\.decoder\.layers\.\d+)\.catext_norm\.", r"\1.encoder_attn_text_layer_norm."),
    (r"\.linear(\d)\.", r".fc\1."),
)

# The official loader leaves them out, too: a table of the training, indices that follow from the
# window size, and BERT's pooler, whose output nothing uses.
_UNUSED = re.compile(
    r"^label_enc\.|^bert\.embeddings\.position_ids$|^bert\.pooler\.|relative_position_index$|"
    r"attn_mask$"
)
# One matrix for query, key and value.
_PACKED = re.compile(r"(?P<stem>.*\.)(?P<packed>in_proj_|qkv\.)(?P<part>weight|bias)")


def read_official(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their official names; see `read_checkpoint`."""
    found = read_checkpoint(path, "Grounding DINO")
    state = {name.removeprefix("module."): value for name, value in found.items()}
    for needed in ("transformer.level_embed", "backbone.0.patch_embed.proj.weight"):
        if needed not in state:
            raise ModelUnavailable(
                f"{path} is no official Grounding DINO checkpoint: it lacks {needed}"
            )
    return state


def inference_weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that inference needs."""
    return {key: value for key, value in state.items() if not _UNUSED.search(key)}


def rename_official(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of the hub's checkpoints from an official one; unknown names stay."""
    renamed = {}
    for key, value in inference_weights(state).items():
        if match := _PACKED.fullmatch(key):
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[rename(f"{match['stem']}{name}.{match['part']}", _RULES)] = part.clone()
        else:
            renamed[rename(key, _RULES)] = value
    return renamed


def official_config(
    state: Mapping[str, torch.Tensor], bert: Any
) -> transformers.GroundingDinoConfig:
    """The config of an official state dict, by its shapes.

    Every official checkpoint has four sampling points a head and feature level.

    Args:
        bert: the `BertConfig` of its text encoder.

    Raises:
        KeyError, ValueError: names or shapes that no Grounding DINO has.
    """
    levels, width = state["transformer.level_embed"].shape
    points = 4
    weights = state["transformer.encoder.layers.0.self_attn.attention_weights.bias"]
    heads = len(weights) // (levels * points)
    return transformers.GroundingDinoConfig(
        backbone_config=_swin_config(state),
        text_config=bert,
        d_model=width,
        num_queries=len(state["transformer.tgt_embed.weight"]),
        num_feature_levels=levels,
        encoder_layers=_count(state, r"transformer\.encoder\.layers\.(\d+)\."),
        decoder_layers=_count(state, r"transformer\.decoder\.layers\.(\d+)\."),
        encoder_ffn_dim=len(state["transformer.encoder.layers.0.linear1.bias"]),
        decoder_ffn_dim=len(state["transformer.decoder.layers.0.linear1.bias"]),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_n_points=points,
        decoder_n_points=points,
    )


def _swin_config(state: Mapping[str, torch.Tensor]) -> Any:
    """The table of position biases has (2 w - 1)² rows, w the window, and a column a head."""
    stages = range(_count(state, r"backbone\.0\.layers\.(\d+)\."))
    tables = [
        state[f"backbone.0.layers.{stage}.blocks.0.attn.relative_position_bias_table"].shape
        for stage in stages
    ]
    make: Any = transformers.SwinConfig  # its out_features is unknown to the type checker
    return make(
        embed_dim=len(state["backbone.0.patch_embed.proj.bias"]),
        depths=[_count(state, rf"backbone\.0\.layers\.{n}\.blocks\.(\d+)\.") for n in stages],
        num_heads=[columns for _, columns in tables],
        window_size=(round(tables[0][0] ** 0.5) + 1) // 2,
        out_features=[f"stage{n + 1}" for n in stages if f"backbone.0.norm{n}.weight" in state],
    )


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    """How many different numbers the names have in the pattern's group."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def load_official(path: Path, bert: Any) -> Any:
    """An official `.pth` file as transformers' network, on the CPU, in float32, for inference.

    Args:
        bert: the `BertConfig` of its text encoder.

    Raises:
        ModelUnavailable: unreadable, or not Grounding DINO; names the first weight that differs.
    """
    state = read_official(path)
    load: Any = transformers.GroundingDinoForObjectDetection.from_pretrained
    with reading(path, "Grounding DINO", official=True):
        config = official_config(state, bert)
        renamed = rename_official(state)
        if broken := non_finite(renamed):
            raise ValueError(f"it holds weights that are not finite, first {broken}")
        network, info = load(None, config=config, state_dict=renamed, output_loading_info=True)
        for fault in ("missing", "unexpected", "mismatched"):
            if names := sorted(map(str, info[f"{fault}_keys"])):
                raise ValueError(f"{len(names)} weights are {fault}, first {names[0]}")
    return network.eval()
