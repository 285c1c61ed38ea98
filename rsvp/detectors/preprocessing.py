"""An image as Grounding DINO's input: the official transform, without torchvision.

`RandomResize([800], max_size=1333)`, `ToTensor`, `Normalize` of the official inference: resized by
Pillow with antialiased bilinear filtering as in the original, so that the values are equal bit for
bit. transformers' own processor uses the same filter, but where the longer side is the limit it
rounds that side differently, by a few pixels at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pil

from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD, read_image_settings
from rsvp.types import RgbArray


@dataclass(frozen=True, slots=True)
class DetectorPreprocessing:
    """How an image becomes the network's input.

    Attributes:
        shortest, longest: sides in pixels: the shorter side becomes `shortest`, unless the longer
            one would then exceed `longest`.
        mean, std: per channel, of values in 0..1.
    """

    shortest: int = 800
    longest: int = 1333
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def read_preprocessing(folder: Path) -> DetectorPreprocessing:
    """The image settings of a folder in transformers' format; the official values by default.

    Raises:
        ValueError, TypeError, OSError: see `read_image_settings`; or it names no two sides.
    """
    settings, usual = read_image_settings(folder), DetectorPreprocessing()
    size = settings.get("size", {"shortest_edge": usual.shortest, "longest_edge": usual.longest})
    try:
        shortest, longest = int(size["shortest_edge"]), int(size["longest_edge"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"its image size is a shortest_edge and a longest_edge, found {size}"
        ) from error
    return DetectorPreprocessing(shortest, longest, settings["image_mean"], settings["image_std"])


def resized_size(
    image_size: tuple[int, int], preprocessing: DetectorPreprocessing
) -> tuple[int, int]:
    """(h, w) that an image of (H, W) is resized to, by the official rule."""
    height, width = image_size
    short, long = min(image_size), max(image_size)
    side = preprocessing.shortest
    if long / short * side > preprocessing.longest:
        side = max(1, round(preprocessing.longest * short / long))
    if short == side:
        return height, width
    if width < height:
        return int(side * height / width), side
    return side, int(side * width / height)


def to_pixels(rgb: RgbArray, preprocessing: DetectorPreprocessing) -> torch.Tensor:
    """(1, 3, h, w) float32, on the CPU, of an (H, W, 3) uint8 image."""
    height, width = resized_size((rgb.shape[0], rgb.shape[1]), preprocessing)
    resized = Pil.fromarray(rgb).resize((width, height), Pil.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div(255)
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    return values.sub(mean).div(std)[None]
