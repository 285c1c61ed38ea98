"""Official `.pt` files: the names of Meta's repository, made here from random networks."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch

from rsvp.errors import ModelUnavailable
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.promptable import Encoding
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.sam2_weights import (
    load_official,
    official_config,
    official_size,
    rename_official,
)
from rsvp.types import Box, Proposal

hide_broken_torchvision()

from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig  # noqa: E402

# transformers' name -> official name, written from Meta's modules (hieradet.py, image_encoder.py,
# prompt_encoder.py, mask_decoder.py, transformer.py), not from the rules under test.
PREFIXES = {
    "vision_encoder.backbone.": "image_encoder.trunk.",
    "vision_encoder.neck.": "image_encoder.neck.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
}
PARTS = {
    "prompt_encoder.mask_embed.conv1": "prompt_encoder.mask_downscaling.0",
    "prompt_encoder.mask_embed.layer_norm1": "prompt_encoder.mask_downscaling.1",
    "prompt_encoder.mask_embed.conv2": "prompt_encoder.mask_downscaling.3",
    "prompt_encoder.mask_embed.layer_norm2": "prompt_encoder.mask_downscaling.4",
    "prompt_encoder.mask_embed.conv3": "prompt_encoder.mask_downscaling.6",
    "mask_decoder.upscale_conv1": "mask_decoder.output_upscaling.0",
    "mask_decoder.upscale_layer_norm": "mask_decoder.output_upscaling.1",
    "mask_decoder.upscale_conv2": "mask_decoder.output_upscaling.3",
    "patch_embed.projection": "patch_embed.proj",
    "shared_embedding.positional_embedding": "pe_layer.positional_encoding_gaussian_matrix",
    "layer_norm_final_attn": "norm_final_attn",
    ".o_proj.": ".out_proj.",
}


def official_name(key: str) -> str:
    if key == "no_memory_embedding":
        return "no_mem_embed"
    for ours, theirs in PARTS.items():
        key = key.replace(ours, theirs)
    for ours, theirs in PREFIXES.items():
        key = theirs + key.removeprefix(ours) if key.startswith(ours) else key
    key = re.sub(r"\.layer_norm(\d)\.", r".norm\1.", key)
    key = re.sub(r"(neck\.convs\.\d)\.", r"\1.conv.", key)
    if ".mlp." in key:
        return key.replace("proj_in", "layers.0").replace("proj_out", "layers.1")
    if "_head." in key or "_mlps." in key:
        key = key.replace(".layers.0.", ".layers.1.")
        return key.replace("proj_in", "layers.0").replace("proj_out", "layers.2")
    return key


def to_official(net: Sam2Model) -> dict[str, torch.Tensor]:
    """A network's weights under their official names, with some of the video predictor's."""
    state = {official_name(key): value.clone() for key, value in net.state_dict().items()}
    del state["shared_image_embedding.positional_embedding"]
    table = state.pop("sam_prompt_encoder.point_embed.weight")
    for index, row in enumerate(table):
        state[f"sam_prompt_encoder.point_embeddings.{index}.weight"] = row[None]
    state |= {
        "maskmem_tpos_enc": torch.zeros(7, 1, 1, 64),
        "no_mem_pos_enc": torch.zeros(1, 1, 256),
        "no_obj_ptr": torch.zeros(1, 256),
        "no_obj_embed_spatial": torch.zeros(1, 64),
        "obj_ptr_proj.layers.0.weight": torch.zeros(2, 2),
        "obj_ptr_tpos_proj.weight": torch.zeros(2, 2),
        "mask_downsample.weight": torch.zeros(1, 1, 4, 4),
        "memory_encoder.fuser.layers.0.gamma": torch.zeros(2),
        "memory_attention.layers.0.norm1.weight": torch.zeros(2),
    }
    return state


def configs() -> dict[str, Sam2Config]:
    """The four sizes, from the official YAML files."""

    def config(width: int, **hiera: object) -> Sam2Config:
        widths = [width, 2 * width, 4 * width, 8 * width]
        backbone = Sam2HieraDetConfig(hidden_size=width, embed_dim_per_stage=widths, **hiera)
        return Sam2Config(
            vision_config=Sam2VisionConfig(
                backbone_config=backbone, backbone_channel_list=widths[::-1]
            )
        )

    heads = [2, 4, 8, 16]
    return {
        "tiny": config(96),
        "small": config(96, blocks_per_stage=[1, 2, 11, 2], global_attention_blocks=[7, 10, 13]),
        "base_plus": config(
            112,
            blocks_per_stage=[2, 3, 16, 3],
            global_attention_blocks=[12, 16, 20],
            num_attention_heads_per_stage=heads,
            window_positional_embedding_background_size=[14, 14],
        ),
        "large": config(
            144,
            blocks_per_stage=[2, 6, 36, 4],
            global_attention_blocks=[23, 33, 43],
            num_attention_heads_per_stage=heads,
            window_size_per_stage=[8, 4, 16, 8],
        ),
    }


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
def test_every_official_size_is_recognised_and_renamed_completely(size: str) -> None:
    config = configs()[size]
    with torch.device("meta"):
        net = Sam2Model(config)
        state = to_official(net)
    assert official_config(official_size(state)).to_dict() == config.to_dict()
    renamed = rename_official(state)
    expected = net.state_dict()
    assert renamed.keys() == expected.keys()
    assert all(renamed[key].shape == expected[key].shape for key in expected)


def test_the_official_names_are_those_of_metas_files() -> None:
    with torch.device("meta"):
        state = to_official(Sam2Model(configs()["tiny"]))
    for key in (
        "image_encoder.trunk.patch_embed.proj.weight",
        "image_encoder.trunk.blocks.0.norm1.weight",
        "image_encoder.trunk.blocks.1.proj.weight",
        "image_encoder.trunk.blocks.0.attn.qkv.weight",
        "image_encoder.trunk.blocks.0.mlp.layers.1.bias",
        "image_encoder.neck.convs.3.conv.weight",
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "sam_prompt_encoder.mask_downscaling.6.weight",
        "sam_prompt_encoder.not_a_point_embed.weight",
        "sam_mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight",
        "sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight",
        "sam_mask_decoder.transformer.norm_final_attn.weight",
        "sam_mask_decoder.output_upscaling.3.weight",
        "sam_mask_decoder.output_hypernetworks_mlps.3.layers.1.weight",
        "sam_mask_decoder.iou_prediction_head.layers.2.weight",
        "sam_mask_decoder.pred_obj_score_head.layers.0.weight",
        "sam_mask_decoder.conv_s0.weight",
        "sam_mask_decoder.obj_score_token.weight",
    ):
        assert key in state


def test_an_official_file_gives_bit_equal_masks(tmp_path: Path, make_image) -> None:
    torch.manual_seed(0)
    net = Sam2Model(configs()["tiny"]).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.rand_like(weight), alpha=0.01)
    net.shared_image_embedding.positional_embedding.copy_(
        net.prompt_encoder.shared_embedding.positional_embedding
    )
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": to_official(net)}, path)
    official = Sam2Segmenter(str(path), device="cpu")
    assert official.preprocessing == Preprocessing(1024)
    found = official.net.state_dict()
    for key, value in net.state_dict().items():
        assert torch.equal(found[key], value), key
    # Bit-equal outputs; the decoder on random features, as the encoder at 1024 px is slow here.
    image = make_image(60, 80)
    features = tuple(torch.randn(1, c, s, s) for c, s in ((32, 256), (64, 128), (256, 64)))
    original = Sam2Segmenter.from_network(net, Preprocessing(1024), device="cpu")
    proposals = [Proposal("a", Box(10, 10, 40, 50))]
    one, score, _ = official.mask_logits(Encoding(image, features), proposals)
    other, same, _ = original.mask_logits(Encoding(image, features), proposals)
    assert torch.equal(one, other)
    assert torch.equal(score, same)
    pixels = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        left = official.net.vision_encoder(pixels).fpn_hidden_states
        right = net.vision_encoder(pixels).fpn_hidden_states
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def tiny_meta_state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        state = to_official(Sam2Model(configs()["tiny"]))
    return {key: torch.zeros((), dtype=torch.float16).expand(v.shape) for key, v in state.items()}


def test_a_bare_half_precision_state_dict_is_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "bare.pt"
    torch.save(tiny_meta_state(), path)
    net = load_official(path)
    assert {weight.dtype for weight in net.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("no_mem_embed"), r"1 weights are missing \(first no_memory_embedding\)"),
        (lambda s: s.update(extra=torch.ones(1)), r"1 are unexpected \(first extra\)"),
        (
            lambda s: s.update({"sam_mask_decoder.iou_token.weight": torch.ones(2, 3)}),
            r"mask_decoder.iou_token.weight is \(2, 3\), expected \(1, 256\)",
        ),
        (lambda s: s.pop("image_encoder.trunk.pos_embed"), "lacks image_encoder.trunk.pos_embed"),
        (
            lambda s: s.update({"image_encoder.trunk.pos_embed": torch.ones(1, 64, 7, 7)}),
            "12 blocks and a first stage of width 64",
        ),
    ],
)
def test_a_foreign_file_names_what_differs(tmp_path: Path, change, said: str) -> None:
    state = tiny_meta_state()
    change(state)
    path = tmp_path / "foreign.pt"
    torch.save({"model": state}, path)
    with pytest.raises(ModelUnavailable, match=said) as caught:
        load_official(path)
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path, capsys) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": Evil()}, path)
    with pytest.raises(ModelUnavailable, match="may run code"):
        load_official(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2], protocol=2)])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.pt"
    path.write_bytes(content)
    with pytest.raises(ModelUnavailable) as caught:
        load_official(path)
    assert "\n" not in str(caught.value)
