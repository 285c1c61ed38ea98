"""Training samples of the segmenter: crops around objects of photos and of rendered scenes.

A sample is one object: the crop that `rsvp.segmenters.transforms` cuts around its (jittered) box,
resized to a square, so that the object always fills the same part of the crop, as in a RoI head. A
share of the batches shows whole images with one point each, so that the segmenter learns clicks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsvp.datasets.instances import read_instances
from rsvp.embedded.scenes import Scene, render, scenes
from rsvp.embedded.vocabulary import STYLES
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.masks import mask_to_box
from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD
from rsvp.segmenters.transforms import crop_to_square
from rsvp.training.samples import downsampled_mask
from rsvp.types import BoolMask, Box, RgbArray

SIZE = 128  # side of the crop, pixels
MARGIN = 0.15
MASK_SIZE = 64  # side of the square on which the loss is computed
POINT_SHARE = 0.1
SMALLEST = 12  # shorter side of a photo's object, pixels
KEPT = 2400  # objects of rendered scenes for several uses
FRESH = 0.125  # share of the draws that render a new scene

Rng = np.random.Generator


class Instance(NamedTuple):
    """An (H, W, 3) uint8 image, the (H, W) bool mask of one object in it, and its tight box."""

    rgb: RgbArray
    mask: BoolMask
    box: Box


class InstanceSource(Protocol):
    """A source of objects to train on."""

    def draw(self, rng: Rng) -> Instance:
        """A random object."""
        ...


class PhotoInstances:
    """Annotated photos of a split: a folder of `images/` and `instances.json`.

    Raises:
        BadInput: the folder is not of this form, or has no such split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.truth = read_instances(folder / "instances.json").of_split(split)
        self.photos = {n: load_image(self.truth.image_file(n)).rgb for n in self.truth.images}
        self.annotations = [a for a in self.truth.annotations if not a.get("iscrowd")]

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Instance:
        """The object of an annotation."""
        annotation = self.annotations[index]
        mask = self.truth.mask(annotation)
        box = mask_to_box(mask)
        if box is None:
            raise BadInput(f"{self.truth.file}: annotations {annotation['id']}: the mask is empty")
        return Instance(self.photos[annotation["image_id"]], mask, box)

    def draw(self, rng: Rng) -> Instance:
        """A random object, at least SMALLEST a side."""
        while True:
            instance = self[int(rng.integers(len(self)))]
            if min(instance.box.width, instance.box.height) >= SMALLEST:
                return instance


class RenderedInstances:
    """Objects of rendered scenes; the objects of a scene serve several draws."""

    def __init__(self, seed: int, photos: Sequence[RgbArray]) -> None:
        self.rng = np.random.default_rng(seed)
        self.photos = photos
        self.instances: list[Instance] = []

    def draw(self, rng: Rng) -> Instance:
        """A random object; one draw in eight renders a new scene."""
        if len(self.instances) < KEPT - 400 or rng.random() < FRESH:
            size = int(self.rng.integers(224, 400))
            fresh = instances_of(
                render(self.rng, size=size, photos=self.photos, styles=tuple(STYLES))
            )
            self.instances = (self.instances + fresh)[-KEPT:]
            return fresh[0]
        return self.instances[int(rng.integers(len(self.instances)))]


def instances_of(scene: Scene) -> list[Instance]:
    """The objects of a scene, back to front."""
    return [Instance(scene.rgb, o.mask, o.box) for o in scene.objects]


def scene_instances(seed: int, n: int) -> Iterator[Instance]:
    """The objects of n scenes."""
    for scene in scenes(n, seed):
        yield from instances_of(scene)


@dataclass(frozen=True, slots=True)
class CropBatch:
    """`pixels` (B, 3, SIZE, SIZE) normalised; `target` (B, MASK_SIZE, MASK_SIZE) 0..1; prompts in
    pixels of the crop: `boxes` (B, 1, 4) or `points` (B, 1, 1, 2)."""

    pixels: Tensor
    target: Tensor
    boxes: Tensor | None
    points: Tensor | None

    def to(self, device: str) -> CropBatch:
        """The same on a device."""
        boxes, points = (None if t is None else t.to(device) for t in (self.boxes, self.points))
        return CropBatch(self.pixels.to(device), self.target.to(device), boxes, points)


def draw_batch(
    sources: Sequence[InstanceSource], shares: Sequence[float], n: int, rng: Rng
) -> CropBatch:
    """n samples of the sources, all with box prompts or all with point prompts."""
    point = bool(rng.random() < POINT_SHARE)
    drawn = [
        sample(sources[int(rng.choice(len(sources), p=shares))].draw(rng), rng, point=point)
        for _ in range(n)
    ]
    rgb, target, prompt = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (rgb - mean) / std
    if point:
        return CropBatch(pixels, target, None, prompt[:, None, None])
    return CropBatch(pixels, target, prompt[:, None], None)


def sample(instance: Instance, rng: Rng, *, point: bool) -> tuple[Tensor, Tensor, Tensor]:
    """A training sample, mirrored every other time.

    Returns:
        The crop (3, SIZE, SIZE) 0..1, the target (MASK_SIZE, MASK_SIZE) 0..1, and the prompt in
        pixels of the crop: a box (4,) xyxy, or with `point` a point (2,) on the object.
    """
    height, width = instance.mask.shape
    box, margin = (0.0, 0.0, float(width), float(height)), 0.0
    if not point:
        box, margin = jitter(instance.box, rng), MARGIN
    rgb, window = crop_to_square(instance.rgb, box, margin, SIZE)
    target = downsampled_mask(instance.mask, window, MASK_SIZE)
    xy = point_on(instance.mask, rng) if point else np.array(box).reshape(2, 2)
    scale = np.array([SIZE / window.width, SIZE / window.height])
    xy = (xy - np.array([window.x0, window.y0])) * scale
    if rng.random() < 0.5:
        rgb, target = rgb.flip(-1), target.flip(-1)
        xy[:, 0] = SIZE - xy[::-1, 0]  # left and right of a box change places
    return recolor(rgb, rng), target, torch.from_numpy(xy.reshape(-1)).float()


def jitter(box: Box, rng: Rng) -> tuple[float, float, float, float]:
    """The box as a reasoner would propose it: exact, a little off, or loose like padded bands."""
    style = rng.random()
    if style < 0.4:
        return box.xyxy
    if style < 0.85:
        d = rng.normal(0, 0.06, 4)
    else:
        d = rng.uniform(0, 0.25, 4) * np.array([-1, -1, 1, 1])
    x0, y0 = box.x0 + d[0] * box.width, box.y0 + d[1] * box.height
    x1, y1 = box.x1 + d[2] * box.width, box.y1 + d[3] * box.height
    return (x0, y0, max(x1, x0 + 4), max(y1, y0 + 4))


def point_on(mask: BoolMask, rng: Rng) -> NDArray[np.float64]:
    """(1, 2) the xy centre of a random pixel of the mask."""
    ys, xs = np.nonzero(mask)
    k = int(rng.integers(len(ys)))
    return np.array([[xs[k] + 0.5, ys[k] + 0.5]])


def recolor(rgb: Tensor, rng: Rng) -> Tensor:
    """The crop with another brightness, contrast and saturation."""
    gain, lift, color = rng.uniform(0.7, 1.3), rng.uniform(-0.12, 0.12), rng.uniform(0.3, 1.4)
    grey = rgb.mean(0, keepdim=True)
    return (grey + (rgb - grey) * color) * gain + lift
