"""What the segmenter is trained on: objects of photos and of rendered scenes, cropped and prompted.

Every sample is one object: the crop that `rsvp.segmenters.transforms` makes of its (jittered) box,
squeezed to a square, so that the object always fills the same part of the picture, as a RoI head
sees it. A share of the samples shows the whole image and prompts with one point, so that clicks
work too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import Tensor

from rsvp.embedded import scenes
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD
from rsvp.segmenters.transforms import Window, crop_to_square
from rsvp.types import Image

SIZE = 128  # side of the crop, pixels
MARGIN = 0.15
MASK = 64  # side of the square on which the loss is taken
POINT_SHARE = 0.1
SMALLEST = 12  # shorter side of a photo's object, pixels


@dataclass(frozen=True, slots=True)
class Instance:
    """An image, one object's mask (H, W) bool in it, and the mask's tight box (xyxy)."""

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]


class Source(Protocol):
    """Where training takes its objects from."""

    def draw(self, rng: np.random.Generator) -> Instance:
        """A random object."""
        ...


class Photos:
    """Photos with instance masks: `instances.json` (COCO, a `split` an image) and `images/`.

    Raises:
        BadInput: the folder has no `instances.json`.
    """

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

    def instance(self, index: int) -> Instance:
        """The object of an annotation."""
        annotation = self.annotations[index]
        x, y, w, h = annotation["bbox"]
        mask = coco.decode(annotation["segmentation"]).astype(bool)
        return Instance(self.images[annotation["image_id"]].rgb, mask, (x, y, x + w, y + h))

    def draw(self, rng: np.random.Generator) -> Instance:
        """A random object, at least SMALLEST a side."""
        while True:
            index = int(rng.integers(len(self)))
            if min(self.annotations[index]["bbox"][2:]) >= SMALLEST:
                return self.instance(index)


class Scenes:
    """Objects of rendered scenes; a scene serves several draws."""

    def __init__(self, seed: int, photos: Sequence[NDArray[np.uint8]]) -> None:
        self.rng = np.random.default_rng(seed)
        self.photos = photos
        self.kept: list[Instance] = []

    def draw(self, rng: np.random.Generator) -> Instance:
        """A random object; one in eight draws pays for a new scene."""
        if len(self.kept) < 2000 or rng.random() < 0.125:
            size = int(self.rng.integers(224, 400))
            fresh = instances(scenes.render(self.rng, size=size, photos=self.photos))
            self.kept = (self.kept + fresh)[-2400:]
            return fresh[0]
        return self.kept[int(rng.integers(len(self.kept)))]


def instances(scene: scenes.Scene) -> list[Instance]:
    """The objects of a scene, back to front."""
    found = []
    for o in scene.objects:
        x0, y0, x1, y1 = o.box
        box = (float(x0), float(y0), float(x1), float(y1))
        found.append(Instance(scene.rgb, o.mask, box))
    return found


def scene_instances(seed: int, n: int) -> Iterator[Instance]:
    """The objects of n scenes."""
    for scene in scenes.scenes(n, seed):
        yield from instances(scene)


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

    def to(self, device: str) -> Batch:
        """The same on a device."""
        boxes, points = (None if t is None else t.to(device) for t in (self.boxes, self.points))
        return Batch(self.pixels.to(device), self.target.to(device), boxes, points)


def sample(
    instance: Instance, rng: np.random.Generator, *, point: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """A training sample, mirrored every other time.

    Returns:
        The crop (3, SIZE, SIZE) 0..1, the target (MASK, MASK) 0..1, and the prompt in pixels of
        the crop: a box (4,) xyxy, or with `point` a point (2,) on the object.
    """
    height, width = instance.mask.shape
    box, margin = (0.0, 0.0, float(width), float(height)), 0.0
    if not point:
        box, margin = jitter(instance.box, rng), MARGIN
    rgb, window = crop_to_square(instance.rgb, box, margin, SIZE)
    target = crop_mask(instance.mask, window)
    spots = spot_on(instance.mask, rng) if point else np.array(box).reshape(2, 2)
    scale = np.array([SIZE / window.width, SIZE / window.height])
    spots = (spots - np.array([window.x0, window.y0])) * scale
    if rng.random() < 0.5:
        rgb, target = rgb.flip(-1), target.flip(-1)
        spots[:, 0] = SIZE - spots[::-1, 0]  # a box's left and right change places
    return recolor(rgb, rng), target, torch.from_numpy(spots.reshape(-1)).float()


def crop_mask(mask: NDArray[np.bool_], window: Window) -> Tensor:
    """The (MASK, MASK) part of an (H, W) mask in a window, 0..1; nothing outside the image."""
    truth = np.zeros((window.height, window.width), dtype=np.float32)
    seen = window.clip(mask.shape)
    rows = slice(seen.y0 - window.y0, seen.y1 - window.y0)
    columns = slice(seen.x0 - window.x0, seen.x1 - window.x0)
    truth[rows, columns] = mask[seen.y0 : seen.y1, seen.x0 : seen.x1]
    whole = torch.from_numpy(truth)[None, None]
    return F.interpolate(whole, (MASK, MASK), mode="bilinear", antialias=True)[0, 0]


def spot_on(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """(1, 2) the xy centre of a random pixel of the mask."""
    ys, xs = np.nonzero(mask)
    k = int(rng.integers(len(ys)))
    return np.array([[xs[k] + 0.5, ys[k] + 0.5]])


def recolor(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation vary."""
    gain, lift, color = rng.uniform(0.7, 1.3), rng.uniform(-0.12, 0.12), rng.uniform(0.3, 1.4)
    grey = rgb.mean(0, keepdim=True)
    return (grey + (rgb - grey) * color) * gain + lift


def draw_batch(
    sources: Sequence[Source], shares: Sequence[float], n: int, rng: np.random.Generator
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
