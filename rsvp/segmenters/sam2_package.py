"""SAM 2 by the `sam2` package itself: its yaml configs, its networks, its image predictor.

https://github.com/facebookresearch/sam2, an optional package. It answers as `sam2:` does on the
same weights (their mask logits differ by rounding alone); it is here for those who want the
authors' own code, and as what `sam2:` is measured against.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rsvp.errors import BadInput, ModelUnavailable, first_line
from rsvp.platform import machine
from rsvp.platform.devices import choose_placement
from rsvp.platform.pretrained import quiet
from rsvp.platform.pretrained import read_checkpoint as read_state
from rsvp.segmenters.checkpoints import (
    SIZES,
    difference,
    official_size,
)
from rsvp.segmenters.crops import Window
from rsvp.segmenters.decoding import (
    Decoded,
    Encoding,
    Prompt,
    alike,
    batch_size,
    best_of,
    chunks,
    cut_to,
    encode_whole,
    prompt_in,
    prompt_tensors,
    to_masks,
)
from rsvp.segmenters.package_code import Package, load_package
from rsvp.segmenters.weights import Preprocessing
from rsvp.types import Image, Masks, Proposal

log = logging.getLogger(__name__)

_YAML = dict(zip(SIZES, ("t", "s", "b+", "l"), strict=True))

# As the package's own `build_sam2` has it: where the single mask of a prompt is unstable, the best
# of the three is taken.
_DECODER = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


class Sam2PackageSegmenter:
    """SAM 2 from an official `.pt` file, or from the hub by one of the names the package knows.

    Looks at the whole image, whatever the proposal.

    Attributes:
        name: ``sam2-package:`` and the model.
        net: the package's `SAM2Base`, float32 weights, in eval mode.
        preprocessing: how its images are made; the package's own transform does it.
    """

    reads_labels = False

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
            device, dtype: as for `Sam2Segmenter`.

        Raises:
            MissingExtra: the package, or what it builds on, is not installed.
            ModelUnavailable: no such weights, or not SAM 2's.
            BadInput: a device that is not here, or an unknown dtype.
        """
        net = load_network(model)
        self._set_up(net, name=f"sam2-package:{model}", device=device, dtype=dtype)

    @classmethod
    def from_network(
        cls,
        net: Any,
        *,
        name: str = "sam2-package:network",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Sam2PackageSegmenter:
        """Wrap one of the package's networks in memory; it is moved and put into eval mode."""
        segmenter = cls.__new__(cls)
        segmenter._set_up(net, name=name, device=device, dtype=dtype)
        return segmenter

    def _set_up(
        self,
        net: Any,
        *,
        name: str,
        device: str | torch.device | None,
        dtype: str | torch.dtype | None,
    ) -> None:
        self.name = name
        placement = choose_placement(device, dtype)
        log.info("%s runs on %s", name, placement.reason)
        self.device, self.dtype = placement.device, placement.dtype
        self.net = net.to(self.device).eval()
        self.preprocessing = Preprocessing(int(net.image_size))
        self._predictor = load_package().predictor(self.net)
        # The predictor holds the sizes of the feature maps at 1024 pixels, whatever the network's.
        size = self.preprocessing.size
        self._predictor._bb_feat_sizes = [(size // s, size // s) for s in (4, 8, 16)]

    # ------------------------------------------------------------ the protocol

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        """Encode images, all in one encoder batch; see `Segmenter`."""
        return encode_whole(images, self.features)

    def masks(self, encoding: Encoding, proposals: Sequence[Proposal]) -> Masks:
        """One mask a proposal, at the image's own size; see `Segmenter`.

        A box is cut to the part that lies on the image.
        """
        found = self.mask_logits(encoding, proposals)
        windows = [Window.whole(encoding.image_size)] * len(proposals)
        return to_masks(found, windows, encoding.image_size)

    # ------------------------------------------------------------ one level below

    def mask_logits(self, encoding: Encoding, proposals: Sequence[Proposal]) -> Decoded:
        """The decoder's answer, each square of logits spread over the whole image."""
        size = self.preprocessing.size
        side = size // 4
        logits = torch.empty(len(proposals), side, side, device=self.device)
        scores = torch.empty(len(proposals), device=self.device)
        whole = Window.whole(encoding.image_size)
        prompts = [prompt_in(cut_to(p, encoding.image_size), whole, size) for p in proposals]
        batch = batch_size(self.preprocessing.size, self.device)
        for rows in chunks(range(len(proposals)), batch):
            for places in alike([prompts[row] for row in rows]):
                group = [rows[place] for place in places]
                found = self._decode(encoding.features, [prompts[row] for row in group])
                logits[group], scores[group] = found.logits, found.scores
        return Decoded(logits, scores)

    @torch.inference_mode()
    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """Features of windows inside images, (n, C, h, w) float32 each, high to low resolution."""
        predictor = copy.copy(self._predictor)  # it keeps the image that it is shown
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            predictor.set_image_batch([_pixels(image, window) for image, window in views])
        levels = [*predictor._features["high_res_feats"], predictor._features["image_embed"]]
        return [level.float() for level in levels]

    def every_mask(
        self, features: Sequence[torch.Tensor], points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All three masks of each point alone; see `Sam2Segmenter.every_mask`."""
        labels = torch.ones(len(points), 1, dtype=torch.int, device=self.device)
        return self._predict(features, points.to(self.device)[:, None], labels, multimask=True)

    def _decode(self, features: Sequence[torch.Tensor], prompts: Sequence[Prompt]) -> Decoded:
        """Prompts of one length, on the features of one image."""
        coords, kinds = prompt_tensors(prompts, self.device)
        return best_of(*self._predict(features, coords, kinds, multimask=prompts[0].ambiguous))

    @torch.inference_mode()
    def _predict(
        self,
        features: Sequence[torch.Tensor],
        coords: torch.Tensor,
        kinds: torch.Tensor,
        *,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, m, s, s) logits and (n, m) predicted IoUs by the package's predictor.

        It is told that the image is as large as the decoder's own masks: bringing them to that size
        leaves them as they are.
        """
        predictor = copy.copy(self._predictor)
        side = self.preprocessing.size // 4
        predictor._features = {"image_embed": features[-1], "high_res_feats": list(features[:-1])}
        predictor._orig_hw, predictor._is_image_set = [(side, side)], True
        logits, scores, _ = predictor._predict(
            coords, kinds, multimask_output=multimask, return_logits=True
        )
        return logits, scores


def _pixels(image: Image, window: Window) -> Any:
    """The (h, w, 3) uint8 of a window."""
    if window != window.inside((image.height, image.width)):
        raise BadInput(f"the sam2 package looks at parts of an image, found {tuple(window)}")
    return image.rgb[window.y0 : window.y1, window.x0 : window.x1]


def load_network(model: str) -> Any:
    """The package's `SAM2Base` with a checkpoint's weights, on the CPU, in float32.

    Built from the package's yaml file for what the checkpoint's shapes say it is.

    Raises:
        MissingExtra, ModelUnavailable: see `Sam2PackageSegmenter`.
    """
    package = load_package()
    path = _checkpoint(model, package)
    state = {key: value.float() for key, value in read_state(path, "SAM 2").items()}
    try:
        size = official_size(state)
    except ValueError as error:
        raise ModelUnavailable(f"{path} is no official SAM 2 checkpoint: {error}") from error
    # What 2.1 added to the video half tells the versions apart.
    version = "sam2.1" if "no_obj_embed_spatial" in state else "sam2"
    net = _instantiate(package.configs / version / f"{version}_hiera_{_YAML[size]}.yaml")
    if fault := difference(net.state_dict(), state):
        raise ModelUnavailable(f"{path} is no official SAM 2 checkpoint: {fault}")
    net.load_state_dict(state)
    return net


def _instantiate(yaml: Path) -> Any:
    """The network of a yaml file; hydra's global state, which an application may own, is let be."""
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
    """The `.pt` file itself, or where the hub's lies on this machine, downloaded if need be."""
    if Path(model).suffix in (".pt", ".pth"):
        path = machine.local_path(model)
        if path is None:
            raise ModelUnavailable(f"there are no SAM 2 weights at {model}")
        return path
    if model not in package.checkpoints:
        known = ", ".join(package.checkpoints)
        raise ModelUnavailable(
            f"the sam2 package reads official .pt files and {known}, found {model!r}"
        )
    return _from_hub(model, package.checkpoints[model][1])


def _from_hub(model: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    error: Exception | None = None
    for local_only in (True, False):
        # A file that is here already is used as it is, with no request to the hub.
        try:
            with quiet():
                return Path(hf_hub_download(model, file, local_files_only=local_only))
        except (OSError, ValueError, HfHubHTTPError) as failed:
            error = failed
    raise ModelUnavailable(
        f"{file} of {model} is not on this machine; get it with: hf download {model} {file}"
    ) from error
