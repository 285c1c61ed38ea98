"""Grounding DINO and MM-Grounding-DINO: transformers' networks behind the `Detector` protocol.

https://arxiv.org/abs/2303.05499 and https://arxiv.org/abs/2401.02361.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rsvp.detectors.checkpoint import load_official
from rsvp.detectors.grounded import (
    NMS_IOU,
    TEXT_ENCODER,
    THRESHOLD,
    GroundedDetector,
    load_text,
    load_tokenizer,
)
from rsvp.detectors.preprocessing import DetectorPreprocessing, read_preprocessing
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import (
    CHECKPOINT_SUFFIXES,
    check_model_type,
    checkpoint_path,
    load_float32,
    reading,
    transformers,
)

_MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")
_FILES = ("*.json", "*.safetensors", "vocab.txt")


class GroundingDinoDetector(GroundedDetector):
    """Grounding DINO from a hub id, a folder, or an official `.pth` file."""

    def __init__(
        self,
        model: str,
        *,
        threshold: float | None = THRESHOLD,
        iou: float | None = NMS_IOU,
        text_encoder: str = TEXT_ENCODER,
        device: str | torch.device | None = None,
    ) -> None:
        """Load the weights.

        Args:
            model: e.g. ``IDEA-Research/grounding-dino-tiny`` or
                ``openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det``, a folder of
                either kind, or a `.pth` file of the official project.
            threshold, iou, device: see `GroundedDetector`.
            text_encoder: the source of a `.pth` file's tokenizer; a folder has its own.

        Raises:
            ModelUnavailable: no such weights, or of another model.
            BadInput: a device that this machine lacks; a threshold or iou that is not 0 to 1.
        """
        preprocessing = DetectorPreprocessing()
        net: Any
        if Path(model).suffix in CHECKPOINT_SUFFIXES:
            path = checkpoint_path(model, "Grounding DINO")
            tokenizer, bert = load_text(text_encoder)
            net = load_official(path, bert)
        else:
            folder = hub_folder(model, "Grounding DINO weights", _FILES)
            with reading(folder, "Grounding DINO"):
                check_model_type(folder, _MODEL_TYPES)
                preprocessing = read_preprocessing(folder)
                net = load_float32(transformers.AutoModelForZeroShotObjectDetection, folder)
            tokenizer = load_tokenizer(folder)
        name, max_tokens = f"grounding-dino:{model}", net.config.max_text_len
        options: Any = {"threshold": threshold, "iou": iou, "device": device}
        super().__init__(name, net, tokenizer, max_tokens, preprocessing, **options)

    def _forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.net(pixel_values=pixels, input_ids=ids)
        return found.logits[0], found.pred_boxes[0]
