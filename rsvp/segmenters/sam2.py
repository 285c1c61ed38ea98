"""SAM 2: transformers' `Sam2Model` behind the `Segmenter` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rsvp.errors import BadInput
from rsvp.segmenters.point_prompts import PromptBatch
from rsvp.segmenters.promptable import PromptableSegmenter
from rsvp.segmenters.sam2_weights import Preprocessing, load_sam2
from rsvp.segmenters.transforms import Window, crop_to_square
from rsvp.types import Image


class Sam2Segmenter(PromptableSegmenter):
    """SAM 2 from a hub id, a folder, an official `.pt` file, or ``embedded``."""

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
            ModelUnavailable: no such weights, or not SAM 2's.
            BadInput: a device that this machine lacks, an unknown dtype, a negative margin.
        """
        net, preprocessing = load_sam2(model)
        if crop_margin is not None:
            try:
                preprocessing = replace(preprocessing, crop_margin=crop_margin)
            except ValueError as error:
                raise BadInput(str(error)) from error
        self._place(net, preprocessing, f"sam2:{model}", device, dtype)

    def _place(self, net: Any, preprocessing: Preprocessing, *where: Any) -> None:
        super()._place(net, preprocessing, *where)
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(3, 1, 1)

    @torch.inference_mode()
    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """See `PromptableSegmenter.features`."""
        size, mean = self.preprocessing.size, self.preprocessing.mean
        squares = [crop_to_square(image.rgb, box, 0.0, size, fill=mean)[0] for image, box in views]
        pixels = torch.stack(squares).to(self.device).sub_(self._mean).div_(self._std)
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            return [level.float() for level in self.net.get_image_embeddings(pixels)]

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
