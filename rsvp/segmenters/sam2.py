"""SAM 2, SAM 3 and EdgeTAM: transformers' classes behind the `Segmenter` protocol.

SAM 3's tracker and EdgeTAM take SAM 2's prompts and have its mask decoder; their image encoders
differ, and SAM 3's resizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from rsvp.errors import BadInput
from rsvp.segmenters.networks import Preprocessing, load_network
from rsvp.segmenters.point_prompts import PromptBatch
from rsvp.segmenters.promptable import PromptableSegmenter
from rsvp.segmenters.transforms import Window, crop_to_square
from rsvp.types import Image


class Sam2Segmenter(PromptableSegmenter):
    """SAM 2 from a hub id, a folder, an official `.pt` file, or ``embedded``.

    Attributes:
        kind: which of `KINDS` it loads.
    """

    kind: ClassVar[str] = "sam2"

    def __init__(
        self,
        model: str,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        crop_margin: float | None = None,
    ) -> None:
        """Load the weights.

        Args:
            device: e.g. ``cuda``; the best one of this machine by default.
            dtype: of the image encoder's products: bfloat16 on CUDA and float32 elsewhere by
                default. The mask decoder, cheap and sensitive, always computes in float32.
            crop_margin: encode a crop of each box, larger by this fraction of the box on each side;
                by default what the folder's `preprocessor_config.json` says, else the whole image.
                Points without a box get one first, see `PromptableSegmenter.locate`.

        Raises:
            ModelUnavailable: no such weights, or another model's.
            MissingExtra: EdgeTAM without timm.
            BadInput: a device that this machine lacks, an unknown dtype, a negative margin.
        """
        net, preprocessing = load_network(self.kind, model)
        if crop_margin is not None:
            try:
                preprocessing = replace(preprocessing, crop_margin=crop_margin)
            except ValueError as error:
                raise BadInput(str(error)) from error
        self._place(net, preprocessing, f"{self.kind}:{model}", device, dtype)

    def _place(self, net: Any, preprocessing: Preprocessing, *where: Any) -> None:
        super()._place(net, preprocessing, *where)
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(3, 1, 1)
        self.net.vision_encoder.register_forward_hook(_three_levels)

    @torch.inference_mode()
    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """See `PromptableSegmenter.features`."""
        made = self.preprocessing
        how: Any = {"fill": made.mean, "pad": made.pad, "resampling": made.resampling}
        squares = [crop_to_square(image.rgb, box, 0.0, made.size, **how)[0] for image, box in views]
        pixels = torch.stack(squares).to(self.device).sub_(self._mean).div_(self._std)
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            return [level.float() for level in self._embeddings(pixels)]

    def _embeddings(self, pixels: torch.Tensor) -> Sequence[torch.Tensor]:
        """The features of normalised pixels, (n, 3, size, size)."""
        levels: list[torch.Tensor] = self.net.get_image_embeddings(pixels)
        return levels

    def _predict(
        self, features: Sequence[torch.Tensor], prompts: PromptBatch, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `PromptableSegmenter._predict`."""
        # (images, prompts of each, points of each, 2): one image, or one image a prompt.
        axis = 0 if len(features[-1]) == 1 else 1
        found = self.net(
            image_embeddings=list(features),
            input_points=prompts.coords.unsqueeze(axis),
            input_labels=prompts.labels.unsqueeze(axis),
            multimask_output=multimask,
        )
        return found.pred_masks.flatten(0, 1), found.iou_scores.flatten(0, 1)


class Sam3Segmenter(Sam2Segmenter):
    """SAM 3's tracker from a hub id or a folder, e.g. ``facebook/sam3``: boxes and points."""

    kind = "sam3"


class EdgeTamSegmenter(Sam2Segmenter):
    """EdgeTAM from a hub id or a folder, e.g. ``yonigozlan/EdgeTAM-hf``; needs timm."""

    kind = "edgetam"


def _three_levels(_net: Any, _inputs: Any, output: Any) -> None:
    """Hook of the image encoder: leave out the level that SAM 3's tracker does not use.

    transformers 5.23 adds the embedding for "no memory" to the last level, then drops the fourth
    (`Sam3TrackerModel.get_image_embeddings`); the official code adds it to the third.
    """
    if levels := getattr(output, "fpn_hidden_states", None):
        output.fpn_hidden_states = levels[:3]
