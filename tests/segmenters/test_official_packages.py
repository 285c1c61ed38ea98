"""`sam-hq:`, `sam3:` and `edgetam:` beside the official code, on the same random weights.

The packages bring torchvision, and two of them claim names of others, so that no environment of
this project has them: run these tests in one with `segment-anything-hq==0.3`, `sam3==0.1.4` or
`edgetam-dimos==1.0.1` (Meta's EdgeTAM, in which `sam2` is its fork of SAM 2) and their imports.
How they build their networks is also in transformers' converters (models/*/convert_*_to_hf.py).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_sam2 import randomize
from tiny_sams import DECODER

from rsvp.platform.pretrained import rename, transformers
from rsvp.segmenters.networks import KINDS, Preprocessing
from rsvp.segmenters.sam2 import EdgeTamSegmenter, Sam3Segmenter
from rsvp.segmenters.sam2_package import _DECODER
from rsvp.segmenters.sam2_weights import _RULES
from rsvp.segmenters.sam_hq import SamHqSegmenter
from rsvp.types import Box, Image, Point, Proposal

BOX = Box(20.5, 10, 90, 70)
POINTS = (Point(30, 40), Point(90.25, 60, positive=False))
PROMPTS = {"box": Proposal("", BOX), "points": Proposal("", points=POINTS),
           "both": Proposal("", BOX, POINTS)}  # fmt: skip
SIZES = ((75, 111), (211, 96))


def needs(name: str, module: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec(module.partition(".")[0]) and importlib.util.find_spec(module)
    return pytest.mark.skipif(not found, reason=f"{name} is not installed")


def official_weights(net: Any, official: Any, rules: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """A network's weights under the names of the package's own; other weights of it stay."""
    ours, found = net.state_dict(), dict[str, Any]()
    for key, value in official.state_dict().items():
        name = rename(key, (*_RULES, *rules))
        if ".qkv." in name and name not in ours:
            parts = [ours[name.replace(".qkv.", f".{part}_proj.")] for part in "qkv"]
            found[key] = torch.cat(parts)
        elif "point_embeddings." in name:
            row = int(name.split(".")[-2])
            found[key] = ours["prompt_encoder.point_embed.weight"][row : row + 1]
        elif name.endswith("position_embeddings"):  # without the class token of pretraining
            found[key] = torch.cat([value[:, :1], ours[name]], dim=1)
        else:
            found[key] = ours.get(name, value)
    taken = {rename(key, (*_RULES, *rules)) for key in found}
    lost = [key for key in ours if key not in taken and not _derived(key)]
    assert not lost, lost[:5]
    return found


def _derived(key: str) -> bool:
    table = "shared_image_embedding.positional_embedding"
    return key == table or key.endswith("point_embed.weight") or "_proj." in key


def assert_alike(segmenter: Any, image: Image, prompt: Proposal, predictor: Any) -> None:
    [encoding] = segmenter.encode([image])
    found = segmenter.mask_logits(encoding, [prompt])
    given: dict[str, Any] = {}
    if prompt.box:
        given["box"] = np.array(prompt.box.xyxy)
    if prompt.points:
        given["point_coords"] = np.array([[p.x, p.y] for p in prompt.points])
        given["point_labels"] = np.array([int(p.positive) for p in prompt.points])
    predictor.set_image(image.rgb.copy())
    masks, scores, logits = predictor.predict(multimask_output=False, **given)
    assert logits.std() > 0.01
    np.testing.assert_allclose(found.logits.numpy(), logits, atol=5e-5 * max(logits.std(), 1))
    np.testing.assert_allclose(found.scores.numpy(), scores, atol=5e-5)
    ours = segmenter.masks(encoding, [prompt]).masks
    assert (ours == masks.astype(bool)).mean() > 0.9999


def _same_table(net: Any) -> Any:
    """Both tables of position frequencies are one in every real checkpoint."""
    kept = net.state_dict()
    computed = {key: value.clone() for key, value in net.named_buffers() if key not in kept}
    randomize(net)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_().add_(0.5)
        elif name in computed:
            buffer.copy_(computed[name])
    table = net.prompt_encoder.shared_embedding.positional_embedding
    net.shared_image_embedding.positional_embedding.data.copy_(table)
    return net.eval()


HQ_RULES: Any = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.blocks\.", ".layers."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.neck\.(0|2)\.", lambda m: f".neck.conv{int(m[1]) // 2 + 1}."),
    (r"\.neck\.(1|3)\.", lambda m: f".neck.layer_norm{int(m[1]) // 2 + 1}."),
    (r"\.hf_token\.", ".hq_token."),
    (r"\.hf_mlp\.layers\.", ".hq_mask_mlps.0.layers."),
    (r"\.hq_mask_mlps\.0\.layers\.0\.", ".hq_mask_mlp.proj_in."),
    (r"\.hq_mask_mlps\.0\.layers\.1\.", ".hq_mask_mlp.layers.0."),
    (r"\.hq_mask_mlps\.0\.layers\.2\.", ".hq_mask_mlp.proj_out."),
    (r"\.(compress_vit)_feat\.|\.embedding_(encoder|mask)(?:feature)?\.", r".\1\2_"),
    (r"(compress_vit|encoder|mask)_0\.", r"\1_conv1."),
    (r"(compress_vit|encoder|mask)_1\.", r"\1_norm."),
    (r"(compress_vit|encoder|mask)_3\.", r"\1_conv2."),
)


@pytest.fixture(scope="module")
def hq_sam() -> tuple[Any, Any]:
    from segment_anything_hq import SamPredictor, modeling
    from segment_anything_hq.modeling.mask_decoder_hq import MaskDecoderHQ

    size, width = 64, 32
    vision = {
        "hidden_size": width, "output_channels": width, "num_hidden_layers": 2, "mlp_dim": 128,
        "num_attention_heads": 2, "image_size": size, "window_size": 2, "num_pos_feats": 16,
        "global_attn_indexes": [1],
    }  # fmt: skip
    config = transformers.SamHQConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": width, "image_size": size},
        mask_decoder_config={**DECODER, "vit_dim": width},
    )
    net = _same_table(transformers.SamHQModel(config))
    encoder = modeling.ImageEncoderViT(
        depth=2, embed_dim=width, img_size=size, num_heads=2, out_chans=width, use_rel_pos=True,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6), global_attn_indexes=(1,),
        window_size=2,
    )  # fmt: skip
    prompts = modeling.PromptEncoder(width, (4, 4), (size, size), 16)
    decoder = MaskDecoderHQ(
        transformer_dim=width, transformer=modeling.TwoWayTransformer(2, width, 2, 64),
        iou_head_hidden_dim=width, vit_dim=width,
    )  # fmt: skip
    sam = modeling.Sam(
        encoder, prompts, decoder, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    ).eval()
    sam.load_state_dict(official_weights(net, sam, HQ_RULES))
    made = Preprocessing(size, pad=True, resampling="pillow")
    return SamHqSegmenter.from_network(net, made, device="cpu"), SamPredictor(sam)


SAM3_RULES = (
    (r"^backbone\.vision_backbone\.trunk\.", "vision_encoder.backbone."),
    (r"\.backbone\.pos_embed$", ".backbone.embeddings.position_embeddings"),
    (r"\.patch_embed\.", ".embeddings.patch_embeddings."),
    (r"\.ln_pre\.", ".layer_norm."),
    (r"\.backbone\.blocks\.", ".backbone.layers."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"^backbone\.vision_backbone\.sam2_convs\.", "vision_encoder.neck.fpn_layers."),
    (r"\.dconv_2x2_1\.", ".scale_layers.2."),
    (r"\.dconv_2x2(_0)?\.", ".scale_layers.0."),
    (r"\.conv_1x1\.", ".proj1."),
    (r"\.conv_3x3\.", ".proj2."),
    (r"\.mlp\.lin1\.", ".mlp.proj_in."),
    (r"\.mlp\.lin2\.", ".mlp.proj_out."),
)


@pytest.fixture(scope="module")
def sam3() -> tuple[Any, Any]:
    """The whole tracker but for a small ViT; the package's own parts ask for CUDA and triton."""
    with contextlib.suppress(ModuleNotFoundError):
        import triton
    if "triton" not in sys.modules:
        triton = ModuleType("triton")
        triton.jit = triton.autotune = lambda f=None, **_: f or (lambda g: g)
        triton.language = sys.modules["triton.language"] = ModuleType("triton.language")
        triton.language.constexpr = int
        sys.modules["triton"] = triton
    from sam3 import model_builder

    width = 64
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": width, "intermediate_size": 296,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 1008, "window_size": 24,
        "pretrain_image_size": 336, "global_attn_indexes": [1], "layer_norm_eps": 1e-5,
    }  # fmt: skip
    config = transformers.Sam3TrackerConfig(vision_config={"backbone_config": backbone})
    net = _same_table(transformers.Sam3TrackerModel(config))
    vit = functools.partial(
        model_builder.ViT, img_size=1008, pretrain_img_size=336, patch_size=14, embed_dim=width,
        depth=2, num_heads=2, mlp_ratio=4.625, tile_abs_pos=True, global_att_blocks=(1,),
        rel_pos_blocks=(), use_rope=True, use_interp_rope=True, window_size=24, ln_pre=True,
        pretrain_use_cls_token=True, retain_cls_token=False, bias_patch_embed=False,
    )  # fmt: skip
    position = model_builder.PositionEmbeddingSine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_builder, "_create_vit_backbone", lambda **_: vit())
        patch.setattr(
            model_builder, "PositionEmbeddingSine",
            lambda **given: position(**{**given, "precompute_resolution": None}),
        )  # fmt: skip
        tracker = model_builder.build_tracker(False, with_backbone=True).eval()
    tracker.bf16_context.__exit__(None, None, None)
    tracker.load_state_dict(official_weights(net, tracker, SAM3_RULES))
    predictor = model_builder.SAM3InteractiveImagePredictor(tracker, max_hole_area=0)
    made = replace(KINDS["sam3"].usual, resampling="float")  # `Sam3Processor` resizes in 8 bits
    return Sam3Segmenter.from_network(net, made, device="cpu"), predictor


EDGETAM_RULES = ((r"\.backbone\.body\.", ".backbone.timm_model."),)


@pytest.fixture(scope="module")
def edgetam() -> tuple[Any, Any]:
    import sam2
    from omegaconf import OmegaConf
    from sam2.modeling.backbones import timm as trunk
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from eval.segmenters import edgetam_config

    net = _same_table(transformers.EdgeTamModel(edgetam_config()))
    from hydra.utils import instantiate

    with pytest.MonkeyPatch.context() as patch:
        create = trunk.create_model
        patch.setattr(trunk, "create_model", lambda name, **given: create(
            name, **{**given, "pretrained": False}))  # fmt: skip
        yaml = OmegaConf.load(Path(sam2.__file__).parent / "edgetam.yaml")
        yaml.model.sam_mask_decoder_extra_args = _DECODER  # as in the package's `build_sam2`
        network = instantiate(yaml.model, _recursive_=True).eval()
    network.load_state_dict(official_weights(net, network, EDGETAM_RULES))
    made = KINDS["edgetam"].usual
    segmenter = EdgeTamSegmenter.from_network(net, made, device="cpu")
    return segmenter, SAM2ImagePredictor(network)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("hq_sam", marks=needs("segment-anything-hq", "segment_anything_hq")),
        pytest.param("sam3", marks=needs("sam3", "sam3")),
        pytest.param("edgetam", marks=needs("edgetam-dimos", "sam2.modeling.backbones.timm")),
    ],
)
def test_the_official_code_gives_the_same(kind, prompt, size, request, make_image) -> None:
    segmenter, predictor = request.getfixturevalue(kind)
    assert_alike(segmenter, make_image(*size), PROMPTS[prompt], predictor)
