"""SAM 2 weights from wherever they are, as transformers' `Sam2Model`, and how its images are made.

Three sources: a hub id, a local folder in transformers' format, and an official `.pt` checkpoint.
Whatever the weights are stored as, they are float32 here; a weight that is missing is an error,
never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsvp import registry
from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform import machine
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import quiet
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.checkpoints import OFFICIAL_SIZE, load_official
from rsvp.segmenters.crops import IMAGENET_MEAN, IMAGENET_STD

hide_broken_torchvision()

from safetensors import SafetensorError  # noqa: E402
from transformers import Sam2Config, Sam2Model  # noqa: E402

_STRIDES = (4, 8, 16)  # of the three feature levels, high to low resolution
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        size: side of the model's square input, in pixels.
        mean, std: per channel, of values in 0..1.
        crop_margin: look at a crop of each box with this margin; None looks at the whole image.
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
    if model == "embedded":
        return _load_folder(_existing(str(registry.embedded_folder("segmenter"))))
    if Path(model).suffix in (".pt", ".pth"):
        return load_official(_existing(model)), Preprocessing(OFFICIAL_SIZE)
    return _load_folder(hub_folder(model, "SAM 2 weights"))


def _existing(name: str) -> Path:
    path = machine.local_path(name)
    if path is None:
        raise ModelUnavailable(f"there are no SAM 2 weights at {name}")
    return path


def _load_folder(folder: Path) -> tuple[Sam2Model, Preprocessing]:
    try:
        with quiet():
            config = _folder_config(folder)
            preprocessing = _read_preprocessing(folder, config)
            _set_image_size(config, preprocessing.size)
            load: Any = Sam2Model.from_pretrained
            net, info = load(folder, config=config, dtype=torch.float32, output_loading_info=True)
    except _UNREADABLE as error:
        raise ModelUnavailable(f"{folder} cannot be read as SAM 2: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelUnavailable(f"{folder} lacks weights of SAM 2, first {missing[0]}")
    return net, preprocessing


def _folder_config(folder: Path) -> Any:
    """The hub's checkpoints are saved as the video model, whose image half is the same."""
    if not (folder / "config.json").is_file():
        raise ValueError("it has no config.json")
    kind = _json(folder / "config.json").get("model_type")
    if kind not in ("sam2", "sam2_video"):
        raise ValueError(f"its config.json names a model of type {kind!r}, not 'sam2'")
    return Sam2Config.from_pretrained(folder)


def _read_preprocessing(folder: Path, config: Any) -> Preprocessing:
    """What the folder says of its images; where it is silent, the config and ImageNet."""
    settings = _json(folder / "preprocessor_config.json")
    if not settings:  # transformers 5 nests it in the processor's file
        settings = _json(folder / "processor_config.json").get("image_processor", {})
    margin = settings.get("crop_margin")
    return Preprocessing(
        size=_side(settings.get("size", config.prompt_encoder_config.image_size)),
        mean=_three(settings.get("image_mean", IMAGENET_MEAN)),
        std=_three(settings.get("image_std", IMAGENET_STD)),
        crop_margin=None if margin is None else checked_margin(margin),
    )


def _json(path: Path) -> dict[str, Any]:
    """The settings in a file, none where there is no file."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no settings")
    return found


def checked_margin(margin: float) -> float:
    """The margin itself.

    Raises:
        ValueError: not a finite number of at least 0.
    """
    if isinstance(margin, bool) or not math.isfinite(margin) or margin < 0:
        raise ValueError(f"crop_margin is a number of at least 0, e.g. 0.15, found {margin!r}")
    return float(margin)


def _side(size: Any) -> int:
    sides = list(size.values()) if isinstance(size, Mapping) else size
    sides = list(sides) if isinstance(sides, (list, tuple)) else [sides, sides]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int) or sides[0] % 32:
        raise ValueError(f"the image size is a square of a multiple of 32 pixels, found {size}")
    return sides[0]


def _three(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"image_mean and image_std are three numbers each, found {values}")
    return numbers


def _set_image_size(config: Any, size: int) -> None:
    """Make the model take squares of `size`: its position embeddings are resized as it runs."""
    config.prompt_encoder_config.image_size = size
    config.vision_config.backbone_config.image_size = [size, size]
    config.vision_config.backbone_feature_sizes = [[size // s, size // s] for s in _STRIDES]
