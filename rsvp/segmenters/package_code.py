"""The `sam2` package, imported also where torchvision cannot be.

The package (https://github.com/facebookresearch/sam2) takes three transforms and the removal of
duplicate boxes from torchvision. Where that is missing or broken, as beside many CPU builds of
torch, the same few functions stand in for it, and only while the package is imported: to everything
else, transformers above all, torchvision stays what it was.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rsvp.errors import MissingExtra, ModelUnavailable
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.duplicates import box_nms

# Its own requirements would pull torchvision in, and its build another torch.
INSTALL = (
    "pip install 'rsvp[sam2]' && "
    "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0"
)

_TORCHVISION = "torchvision"


class Package(NamedTuple):
    """What is taken from the package.

    Attributes:
        predictor: the class `SAM2ImagePredictor`.
        generator: the class `SAM2AutomaticMaskGenerator`.
        configs: the folder of its yaml files.
        checkpoints: hub id -> (yaml file, checkpoint's file), as the package knows them.
    """

    predictor: Any
    generator: Any
    configs: Path
    checkpoints: dict[str, tuple[str, str]]


@functools.cache
def load_package() -> Package:
    """Import the package, with its own torchvision where there is one.

    Raises:
        ModelUnavailable: it is not installed, or cannot be imported.
        MissingExtra: it is, but not what it builds on.
    """
    if importlib.util.find_spec("sam2") is None:
        raise ModelUnavailable(f"the sam2 package is not installed: {INSTALL}")
    for name in ("hydra", "iopath", "tqdm"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra("the sam2 package", "sam2")
    with _torchvision(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra's, of what its own libraries no longer like
        try:
            automatic = importlib.import_module("sam2.automatic_mask_generator")
            predictor = importlib.import_module("sam2.sam2_image_predictor")
            builder = importlib.import_module("sam2.build_sam")
        except Exception as error:
            why = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise ModelUnavailable(f"the sam2 package cannot be imported: {why[0]}") from error
    return Package(
        predictor.SAM2ImagePredictor,
        automatic.SAM2AutomaticMaskGenerator,
        Path(str(builder.__file__)).parent / "configs",
        dict(builder.HF_MODEL_ID_TO_FILENAMES),
    )


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """For the time of an import: torchvision itself, or what stands in for it."""
    hide_broken_torchvision()
    if sys.modules.get(_TORCHVISION, ...) is not None and importlib.util.find_spec(_TORCHVISION):
        yield
        return
    before = {name: module for name, module in sys.modules.items() if _is_torchvision(name)}
    sys.modules.update(_stand_ins())
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_torchvision(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_torchvision(name: str) -> bool:
    return name.partition(".")[0] == _TORCHVISION


def _stand_ins() -> dict[str, types.ModuleType]:
    """The modules that the package imports from, with the names that it asks for."""
    names: dict[str, dict[str, Any]] = {
        _TORCHVISION: {},
        f"{_TORCHVISION}.transforms": {
            "ToTensor": _ToTensor, "Resize": _Resize, "Normalize": _Normalize,
        },
        f"{_TORCHVISION}.ops": {},
        f"{_TORCHVISION}.ops.boxes": {"batched_nms": _batched_nms, "box_area": _box_area},
    }  # fmt: skip
    modules = {}
    for name, contents in names.items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(contents)
    return modules


class _ToTensor:
    """(H, W, 3) uint8 to (3, H, W) float32 in 0..1."""

    def __call__(self, image: Any) -> torch.Tensor:
        planes = np.array(np.asarray(image).transpose(2, 0, 1), order="C")
        return torch.from_numpy(planes).float().div(255)


class _Resize(nn.Module):
    """Antialiased bilinear, (3, H, W) to (3, h, w)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = [self.height, self.width]
        # What torchvision leaves alone, too: the filter would not change it.
        if image.shape[1] == self.height and image.shape[2] == self.width:
            return image
        return F.interpolate(
            image[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0]


class _Normalize(nn.Module):
    """(3, H, W), each channel less its mean, over its deviation."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(self.mean, dtype=image.dtype, device=image.device)
        std = torch.tensor(self.std, dtype=image.dtype, device=image.device)
        return (image - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def _batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Duplicates among the boxes of one kind each, `idxs`; the rows kept, best score first."""
    apart = idxs.to(boxes) * (boxes.max() + 1) if len(boxes) else idxs.to(boxes)
    return box_nms(boxes + apart[:, None], scores, iou_threshold)


def _box_area(boxes: torch.Tensor) -> torch.Tensor:
    """(n,) areas of (n, 4) xyxy boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
