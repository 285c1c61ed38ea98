"""Imports the `sam2` package, also where torchvision is missing or broken.

The package (https://github.com/facebookresearch/sam2) takes three transforms and NMS from
torchvision. Where torchvision doesn't work, as beside many CPU builds of torch, the functions below
replace them, and only while the package is imported: other packages, transformers above all, see
torchvision as it was.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rsvp.errors import MissingExtra, ModelUnavailable, first_line
from rsvp.platform.torchvision import stub_modules, torchvision_works
from rsvp.segmenters.mask_filter import box_nms

# The package's own requirements would install torchvision, and its build another torch.
INSTALL = (
    "pip install 'rsvp[sam2]' && "
    "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0"
)


class Package(NamedTuple):
    """What rsvp uses of the package.

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
    """Import the package, with the installed torchvision if it works.

    Raises:
        ModelUnavailable: it is not installed, or cannot be imported.
        MissingExtra: it is installed, but not what it builds on.
    """
    if importlib.util.find_spec("sam2") is None:
        raise ModelUnavailable(f"the sam2 package is not installed: {INSTALL}")
    for name in ("hydra", "iopath", "tqdm"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra("the sam2 package", "sam2")
    stubs = {} if torchvision_works() else _TORCHVISION
    with stub_modules(stubs), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra uses deprecated functions
        try:
            automatic = importlib.import_module("sam2.automatic_mask_generator")
            predictor = importlib.import_module("sam2.sam2_image_predictor")
            builder = importlib.import_module("sam2.build_sam")
        except Exception as error:
            raise ModelUnavailable(
                f"the sam2 package cannot be imported: {first_line(error)}"
            ) from error
    return Package(
        predictor.SAM2ImagePredictor,
        automatic.SAM2AutomaticMaskGenerator,
        Path(str(builder.__file__)).parent / "configs",
        dict(builder.HF_MODEL_ID_TO_FILENAMES),
    )


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
        if list(image.shape[1:]) == size:  # torchvision returns it unchanged, too
            return image
        return F.interpolate(
            image[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0]


class _Normalize(nn.Module):
    """(3, H, W), each channel minus its mean, divided by its standard deviation."""

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
    """NMS among the boxes of each category, `idxs`; the remaining rows, best score first."""
    offsets = idxs.to(boxes) * (boxes.max() + 1) if len(boxes) else idxs.to(boxes)
    return box_nms(boxes + offsets[:, None], scores, iou_threshold)


_TORCHVISION: dict[str, dict[str, Any]] = {
    "torchvision": {},
    "torchvision.transforms": {"ToTensor": _ToTensor, "Resize": _Resize, "Normalize": _Normalize},
    "torchvision.ops": {},
    "torchvision.ops.boxes": {
        "batched_nms": _batched_nms,
        "box_area": lambda boxes: (boxes[:, 2:] - boxes[:, :2]).prod(dim=1),
    },
}
