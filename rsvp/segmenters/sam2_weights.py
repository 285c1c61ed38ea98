"""SAM 2 weights as transformers' `Sam2Model` in float32, and how the network's input is made.

Three sources: a hub id, a local folder in transformers' format, and an official `.pt` checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsvp import registry
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import (
    CHECKPOINT_SUFFIXES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_model_type,
    checkpoint_path,
    load_float32,
    read_image_settings,
    reading,
)
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.sam2_checkpoint import OFFICIAL_SIZE, load_official

hide_broken_torchvision()

from transformers import Sam2Config, Sam2Model  # noqa: E402

_STRIDES = (4, 8, 16)  # of the three feature levels, high to low resolution


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes SAM 2's input.

    Attributes:
        size: side of the square input, in pixels.
        mean, std: per channel, of values in 0..1.
        crop_margin: encode a crop of each box with this margin; None encodes the whole image.
    """

    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_margin: float | None = None


def load_sam2(model: str) -> tuple[Sam2Model, Preprocessing]:
    """Load SAM 2, on the CPU, in float32, ready for inference.

    Args:
        model: a hub id, a folder, a `.pt` or `.pth` file, or ``embedded``.

    Raises:
        ModelUnavailable: not there, not readable, or not SAM 2; one line says which and what to do.
    """
    if Path(model).suffix in CHECKPOINT_SUFFIXES:
        path = checkpoint_path(model, "SAM 2")
        return load_official(path), Preprocessing(OFFICIAL_SIZE)
    if model == "embedded":
        model = str(registry.embedded_folder("segmenter"))
    folder = hub_folder(model, "SAM 2 weights")
    with reading(folder, "SAM 2"):
        check_model_type(folder, ("sam2", "sam2_video"))  # both have the same image network
        config: Any = Sam2Config.from_pretrained(folder)
        preprocessing = _read_preprocessing(folder, config)
        _set_image_size(config, preprocessing.size)
        return load_float32(Sam2Model, folder, config=config), preprocessing


def _read_preprocessing(folder: Path, config: Any) -> Preprocessing:
    """The folder's image settings; the config's size and ImageNet's values by default."""
    settings = read_image_settings(folder)
    margin = settings.get("crop_margin")
    return Preprocessing(
        size=_side(settings.get("size", config.prompt_encoder_config.image_size)),
        mean=settings["image_mean"],
        std=settings["image_std"],
        crop_margin=None if margin is None else checked_margin(margin),
    )


def checked_margin(margin: float) -> float:
    """The margin itself; ValueError unless it is a finite number of at least 0."""
    if isinstance(margin, bool) or not math.isfinite(margin) or margin < 0:
        raise ValueError(f"crop_margin is a number of at least 0, e.g. 0.15, found {margin!r}")
    return float(margin)


def _side(size: Any) -> int:
    sides = list(size.values()) if isinstance(size, Mapping) else size
    sides = list(sides) if isinstance(sides, (list, tuple)) else [sides, sides]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int) or sides[0] % 32:
        raise ValueError(f"the image size is a square of a multiple of 32 pixels, found {size}")
    return sides[0]


def _set_image_size(config: Any, size: int) -> None:
    """Make the model take squares of `size`: its position embeddings are resized as it runs."""
    config.prompt_encoder_config.image_size = size
    config.vision_config.backbone_config.image_size = [size, size]
    config.vision_config.backbone_feature_sizes = [[size // s, size // s] for s in _STRIDES]
