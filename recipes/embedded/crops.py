"""Training samples of the segmenter: views of photos and of rendered scenes, with prompts on them.

Two kinds of views. A crop is what `rsvp.segmenters.transforms` cuts around an object's (jittered)
box, so that the object always fills the same part of it, as in a RoI head. A window is any part of
an image, up to the whole, with points on several objects, as a point without a box or a grid of
points sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsvp.datasets.instances import read_instances
from rsvp.embedded.scenes import Scene, render, scenes
from rsvp.embedded.vocabulary import STYLES
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.masks import mask_to_box
from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD
from rsvp.segmenters.point_prompts import BOTTOM_RIGHT, TOP_LEFT
from rsvp.segmenters.transforms import Window, crop_to_square, margin_box
from rsvp.training.samples import downsampled_mask
from rsvp.types import BoolMask, Box, RgbArray

SIZE = 128  # side of the view, pixels
MARGIN = 0.15
MASK_SIZE = 64  # side of the square on which the loss is computed
SMALLEST = 8  # shorter side of a photo's object, pixels
KEPT = 500  # rendered scenes for several uses
FRESH = 0.03  # share of the draws that render a new scene
POINTED = 6  # objects of a window that are pointed at, some of them twice
CROPS = 0.3  # share of the views that are crops
WHOLE = 0.2  # share of the windows that show the whole image
SMALLEST_WINDOW = 0.1  # of the image's sides

Rng = np.random.Generator
Prompt = list[tuple[float, float, int]]  # x, y, label as in `rsvp.segmenters.point_prompts`


class Instance(NamedTuple):
    """An (H, W, 3) uint8 image, the (H, W) bool mask of one object in it, and its tight box."""

    rgb: RgbArray
    mask: BoolMask
    box: Box


class Picture(NamedTuple):
    """Some objects of one image, the first drawn at random, and, where known, the (H, W) bool mask
    of what is no object."""

    objects: Sequence[Instance]
    background: BoolMask | None = None


class PhotoInstances:
    """Annotated photos of a split: a folder of `images/` and `instances.json`.

    Raises:
        BadInput: the folder is not of this form, or has no such split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.truth = read_instances(folder / "instances.json").of_split(split)
        self.photos = {n: load_image(self.truth.image_file(n)).rgb for n in self.truth.images}
        self.annotations = [a for a in self.truth.annotations if not a.get("iscrowd")]
        self._beside: dict[int, list[int]] = {}  # image id -> numbers of its objects
        for number, annotation in enumerate(self.annotations):
            self._beside.setdefault(annotation["image_id"], []).append(number)

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

    def draw(self, rng: Rng, most: int = 1) -> Picture:
        """A random object and others of its photo, each at least SMALLEST a side."""
        while True:
            number = int(rng.integers(len(self)))
            first = self[number]
            if _side(first) >= SMALLEST:
                break
        beside = self._beside[self.annotations[number]["image_id"]]
        others = (self[int(i)] for i in rng.permutation(beside)[: most - 1] if i != number)
        return Picture([first, *(one for one in others if _side(one) >= SMALLEST)])


class RenderedInstances:
    """Objects of rendered scenes; a scene serves several draws."""

    def __init__(self, seed: int, photos: Sequence[RgbArray]) -> None:
        self.rng = np.random.default_rng(seed)
        self.photos = photos
        self.scenes: list[list[Instance]] = []

    def draw(self, rng: Rng, most: int = 1) -> Picture:
        if len(self.scenes) < KEPT or rng.random() < FRESH:
            size = int(self.rng.integers(224, 400))
            scene = render(self.rng, size=size, photos=self.photos, styles=tuple(STYLES))
            self.scenes = [*self.scenes, instances_of(scene)][-KEPT:]
            objects = self.scenes[-1]
        else:
            objects = self.scenes[int(rng.integers(len(self.scenes)))]
        drawn = [objects[int(i)] for i in rng.permutation(len(objects))[:most]]
        return Picture(drawn, ~np.logical_or.reduce([one.mask for one in objects]))


def instances_of(scene: Scene) -> list[Instance]:
    return [Instance(scene.rgb, o.mask, o.box) for o in scene.objects]


def scene_instances(seed: int, n: int) -> Iterator[Instance]:
    for scene in scenes(n, seed):
        yield from instances_of(scene)


InstanceSource = PhotoInstances | RenderedInstances


class View(NamedTuple):
    """A view and the prompts for P objects on it.

    Attributes:
        rgb: (3, SIZE, SIZE), 0 to 1.
        targets: (P, MASK_SIZE, MASK_SIZE), 0 to 1; empty where the prompts are on no object.
        outside: (P,), the part of each object outside the view, in pixels of `targets`.
        prompts: groups of (P, K, 3) prompts of one length: x and y in pixels of the view, label.
    """

    rgb: Tensor
    targets: Tensor
    outside: Tensor
    prompts: list[Tensor]


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """B views: `pixels` (B, 3, SIZE, SIZE) normalised, the others as in `View`, with B first."""

    pixels: Tensor
    targets: Tensor
    outside: Tensor
    prompts: Sequence[Tensor]

    @classmethod
    def stack(cls, views: Sequence[View]) -> ViewBatch:
        """Views with equally many objects and prompts."""
        rgb, targets, outside, prompts = zip(*views, strict=True)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        groups = [torch.stack(group) for group in zip(*prompts, strict=True)]
        pixels = (torch.stack(rgb) - mean) / std
        return cls(pixels, torch.stack(targets), torch.stack(outside), groups)

    def to(self, device: str) -> ViewBatch:
        prompts = [group.to(device) for group in self.prompts]
        pixels, targets, outside = (t.to(device) for t in (self.pixels, self.targets, self.outside))
        return ViewBatch(pixels, targets, outside, prompts)


def draw_batches(
    sources: Sequence[InstanceSource], shares: Sequence[float], n: int, rng: Rng
) -> tuple[ViewBatch, ViewBatch]:
    """n views of the sources' images: CROPS of them crops, the others windows."""
    drawn = [sources[int(i)] for i in rng.choice(len(sources), n, p=shares)]
    n_crops = round(CROPS * n)
    crops = [crop_view(source.draw(rng).objects[0], rng) for source in drawn[:n_crops]]
    several = int(rng.integers(2, 4))
    windows = [window_view(s.draw(rng, POINTED), rng, several) for s in drawn[n_crops:]]
    return ViewBatch.stack(crops), ViewBatch.stack(windows)


def crop_view(instance: Instance, rng: Rng) -> View:
    """A crop around an object: its box, its box with one and with two points, a point alone."""
    if rng.random() < 0.5:
        instance = mirrored(instance)
    x0, y0, x1, y1 = jitter(instance.box, rng)
    window = margin_box((x0, y0, x1, y1), MARGIN)
    box: Prompt = [(x0, y0, TOP_LEFT), (x1, y1, BOTTOM_RIGHT)]
    # A model points at the middle of what it means, whether or not the object covers it.
    center = (*instance.box.center, 1) if rng.random() < 0.4 else point_in(instance.mask, rng)
    second = point_in(instance.mask, rng)
    if rng.random() < 0.5:
        second = point_in(~instance.mask, rng, window, label=0) or second
    alone = point_in(instance.mask, rng, window) or second
    prompts = [[alone], box, [*box, center], [*box, center, second]]
    return make_view([instance], window, [[prompt] for prompt in prompts], rng)


def window_view(picture: Picture, rng: Rng, several: int) -> View:
    """A part of an image, POINTED prompts of one point and as many of `several` points on it.

    Where the background is known, one of them is on no object.
    """
    objects = list(picture.objects)
    background = picture.background
    if rng.random() < 0.5:
        objects = [mirrored(one) for one in objects]
        background = None if background is None else background[:, ::-1]
    height, width = objects[0].mask.shape
    share = 1.0
    if rng.random() >= WHOLE:
        share = float(np.exp(rng.uniform(np.log(SMALLEST_WINDOW), 0)))
    x, y, _ = point_in(objects[0].mask, rng)
    window = window_around((x, y), (height, width), share, rng)
    first = [one for one in objects if point_in(one.mask, rng, window)]
    chosen = (first * POINTED)[:POINTED]
    alone, more = [], []
    for one in chosen:
        points = [near_center(one, window) if rng.random() < 0.3 else None]
        points += [point_in(one.mask, rng, window) for _ in range(several)]
        positive = [point for point in points if point][:several]
        alone.append([positive[0]])
        if rng.random() < 0.5:
            others = [o.mask for o in objects if o is not one]
            beside = others[int(rng.integers(len(others)))] if others else ~one.mask
            if rng.random() < 0.5:
                beside = ~one.mask
            negative = point_in(beside, rng, window, label=0)
            positive = [*positive[: several - 1], negative or positive[-1]]
        more.append(positive)
    if background is not None and (nothing := point_in(background, rng, window)):
        chosen[-1] = chosen[-1]._replace(mask=np.zeros_like(chosen[-1].mask))
        extra = [point_in(background, rng, window) for _ in range(several - 1)]
        alone[-1], more[-1] = [nothing], [nothing, *(p for p in extra if p)]
    return make_view(chosen, window, [alone, more], rng)


def make_view(
    objects: Sequence[Instance], window: Window, groups: Sequence[Sequence[Prompt]], rng: Rng
) -> View:
    """The view of a window; the prompts, one an object in each group, in pixels of the image."""
    rgb, _ = crop_to_square(objects[0].rgb, tuple(map(float, window)), 0.0, SIZE)
    shown = {id(one.mask): downsampled_mask(one.mask, window, MASK_SIZE) for one in objects}
    targets = torch.stack([shown[id(one.mask)] for one in objects])
    area = window.width * window.height / MASK_SIZE**2
    whole = torch.tensor([np.count_nonzero(one.mask) / area for one in objects])
    offset = torch.tensor([window.x0, window.y0, 0.0])
    scale = torch.tensor([SIZE / window.width, SIZE / window.height, 1.0])
    prompts = [(torch.tensor(group, dtype=torch.float32) - offset) * scale for group in groups]
    outside = (whole - targets.sum((1, 2))).clamp(min=0).float()
    return View(recolor(rgb, rng), targets, outside, prompts)


def window_around(
    xy: tuple[float, float], image_size: tuple[int, int], share: float, rng: Rng
) -> Window:
    """A window of this share of an (H, W) image's sides, in it, with the point near its middle."""
    height, width = image_size
    w, h = max(1, round(share * width)), max(1, round(share * height))
    dx, dy = rng.uniform(-0.15, 0.15, 2)
    x0 = min(max(round(xy[0] - (0.5 + dx) * w), 0), width - w)
    y0 = min(max(round(xy[1] - (0.5 + dy) * h), 0), height - h)
    return Window(x0, y0, x0 + w, y0 + h)


def mirrored(instance: Instance) -> Instance:
    width, (x0, y0, x1, y1) = instance.mask.shape[1], instance.box.xyxy
    box = Box(width - x1, y0, width - x0, y1)
    return Instance(instance.rgb[:, ::-1], instance.mask[:, ::-1], box)


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


def point_in(mask: BoolMask, rng: Rng, window: Window | None = None, *, label: int = 1) -> Any:
    """The centre of a random pixel of the mask, and of the window; None where there is none."""
    x0, y0, x1, y1 = (window or Window.whole(mask.shape)).clip(mask.shape)
    pixels = np.flatnonzero(mask[y0:y1, x0:x1])
    if not len(pixels):
        return None
    y, x = divmod(int(pixels[int(rng.integers(len(pixels)))]), x1 - x0)
    return (x0 + x + 0.5, y0 + y + 0.5, label)


def near_center(instance: Instance, window: Window) -> Any:
    """The centre of the box, where the object covers it and the window shows it, else None."""
    x, y = instance.box.center
    inside = window.x0 <= x < window.x1 and window.y0 <= y < window.y1
    return (x, y, 1) if inside and instance.mask[int(y), int(x)] else None


def _side(instance: Instance) -> float:
    return min(instance.box.width, instance.box.height)


def recolor(rgb: Tensor, rng: Rng) -> Tensor:
    """The crop with another brightness, contrast and saturation."""
    gain, lift, color = rng.uniform(0.7, 1.3), rng.uniform(-0.12, 0.12), rng.uniform(0.3, 1.4)
    grey = rgb.mean(0, keepdim=True)
    return (grey + (rgb - grey) * color) * gain + lift
