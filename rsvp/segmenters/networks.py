"""Networks of the SAM family as transformers' classes in float32, and how their input is made.

From a hub id or a folder in transformers' format; SAM 2 also from official checkpoints. Folders
that hold a video model are read as they are published: its image network alone is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsvp import registry
from rsvp.errors import BadInput, MissingExtra, ModelUnavailable
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import (
    CHECKPOINT_SUFFIXES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_model_type,
    checkpoint_path,
    load_float32,
    read_image_settings,
    read_settings,
    reading,
    transformers,
)
from rsvp.segmenters.sam2_weights import OFFICIAL_SIZE, load_official
from rsvp.segmenters.transforms import Resampling

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes a network's input.

    Attributes:
        size: side of the square input, in pixels.
        mean, std: per channel, of values in 0..1.
        crop_margin: encode a crop of each box with this margin, and windows around points without
            a box; None encodes the whole image.
        pad, resampling: see `crop_to_square`.
        patch: pixels of the input to a cell of the image embedding, across and down.

    Raises:
        ValueError: the margin is not a finite number of at least 0.
    """

    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_margin: float | None = None
    pad: bool = False
    resampling: Resampling = "float"
    patch: int = 16

    def __post_init__(self) -> None:
        margin = self.crop_margin
        if margin is not None and (
            isinstance(margin, bool) or not math.isfinite(margin) or margin < 0
        ):
            raise ValueError(f"crop_margin is a number of at least 0, e.g. 0.15, found {margin!r}")

    @property
    def mask_side(self) -> int:
        """Side of the square logits."""
        return self.size // self.patch * 4

    @property
    def padded(self) -> int | None:
        """Side of the padded square that logits cover; None where they cover the window."""
        return self.size if self.pad else None


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """A class of networks, and how its folders are read.

    Attributes:
        title: for people.
        classes: how the names of transformers' classes begin.
        model_types: of `config.json`.
        usual: the preprocessing where a folder says nothing else.
        nested: where the `config.json` of a larger model has this network's.
        steerable: whether its mask decoder has SAM 2's layout, on which the VLSM builds.
        vision: whether it needs timm and torchvision, which the extra of that name brings.
    """

    title: str
    classes: str
    model_types: tuple[str, ...]
    usual: Preprocessing
    nested: str = ""
    steerable: bool = True
    vision: bool = False


# By the name of the segmenter.
KINDS = {
    "sam2": NetworkKind("SAM 2", "Sam2", ("sam2", "sam2_video"), Preprocessing(OFFICIAL_SIZE)),
    "sam3": NetworkKind(
        "SAM 3",
        "Sam3Tracker",
        ("sam3_tracker", "sam3_video"),
        Preprocessing(1008, _HALF, _HALF, resampling="uint8", patch=14),
        nested="tracker_config",
    ),
    "edgetam": NetworkKind(
        "EdgeTAM",
        "EdgeTam",
        ("edgetam", "edgetam_video"),
        Preprocessing(1024),
        vision=True,  # its image encoder is one of timm's
    ),
    "sam-hq": NetworkKind(
        "HQ-SAM",
        "SamHQ",
        ("sam_hq",),
        Preprocessing(1024, pad=True, resampling="pillow"),
        steerable=False,
    ),
}


def load_network(name: str, model: str) -> tuple[Any, Preprocessing]:
    """Load a network, on the CPU, in float32, ready for inference.

    Args:
        name: one of `KINDS`.
        model: a hub id or a folder; for ``sam2`` also a `.pt` or `.pth` file, or ``embedded``.

    Raises:
        ModelUnavailable: not there, not readable, or another model; one line says which and what
            to do.
        MissingExtra: EdgeTAM without timm.
    """
    kind = KINDS[name]
    official = Path(model).suffix in CHECKPOINT_SUFFIXES
    if name == "sam2" and official:
        return load_official(checkpoint_path(model, kind.title)), kind.usual
    if official or (name != "sam2" and model == "embedded"):
        raise ModelUnavailable(
            f"{name} reads hub ids and folders in transformers' format, found {model}"
        )
    if model == "embedded":
        model = str(registry.embedded_folder("segmenter"))
    return load_folder(kind, hub_folder(model, f"{kind.title} weights"))


def load_folder(kind: NetworkKind, folder: Path) -> tuple[Any, Preprocessing]:
    """The network of a folder; errors as of `load_network`."""
    with reading(folder, kind.title):
        check_model_type(folder, kind.model_types)
        try:
            config = _read_config(folder, kind)
            preprocessing = _read_preprocessing(folder, kind, config)
            _set_size(config, preprocessing)
            return load_float32(_class(kind, "Model"), folder, config=config), preprocessing
        except ImportError as error:
            if not kind.vision:
                raise
            raise MissingExtra(kind.title, "vision") from error


def load_sam2(model: str) -> tuple[transformers.Sam2Model, Preprocessing]:
    """`load_network` of SAM 2."""
    return load_network("sam2", model)


def load_base(source: str) -> tuple[Any, Preprocessing]:
    """Load a network that the VLSM can build on; errors as of `load_network`.

    Args:
        source: ``NAME:MODEL``; without a name of `KINDS` it is SAM 2's.

    Raises:
        BadInput: its mask decoder has another layout.
    """
    name, _, model = source.partition(":")
    if name not in KINDS or not model:
        name, model = "sam2", source
    if not KINDS[name].steerable:
        raise BadInput(
            f"the VLSM steers a mask decoder of SAM 2's layout, {KINDS[name].title} has another; "
            f"those of {', '.join(known for known, kind in KINDS.items() if kind.steerable)} fit"
        )
    return load_network(name, model)


def _class(kind: NetworkKind, name: str) -> Any:
    return getattr(transformers, kind.classes + name)


def _read_config(folder: Path, kind: NetworkKind) -> Any:
    nested = read_settings(folder / "config.json").get(kind.nested)
    if nested is None:
        return _class(kind, "Config").from_pretrained(folder)
    return _class(kind, "Config").from_dict(nested)


def _read_preprocessing(folder: Path, kind: NetworkKind, config: Any) -> Preprocessing:
    usual = kind.usual
    settings = read_image_settings(folder, usual.mean, usual.std)
    size = _side(settings.get("size", _prompts(config).image_size), 2 * usual.patch)
    if usual.pad and size != config.vision_config.image_size:
        side = config.vision_config.image_size  # of the table of position embeddings
        raise ValueError(f"its weights are for images of {side} pixels, found {size}")
    return Preprocessing(
        size,
        settings["image_mean"],
        settings["image_std"],
        settings.get("crop_margin"),
        usual.pad,
        usual.resampling,
        usual.patch,
    )


def _prompts(config: Any) -> Any:
    """The part of a config that has the side of the input; SAM 3's detector has no such prompts."""
    return getattr(config, "prompt_encoder_config", config.vision_config)


def _side(size: Any, multiple: int) -> int:
    sides = list(size.values()) if isinstance(size, Mapping) else size
    sides = list(sides) if isinstance(sides, (list, tuple)) else [sides]
    side = sides[0] if len(set(sides)) == 1 else None
    if not isinstance(side, int) or side % multiple:
        raise ValueError(
            f"the image size is a square of a multiple of {multiple} pixels, found {size}"
        )
    return side


def _set_size(config: Any, preprocessing: Preprocessing) -> None:
    """Let position embeddings be resized to the input's size as the network runs."""
    if preprocessing.pad:
        return
    size, cells = preprocessing.size, preprocessing.size // preprocessing.patch
    _prompts(config).image_size = size
    config.vision_config.backbone_feature_sizes = [[cells * n, cells * n] for n in (4, 2, 1)]
    backbone = config.vision_config.backbone_config
    if hasattr(backbone, "image_size"):
        backbone.image_size = size if isinstance(backbone.image_size, int) else [size, size]
