"""Train the embedded segmenter: SAM 2's own classes, small, on crops around boxes.

Photos (train split) and rendered scenes are mixed; `instances` says what a sample is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2Config, Sam2Model
from transformers.models.sam2.configuration_sam2 import (
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)

from recipes.embedded.instances import (
    MARGIN,
    MASK,
    SIZE,
    Batch,
    Instance,
    Photos,
    Scenes,
    Source,
    draw_batch,
    scene_instances,
)
from recipes.embedded.loop import Loop, Pace, save_bf16, schedule, settle
from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.sam2_weights import Preprocessing
from rsvp.types import Box, Image, Proposal

TRAIN_SEED = 2_000_003
BACKGROUNDS = 300  # photos that rendered scenes may lie on


def build_model() -> Sam2Model:
    """The architecture, with random weights."""
    backbone = Sam2HieraDetConfig(
        hidden_size=64, num_attention_heads=1, image_size=[SIZE, SIZE],
        window_positional_embedding_background_size=[8, 8], blocks_per_stage=[1, 3, 4, 1],
        embed_dim_per_stage=[64, 128, 256, 320], num_attention_heads_per_stage=[1, 2, 4, 5],
        window_size_per_stage=[8, 8, 8, 4], global_attention_blocks=[5, 7],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[320, 256, 128, 64],
        backbone_feature_sizes=[[SIZE // s, SIZE // s] for s in (4, 8, 16)], fpn_hidden_size=128,
    )  # fmt: skip
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=128, image_size=SIZE),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=128, mlp_dim=512, iou_head_hidden_dim=128,
            dynamic_multimask_via_stability=False,
        ),
    )  # fmt: skip
    return Sam2Model(config)


def mask_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """BCE + Dice, each (B, m), and the IoU (B, m) of the thresholded masks; logits (B, m, h, w)."""
    b, m = logits.shape[:2]
    big = F.interpolate(logits.float(), (MASK, MASK), mode="bilinear", align_corners=False)
    truth = target[:, None].expand(b, m, MASK, MASK)
    bce = F.binary_cross_entropy_with_logits(big, truth, reduction="none").mean((2, 3))
    chance = big.sigmoid()
    overlap = (chance * truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum((2, 3)) + truth.sum((2, 3)) + 1)
    with torch.no_grad():
        hard, real = big > 0, truth > 0.5
        iou = (hard & real).sum((2, 3)) / (hard | real).sum((2, 3)).clamp(min=1)
    return 2 * bce + dice, iou


def batch_loss(model: Sam2Model, batch: Batch) -> tuple[Tensor, float]:
    """The loss of a batch and its mean IoU; a lone point trains the best of three masks."""
    outputs = model(
        pixel_values=batch.pixels, input_boxes=batch.boxes, input_points=batch.points,
        multimask_output=batch.points is not None,
    )  # fmt: skip
    losses, iou = mask_loss(outputs.pred_masks[:, 0], batch.target)
    told = outputs.iou_scores[:, 0].float()
    best = losses.argmin(1, keepdim=True)
    quality = F.mse_loss(told, iou)
    return losses.gather(1, best).mean() + quality, float(iou.gather(1, best).mean())


@torch.inference_mode()
def box_to_mask_iou(model: Sam2Model, instances: Sequence[Instance]) -> float:
    """Mean IoU of the masks for the true boxes, at the images' own size, as the product does it."""
    segmenter = Sam2Segmenter.from_network(model, Preprocessing(size=SIZE, crop_margin=MARGIN))
    scores = []
    for instance in instances:
        image = Image(instance.rgb, sha256="")
        (encoding,) = segmenter.encode([image])
        found = segmenter.masks(encoding, [Proposal("", Box(*instance.box))]).masks[0]
        union = (found | instance.mask).sum()
        scores.append(float((found & instance.mask).sum() / max(1, union)))
    return float(np.mean(scores))


@dataclass(frozen=True)
class Plan(Pace):
    """How to train.

    Attributes:
        photo_share: of the samples; the others are of rendered scenes.
        eval_every: steps between two measurements; eval_scenes: scenes measured on.
    """

    steps: int = 5600
    batch: int = 32
    lr: float = 1e-3
    muon_lr: float = 1.5e-3
    photo_share: float = 0.65
    eval_every: int = 500
    eval_scenes: int = 30


class Unseen:
    """Objects that are never trained on: every other one of the photos' split `val`, and scenes."""

    def __init__(self, photos: Path | None, scenes: int) -> None:
        held = Photos(photos, "val") if photos else None
        self.photos = [held.instance(i) for i in range(0, len(held), 2)] if held else []
        self.scenes = list(scene_instances(TRAIN_SEED - 1, scenes))

    def measure(self, model: Any) -> dict[str, float]:
        """Mean IoU on photos (nan where there are none) and on scenes."""
        model.eval()
        photos = box_to_mask_iou(model, self.photos) if self.photos else float("nan")
        found = {"photos_val": photos, "scenes": box_to_mask_iou(model, self.scenes)}
        model.train()
        return found


def train(out: Path, plan: Plan, photos: Path | None, device: str = "cpu") -> None:
    """Train or go on training in `out`; the checkpoint there is read first.

    Args:
        photos: a folder of `images/` and `instances.json`, or None for scenes alone.

    Raises:
        BadInput: the checkpoint does not fit, or the folder has no `instances.json`.
    """
    real = Photos(photos, "train") if photos else None
    unseen = Unseen(photos, plan.eval_scenes)
    torch.manual_seed(plan.seed)
    model = build_model()
    settle(model, device)
    loop = Loop(out, plan, {"model": model}, clip=1.0)
    rng = np.random.default_rng(TRAIN_SEED + plan.seed + loop.step)
    backs = [image.rgb for image in list(real.images.values())[:BACKGROUNDS]] if real else []
    sources: list[Source] = [Scenes(TRAIN_SEED + loop.step, backs), *([real] if real else [])]
    shares = [1 - plan.photo_share, plan.photo_share] if real else [1.0]
    for step in loop.steps():
        batch = draw_batch(sources, shares, plan.batch, rng).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss, iou = batch_loss(model, batch)
        loop.learn(loss, schedule(step, plan.steps, decay=plan.decay), loss=loss.item(), iou=iou)
        if loop.reports():
            measured = {"photos_val": float("nan"), "scenes": float("nan")}
            if loop.over or loop.step % plan.eval_every == 0:
                measured = unseen.measure(model)
            means, speed = loop.window()
            loop.log.row(step=loop.step, **means, **measured, crops_per_second=speed)
    export(model, out / "model")


def export(model: Sam2Model, folder: Path) -> None:
    """Write the folder that `Sam2Segmenter` reads: bf16 safetensors, config, preprocessing."""
    save_bf16(model, folder)
    preprocessing = {
        "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD),
        "size": {"height": SIZE, "width": SIZE}, "crop_margin": MARGIN,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1) + "\n")
