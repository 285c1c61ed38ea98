"""Small SAM 2 networks with random weights: the real classes, nothing to download."""

from __future__ import annotations

import torch

from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from transformers import Sam2Config, Sam2Model  # noqa: E402

SIZE = 128


def small_config(size: int = SIZE) -> Sam2Config:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "image_size": [size, size],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[size // s, size // s] for s in (4, 8, 16)],
        "fpn_hidden_size": 32,
    }
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    }
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": size},
        mask_decoder_config=decoder,
    )


def randomize(net: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight some of its own, so that none can be dropped or swapped unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in [*net.parameters(), *net.buffers()]:
            if not weight.is_floating_point():
                continue
            fan_in = max(weight[0].numel(), 1) if weight.ndim > 1 else 16
            weight.add_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)


def small_sam2() -> Sam2Model:
    torch.manual_seed(0)
    net = Sam2Model(small_config()).eval()
    randomize(net)
    # Both tables of position frequencies are one in every real checkpoint.
    net.shared_image_embedding.positional_embedding.copy_(
        net.prompt_encoder.shared_embedding.positional_embedding
    )
    return net
