"""Train the embedded segmenter: SAM 2's own classes, small, on crops around boxes.

Every sample is one object: the crop that `rsvp.segmenters.crops` cuts around its (jittered) box,
squeezed to a square, so that the object always fills the same part of the picture, as a RoI head
sees it. Photos (train split) and rendered scenes are mixed. A share of the samples shows the whole
image and prompts with one point, so that clicks work too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model
from transformers.models.sam2.configuration_sam2 import (
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)

from rsvp.embedded import scenes
from rsvp.embedded.recipe.loop import (
    Clock,
    Log,
    load_checkpoint,
    optimizers,
    save_checkpoint,
    schedule,
    set_rate,
)
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.segmenters.crops import IMAGENET_MEAN, IMAGENET_STD, crop_to_square
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.weights import Preprocessing
from rsvp.types import Box, Image, Proposal

SIZE = 128  # side of the crop, pixels
MARGIN = 0.15
MASK = 64  # side of the square on which the loss is taken
TRAIN_SEED = 2_000_003
POINT_SHARE = 0.1


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


@dataclass(frozen=True, slots=True)
class Thing:
    """An image, one object's mask (H, W) bool in it, and the mask's tight box (xyxy)."""

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]


class Photos:
    """Photos with instance masks: `instances.json` (COCO, with a `split` an image) and `images/`."""

    def __init__(self, folder: Path, split: str) -> None:
        file = folder / "instances.json"
        if not file.exists():
            raise BadInput(
                f"{file} is missing: --photos names a folder of images/ and instances.json"
            )
        listed = json.loads(file.read_text(encoding="utf-8"))
        wanted = {i["id"]: i for i in listed["images"] if i["split"] == split}
        self.images: dict[int, Image] = {
            key: load_image(folder / "images" / entry["file_name"]) for key, entry in wanted.items()
        }
        self.annotations: list[dict[str, Any]] = [
            a for a in listed["annotations"] if a["image_id"] in wanted and not a["iscrowd"]
        ]

    def __len__(self) -> int:
        return len(self.annotations)

    def thing(self, index: int) -> Thing:
        annotation = self.annotations[index]
        x, y, w, h = annotation["bbox"]
        mask = coco.decode(annotation["segmentation"]).astype(bool)
        return Thing(self.images[annotation["image_id"]].rgb, mask, (x, y, x + w, y + h))

    def draw(self, rng: np.random.Generator) -> Thing:
        """A random object, at least 12 px a side."""
        while True:
            index = int(rng.integers(len(self)))
            if min(self.annotations[index]["bbox"][2:]) >= 12:
                return self.thing(index)


class Scenes:
    """Objects of rendered scenes; a scene serves several draws."""

    def __init__(self, seed: int, photos: Sequence[NDArray[np.uint8]]) -> None:
        self.rng = np.random.default_rng(seed)
        self.photos = photos
        self.things: list[Thing] = []

    def draw(self, rng: np.random.Generator) -> Thing:
        """A random object; one in eight draws pays for a new scene."""
        if len(self.things) < 2000 or rng.random() < 0.125:
            size = int(self.rng.integers(224, 400))
            scene = scenes.render(self.rng, size=size, photos=self.photos)
            fresh = [
                Thing(scene.rgb, o.mask, (*map(float, o.box),))  # type: ignore[arg-type]
                for o in scene.objects
            ]
            self.things = (self.things + fresh)[-2400:]
            return fresh[0]
        return self.things[int(rng.integers(len(self.things)))]


def jitter(
    box: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The box as a proposer would give it: exact, a little off, or loose like padded bands."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    style = rng.random()
    if style < 0.4:
        return box
    if style < 0.85:
        d = rng.normal(0, 0.06, 4)
    else:
        d = rng.uniform(0, 0.25, 4) * np.array([-1, -1, 1, 1])
    a, b, c, e = x0 + d[0] * w, y0 + d[1] * h, x1 + d[2] * w, y1 + d[3] * h
    return (a, b, max(c, a + 4), max(e, b + 4))


@dataclass(frozen=True, slots=True)
class Batch:
    """`pixels` (B, 3, SIZE, SIZE) normalised; `target` (B, MASK, MASK) 0..1; prompts in pixels of
    the crop: `boxes` (B, 1, 4) or `points` (B, 1, 1, 2)."""

    pixels: Tensor
    target: Tensor
    boxes: Tensor | None
    points: Tensor | None


def sample(thing: Thing, rng: np.random.Generator, *, point: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Crop (3, SIZE, SIZE) 0..1, target (MASK, MASK), and the prompt: a box (4,) or a point (2,)."""
    height, width = thing.mask.shape
    if point:
        box, margin = (0.0, 0.0, float(width), float(height)), 0.0
    else:
        box, margin = jitter(thing.box, rng), MARGIN
    rgb, window = crop_to_square(thing.rgb, box, margin, SIZE)
    truth = np.zeros((window.height, window.width), dtype=np.float32)
    seen = window.inside((height, width))
    truth[seen.y0 - window.y0 : seen.y1 - window.y0, seen.x0 - window.x0 : seen.x1 - window.x0] = (
        thing.mask[seen.y0 : seen.y1, seen.x0 : seen.x1]
    )
    target = F.interpolate(
        torch.from_numpy(truth)[None, None], (MASK, MASK), mode="bilinear", antialias=True
    )[0, 0]
    scale = np.array([SIZE / window.width, SIZE / window.height])
    corner = np.array([window.x0, window.y0])
    if point:
        ys, xs = np.nonzero(thing.mask)
        k = int(rng.integers(len(ys)))
        prompt = (np.array([xs[k] + 0.5, ys[k] + 0.5]) - corner) * scale
    else:
        prompt = ((np.array(box).reshape(2, 2) - corner) * scale).reshape(4)
    if rng.random() < 0.5:  # mirror
        rgb, target = rgb.flip(-1), target.flip(-1)
        if point:
            prompt[0] = SIZE - prompt[0]
        else:
            prompt[[0, 2]] = SIZE - prompt[[2, 0]]
    return recolor(rgb, rng), target, torch.from_numpy(prompt).float()


def recolor(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation vary."""
    gain, lift, color = rng.uniform(0.7, 1.3), rng.uniform(-0.12, 0.12), rng.uniform(0.3, 1.4)
    grey = rgb.mean(0, keepdim=True)
    return (grey + (rgb - grey) * color) * gain + lift


def draw_batch(
    sources: Sequence[Any], shares: Sequence[float], n: int, rng: np.random.Generator
) -> Batch:
    """n samples of the sources, all prompted by boxes or all by points."""
    point = bool(rng.random() < POINT_SHARE)
    drawn = [
        sample(sources[int(rng.choice(len(sources), p=shares))].draw(rng), rng, point=point)
        for _ in range(n)
    ]
    rgb, target, prompt = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (rgb - mean) / std
    if point:
        return Batch(pixels, target, None, prompt[:, None, None])
    return Batch(pixels, target, prompt[:, None], None)


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
def box_to_mask_iou(model: Sam2Model, things: Sequence[Thing]) -> float:
    """Mean IoU of the masks for the true boxes, at the images' own size, as the product does it."""
    segmenter = Sam2Segmenter.from_network(model, Preprocessing(size=SIZE, crop_margin=MARGIN))
    scores = []
    for thing in things:
        image = Image(thing.rgb, sha256="")
        (encoding,) = segmenter.encode([image])
        found = segmenter.masks(encoding, [Proposal("", Box(*thing.box))]).masks[0]
        union = (found | thing.mask).sum()
        scores.append(float((found & thing.mask).sum() / max(1, union)))
    return float(np.mean(scores))


def scene_things(seed: int, n: int) -> Iterator[Thing]:
    """The objects of n scenes."""
    for scene in scenes.scenes(n, seed):
        for o in scene.objects:
            x0, y0, x1, y1 = o.box
            yield Thing(scene.rgb, o.mask, (float(x0), float(y0), float(x1), float(y1)))


@dataclass(frozen=True)
class Plan:
    """How to train; `photo_share` of the samples are photos."""

    steps: int = 8000
    batch: int = 32
    lr: float = 1e-3
    muon_lr: float = 1.5e-3
    photo_share: float = 0.65
    minutes: float = 1e9
    seed: int = 0
    save_every: int = 250
    log_every: int = 25
    eval_every: int = 500


def train(out: Path, plan: Plan, photos: Path | None, device: str = "cpu") -> None:
    """Train or go on training in `out`; the checkpoint there is read first."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    model = build_model()
    if device == "cpu":  # its fused kernel's backward is several times slower than plain bmm
        model.set_attn_implementation("eager")
    model.to(device).train()
    opts = optimizers([model], plan.lr, plan.muon_lr)
    state = load_checkpoint(out / "checkpoint.pt")
    first = 0
    if state:
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        first = int(state["step"])
    rng = np.random.default_rng(TRAIN_SEED + plan.seed + first)
    real = Photos(photos, "train") if photos else None
    backs = [image.rgb for image in list(real.images.values())[:300]] if real else []
    sources: list[Any] = [Scenes(TRAIN_SEED + first, backs), *([real] if real else [])]
    shares = [1 - plan.photo_share, plan.photo_share] if real else [1.0]
    held = Photos(photos, "val") if photos else None
    unseen = [held.thing(i) for i in range(0, len(held), 2)] if held else []
    rendered = list(scene_things(TRAIN_SEED - 1, 30))
    log, clock = Log(out / "log.csv"), Clock(plan.steps, plan.minutes)
    clock.listen()
    step, sums, since = first, np.zeros(2), time.monotonic()
    params = [p for opt in opts for g in opt.param_groups for p in g["params"]]
    while not clock.over(step):
        for opt in opts:
            set_rate(opt, schedule(step, plan.steps))
        batch = draw_batch(sources, shares, plan.batch, rng)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss, iou = batch_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(params, 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        step += 1
        sums += [loss.detach().item(), iou]
        if step % plan.log_every == 0:
            measured = {"photos_val": float("nan"), "scenes": float("nan")}
            if step % plan.eval_every == 0 or clock.over(step):
                model.eval()
                measured["photos_val"] = box_to_mask_iou(model, unseen) if unseen else float("nan")
                measured["scenes"] = box_to_mask_iou(model, rendered)
                model.train()
            rate = plan.log_every * plan.batch / (time.monotonic() - since)
            mean = sums / plan.log_every
            log.row(step=step, loss=mean[0], iou=mean[1], **measured, crops_per_second=rate)
            sums[:], since = 0, time.monotonic()
        if step % plan.save_every == 0 or clock.over(step):
            save_checkpoint(
                out / "checkpoint.pt",
                {
                    "model": model.state_dict(),
                    "optimizers": [opt.state_dict() for opt in opts],
                    "step": step,
                },
            )
    export(model, out / "model")


def export(model: Sam2Model, folder: Path) -> None:
    """Write the folder that `Sam2Segmenter` reads: bf16 safetensors, config, preprocessing."""
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="15MB")
    model.float().load_state_dict(kept)
    preprocessing = {
        "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD),
        "size": {"height": SIZE, "width": SIZE}, "crop_margin": MARGIN,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1) + "\n")
