"""SAM 2 by the `sam2` package itself: its yaml configs, its networks, its image predictor.

https://github.com/facebookresearch/sam2, an optional package. On the same weights its mask logits
differ from those of `sam2:` by rounding alone. Use it to run the authors' own code, and to compare
`sam2:` with it.

The package takes three transforms and NMS from torchvision. Where torchvision doesn't work, as
beside many CPU builds of torch, the functions at the end replace them, and only while the package
is imported: other packages, transformers above all, see torchvision as it was.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rsvp.errors import BadInput, MissingExtra, ModelUnavailable, first_line
from rsvp.platform.hub import hub_file
from rsvp.platform.pretrained import (
    CHECKPOINT_SUFFIXES,
    check_state_dict,
    checkpoint_path,
    read_checkpoint,
    reading,
)
from rsvp.platform.torchvision import stub_modules, torchvision_works
from rsvp.segmenters.mask_filter import box_nms
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.point_prompts import PromptBatch
from rsvp.segmenters.promptable import PromptableSegmenter
from rsvp.segmenters.sam2_weights import SIZES, official_size
from rsvp.segmenters.transforms import Window
from rsvp.types import Image

# The package's own requirements would install torchvision, and its build another torch.
INSTALL = (
    "pip install 'rsvp-segmentation[sam2]' && "
    "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0"
)

_YAML = dict(zip(SIZES, ("t", "s", "b+", "l"), strict=True))

# As in the package's `build_sam2`: where the single mask of a prompt is unstable, the best of the
# three is taken.
_DECODER = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


class Sam2PackageSegmenter(PromptableSegmenter):
    """SAM 2 from an official `.pt` file, or from the hub by a name that the package knows.

    It encodes the whole image for every proposal. The package's own transform makes its input.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        """Load the weights.

        Args:
            model: a `.pt` or `.pth` file, or a hub id, e.g. ``facebook/sam2.1-hiera-large``.
            device, dtype: see `Sam2Segmenter`, also for the errors.

        Raises:
            MissingExtra, ModelUnavailable: see `load_package`.
        """
        net = load_network(model)
        preprocessing = Preprocessing(int(net.image_size))
        self._place(net, preprocessing, f"sam2-package:{model}", device, dtype)

    def _place(self, net: Any, preprocessing: Preprocessing, *where: Any) -> None:
        super()._place(net, preprocessing, *where)
        self._predictor = load_package().predictor(self.net)
        # The predictor assumes the feature maps of a 1024-pixel input, whatever the network's.
        size = self.preprocessing.size
        self._predictor._bb_feat_sizes = [(size // s, size // s) for s in (4, 8, 16)]

    @torch.inference_mode()
    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """See `PromptableSegmenter.features`; the windows must lie inside the images."""
        for image, window in views:
            if window != window.clip((image.height, image.width)):
                found = tuple(window)
                raise BadInput(f"the sam2 package needs windows inside the image, found {found}")
        predictor = copy.copy(self._predictor)  # it stores the image
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            predictor.set_image_batch([i.rgb[w.y0 : w.y1, w.x0 : w.x1] for i, w in views])
        levels = [*predictor._features["high_res_feats"], predictor._features["image_embed"]]
        return [level.float() for level in levels]

    def _predict(
        self, features: Sequence[torch.Tensor], prompts: PromptBatch, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `PromptableSegmenter._predict`; the features are those of one image.

        The predictor resizes masks to the image's size; here that is the size of the decoder's own
        masks, so that they stay as they are.
        """
        predictor = copy.copy(self._predictor)
        side = self.preprocessing.size // 4
        predictor._features = {"image_embed": features[-1], "high_res_feats": list(features[:-1])}
        predictor._orig_hw, predictor._is_image_set = [(side, side)], True
        logits, scores, _ = predictor._predict(
            *prompts, multimask_output=multimask, return_logits=True
        )
        return logits, scores


def load_network(model: str) -> Any:
    """The package's `SAM2Base` with a checkpoint's weights, on the CPU, in float32.

    The checkpoint's shapes decide which of the package's yaml files it is built from.
    """
    package = load_package()
    path = _checkpoint(model, package)
    state = read_checkpoint(path, "SAM 2")
    with reading(path, "SAM 2", official=True):
        size = official_size(state)
    # Version 2.1 added this weight of the video predictor.
    version = "sam2.1" if "no_obj_embed_spatial" in state else "sam2"
    net = _instantiate(package.configs / version / f"{version}_hiera_{_YAML[size]}.yaml")
    with reading(path, "SAM 2", official=True):
        check_state_dict(net.state_dict(), state)
    net.load_state_dict(state)
    return net


def _instantiate(yaml: Path) -> Any:
    """The network of a yaml file; leaves alone hydra's global state, which an app may use."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    try:
        config: Any = OmegaConf.load(yaml)
        config.model.sam_mask_decoder_extra_args = _DECODER
        return instantiate(config.model, _recursive_=True)
    except Exception as error:  # a broken installation raises anything
        why = f"{yaml.name} of the sam2 package cannot be built: {first_line(error)}"
        raise ModelUnavailable(why) from error


def _checkpoint(model: str, package: Package) -> Path:
    """The `.pt` file itself, or the hub's file on this machine, downloaded if it isn't there."""
    if Path(model).suffix in CHECKPOINT_SUFFIXES:
        return checkpoint_path(model, "SAM 2")
    if model not in package.checkpoints:
        known = ", ".join(package.checkpoints)
        raise ModelUnavailable(
            f"the sam2 package reads official .pt files and {known}, found {model!r}"
        )
    return hub_file(model, package.checkpoints[model][1], "official SAM 2 weights")


# ------------------------------------------------------------ the import
# The package compiles the transforms with TorchScript, which reads only plain statements.


class Package(NamedTuple):
    """What rsvp uses of the package."""

    predictor: Any  # the class SAM2ImagePredictor
    generator: Any  # the class SAM2AutomaticMaskGenerator
    configs: Path  # the folder of its yaml files
    checkpoints: dict[str, tuple[str, str]]  # hub id -> (yaml file, checkpoint's file)


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
