"""Grounding DINO and MM-Grounding-DINO: transformers' networks behind the `Detector` protocol.

https://arxiv.org/abs/2303.05499 and https://arxiv.org/abs/2401.02361.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rsvp.detectors.grounded import DUPLICATES, THRESHOLD, GroundedDetector
from rsvp.detectors.loading import TEXT_ENCODER, load_text, load_tokenizer, model_folder
from rsvp.detectors.official import load_official
from rsvp.detectors.pixels import Preprocessing, read_preprocessing
from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform import machine
from rsvp.platform.pretrained import quiet
from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from safetensors import SafetensorError  # noqa: E402
from transformers import AutoModelForZeroShotObjectDetection  # noqa: E402

_KINDS = ("grounding-dino", "mm-grounding-dino")
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)


class GroundingDinoDetector(GroundedDetector):
    """Grounding DINO from a hub id, a folder, or an official `.pth` file."""

    def __init__(
        self,
        model: str,
        *,
        threshold: float | None = THRESHOLD,
        iou: float | None = DUPLICATES,
        text_encoder: str = TEXT_ENCODER,
        device: str | torch.device | None = None,
    ) -> None:
        """Load the weights.

        Args:
            model: e.g. ``IDEA-Research/grounding-dino-tiny`` or
                ``openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det``, a folder of
                either kind, or a `.pth` file of the official project.
            threshold: leave out boxes with a lower score; None keeps every one.
            iou: of boxes that overlap by more, keep the best; None keeps all.
            text_encoder: where a `.pth` file's tokenizer comes from; a folder brings its own.
            device: e.g. ``cuda``; the best one here by default.

        Raises:
            ModelUnavailable: no such weights, or of another model.
            BadInput: a device that is not here; a threshold or iou that is not 0 to 1.
        """
        if Path(model).suffix in (".pt", ".pth"):
            net, tokenizer, preprocessing = _from_file(model, text_encoder)
        else:
            net, tokenizer, preprocessing = _from_folder(model_folder(model))
        super().__init__(
            f"grounding-dino:{model}",
            net,
            tokenizer,
            max_tokens=net.config.max_text_len,
            preprocessing=preprocessing,
            threshold=threshold,
            iou=iou,
            device=device,
        )

    def _forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.net(pixel_values=pixels, input_ids=ids)
        return found.logits[0], found.pred_boxes[0]


def _from_file(model: str, text_encoder: str) -> tuple[Any, Any, Preprocessing]:
    path = machine.local_path(model)
    if path is None:
        raise ModelUnavailable(f"there are no Grounding DINO weights at {model}")
    tokenizer, bert = load_text(text_encoder)
    return load_official(path, bert), tokenizer, Preprocessing()


def _from_folder(folder: Path) -> tuple[Any, Any, Preprocessing]:
    load: Any = AutoModelForZeroShotObjectDetection.from_pretrained
    try:
        _check_kind(folder)
        preprocessing = read_preprocessing(folder)
        with quiet():
            net, info = load(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except _UNREADABLE as error:
        raise ModelUnavailable(
            f"{folder} cannot be read as Grounding DINO: {first_line(error)}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelUnavailable(f"{folder} lacks weights of Grounding DINO, first {missing[0]}")
    return net, load_tokenizer(folder), preprocessing


def _check_kind(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ValueError("it has no config.json")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if kind not in _KINDS:
        raise ValueError(f"its config.json names a model of type {kind!r}, not {_KINDS[0]!r}")
