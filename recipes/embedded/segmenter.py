"""Train the embedded segmenter: SAM 2's own classes, small, on crops around boxes.

Photos (split `train`) and rendered scenes are mixed; see `crops` for the samples.
"""

from __future__ import annotations

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

from recipes.embedded.crops import (
    MARGIN,
    MASK_SIZE,
    SIZE,
    Instance,
    InstanceSource,
    PhotoInstances,
    RenderedInstances,
    ViewBatch,
    draw_batches,
    scene_instances,
)
from recipes.embedded.loop import Loop, LoopConfig, prepare, save_bf16, schedule
from rsvp.masks import mask_iou
from rsvp.platform.files import write_json
from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD
from rsvp.segmenters.networks import Preprocessing, load_sam2
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.training.losses import dice_loss, mask_bce, resized
from rsvp.types import Image, Proposal

TRAIN_SEED = 2_000_003
# IoUs in the log: on crops a point, a box, a box with one point and with two; on windows a point
# and several.
FIGURES = ("crop_point", "box", "box_point", "box_points", "point", "points")
BACKGROUNDS = 300  # photos that may be backgrounds of rendered scenes


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


def mask_loss(
    logits: Tensor, target: Tensor, outside: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """BCE + Dice, and the IoU of the thresholded masks in the view and of the object, each (B, m).

    Args:
        logits: (B, m, h, w); target: (B, MASK_SIZE, MASK_SIZE), 0 to 1.
        outside: (B,), the part of the object outside the view, in pixels of the target.
    """
    logits = resized(logits, MASK_SIZE)
    truth = target[:, None].expand_as(logits)
    with torch.no_grad():
        mask, true_mask = logits > 0, truth > 0.5
        union = (mask | true_mask).sum((2, 3)).clamp(min=1)
        shared = (mask & true_mask).sum((2, 3))
        whole = union if outside is None else union + outside[:, None]
    loss = 2 * mask_bce(logits, truth) + dice_loss(logits, truth)
    return loss, shared / union, shared / whole


def encode(model: Any, pixels: Tensor) -> list[Tensor]:
    """The features of B views, as `Sam2Model.get_image_embeddings` gives them, with gradients."""
    *fine, coarse = model.get_image_features(pixels, return_dict=True).fpn_hidden_states
    levels = [*fine, coarse + model.no_memory_embedding]
    return [
        level.permute(1, 2, 0).reshape(len(pixels), -1, *size)
        for level, size in zip(levels, model.backbone_feature_sizes, strict=True)
    ]


def batch_loss(model: Any, batch: ViewBatch) -> tuple[Tensor, list[float]]:
    """The mean loss of the groups of prompts, and the mean IoU of each.

    A point alone is ambiguous: the best of three masks is trained. The predicted IoUs of all masks
    are, with what lies outside the view counted as missed; on the background they are 0.
    """
    features = encode(model, batch.pixels)
    targets, present = batch.targets.flatten(0, 1), batch.targets.flatten(0, 1).amax((1, 2)) > 0
    total, ious = torch.zeros((), device=targets.device), []
    for prompts in batch.prompts:
        outputs = model(
            image_embeddings=features, input_points=prompts[..., :2],
            input_labels=prompts[..., 2].int(), multimask_output=prompts.shape[2] == 1,
        )  # fmt: skip
        masks = outputs.pred_masks.flatten(0, 1)
        losses, iou, seen = mask_loss(masks, targets, batch.outside.flatten())
        iou_loss = F.mse_loss(outputs.iou_scores.flatten(0, 1).float(), seen)
        best = losses.argmin(1, keepdim=True)
        weight = present / present.sum().clamp(min=1)
        total = total + (losses.gather(1, best)[:, 0] * weight).sum() + iou_loss
        ious.append(float((iou.gather(1, best)[:, 0] * weight).sum()))
    return total / len(batch.prompts), ious


@torch.inference_mode()
def box_to_mask_iou(model: Sam2Model, instances: Sequence[Instance]) -> float:
    """Mean IoU of the masks for the true boxes, at the images' own size, by `Sam2Segmenter`."""
    segmenter = Sam2Segmenter.from_network(model, Preprocessing(size=SIZE, crop_margin=MARGIN))
    ious = []
    for instance in instances:
        (encoding,) = segmenter.encode([Image(instance.rgb, sha256="")])
        (mask,) = segmenter.masks(encoding, [Proposal("", instance.box)]).masks
        ious.append(mask_iou(mask, instance.mask))
    return float(np.mean(ious))


@dataclass(frozen=True)
class SegmenterConfig(LoopConfig):
    """How to train.

    Attributes:
        photo_share: of the samples; the others are of rendered scenes.
        eval_every: steps between two validations; eval_scenes: scenes to validate on.
    """

    steps: int = 5600
    batch: int = 32
    lr: float = 1e-3
    muon_lr: float = 1.5e-3
    photo_share: float = 0.65
    eval_every: int = 500
    eval_scenes: int = 30


@dataclass(frozen=True)
class FineTuningConfig(SegmenterConfig):
    """How to fine-tune: with smaller learning rates."""

    steps: int = 3000
    lr: float = 5e-4
    muon_lr: float = 7.5e-4


class ValidationInstances:
    """Objects never trained on: every other one of the photos' split `val`, and of scenes."""

    def __init__(self, photos: Path | None, scenes: int) -> None:
        held_out = PhotoInstances(photos, "val") if photos else None
        self.photos = [held_out[i] for i in range(0, len(held_out), 2)] if held_out else []
        self.scenes = list(scene_instances(TRAIN_SEED - 1, scenes))

    def measure(self, model: Any) -> dict[str, float]:
        """Mean IoU on photos (NaN where there are none) and on scenes."""
        model.eval()
        photos = box_to_mask_iou(model, self.photos) if self.photos else float("nan")
        found = {"photos_val": photos, "scenes": box_to_mask_iou(model, self.scenes)}
        model.train()
        return found


def train(
    out: Path,
    config: SegmenterConfig,
    photos: Path | None,
    device: str = "cpu",
    *,
    start: Path | None = None,
) -> None:
    """Train or resume training in `out`.

    Args:
        photos: a folder of `images/` and `instances.json`, or None for scenes alone.
        start: folder of a trained segmenter to fine-tune.

    Raises:
        BadInput: the checkpoint does not fit, or the photos cannot be used.
        ModelUnavailable: no segmenter in `start`.
    """
    annotated = PhotoInstances(photos, "train") if photos else None
    validation = ValidationInstances(photos, config.eval_scenes)
    torch.manual_seed(config.seed)
    model = build_model() if start is None else load_sam2(str(start))[0]
    prepare(model, device)
    loop = Loop(out, config, {"model": model}, clip=1.0, unit="crops")
    rng = np.random.default_rng(TRAIN_SEED + config.seed + loop.step)
    backgrounds = list(annotated.photos.values())[:BACKGROUNDS] if annotated else []
    sources: list[InstanceSource] = [RenderedInstances(TRAIN_SEED + loop.step, backgrounds)]
    shares = [1.0]
    if annotated:
        sources, shares = [*sources, annotated], [1 - config.photo_share, config.photo_share]
    for step in loop.steps():
        crops, windows = draw_batches(sources, shares, config.batch, rng)
        with torch.autocast(device, dtype=torch.bfloat16):
            on_crops, crop_ious = batch_loss(model, crops.to(device))
            on_windows, window_ious = batch_loss(model, windows.to(device))
        loss = on_crops + on_windows
        rate = schedule(step, config.steps, decay=config.decay)
        figures = dict(zip(FIGURES, [*crop_ious, *window_ious], strict=True))
        loop.step_down(loss, rate, loss=loss.item(), **figures)
        if loop.reports():
            measured = {"photos_val": float("nan"), "scenes": float("nan")}
            if loop.over or loop.step % config.eval_every == 0:
                measured = validation.measure(model)
            loop.report(**measured)
    export(model, out / "model")


def export(model: Sam2Model, folder: Path) -> None:
    """Write the folder that `Sam2Segmenter` reads: bf16 safetensors, config, preprocessing."""
    save_bf16(model, folder)
    preprocessing = {
        "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD),
        "size": {"height": SIZE, "width": SIZE}, "crop_margin": MARGIN,
    }  # fmt: skip
    write_json(folder / "preprocessor_config.json", preprocessing)
