"""HQ-SAM: transformers' `SamHQModel` behind the `Segmenter` protocol.

https://arxiv.org/abs/2306.01567. SAM's mask decoder with one more token, whose mask is added to
the mask of the prompt, and which also sees early features of the image encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rsvp.segmenters.point_prompts import TOP_LEFT, PromptBatch
from rsvp.segmenters.sam2 import Sam2Segmenter


class SamHqSegmenter(Sam2Segmenter):
    """HQ-SAM from a hub id or a folder, e.g. ``syscv-community/sam-hq-vit-base``."""

    kind = "sam-hq"

    def _place(self, net: Any, *where: Any) -> None:
        super()._place(net, *where)
        _upscale_attended(self.net.mask_decoder)

    def _embeddings(self, pixels: torch.Tensor) -> Sequence[torch.Tensor]:
        """The encoder's first global features, (n, h, w, width), and the image embedding."""
        embedding, early = self.net.get_image_embeddings(pixels)
        return early[0], embedding

    def _predict(
        self, features: Sequence[torch.Tensor], prompts: PromptBatch, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `PromptableSegmenter._predict`; SAM takes a box apart from the points."""
        early, embedding = features
        coords, labels = prompts
        axis = 0 if len(embedding) == 1 else 1
        given: dict[str, Any] = {}
        if labels[0, 0] == TOP_LEFT:
            given["input_boxes"] = coords[:, :2].flatten(1).unsqueeze(axis)
            coords, labels = coords[:, 2:], labels[:, 2:]
        if coords.shape[1]:
            given["input_points"] = coords.unsqueeze(axis)
            given["input_labels"] = labels.unsqueeze(axis)
        found = self.net(
            image_embeddings=embedding,
            intermediate_embeddings=[early],
            multimask_output=multimask,
            **given,
        )
        return found.pred_masks.flatten(0, 1), found.iou_scores.flatten(0, 1)


def _upscale_attended(decoder: Any) -> None:
    """Let the mask decoder upscale the image embedding that its transformer returns.

    The official code does (`mask_decoder_hq.py` of segment-anything-hq 0.3). transformers 5.23
    upscales what it gave the transformer instead, with rows and columns exchanged
    (`SamHQMaskDecoder.forward`); a version without this error is left as it is.
    """
    attended: list[torch.Tensor] = []

    def upscaled(_: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        # (images, prompts, h * w, channels) to (images * prompts, channels, h, w).
        return attended.pop().transpose(2, 3).reshape(inputs[0].shape)

    decoder.transformer.register_forward_hook(lambda *made: attended.append(made[2][1]))
    decoder.upscale_conv1.register_forward_pre_hook(upscaled)
