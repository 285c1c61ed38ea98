"""What every Grounding DINO backend shares: phrases and pixels in, candidates out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rsvp.detectors import Candidates
from rsvp.detectors.captions import Caption, match_phrases, write_captions
from rsvp.detectors.preprocessing import DetectorPreprocessing, to_pixels
from rsvp.errors import BadInput, ModelUnavailable, first_line
from rsvp.platform.devices import choose_placement
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import reading, transformers
from rsvp.types import Image

THRESHOLD = 0.25  # the lower of the two that the official demos use
NMS_IOU = 0.8  # the network suppresses most duplicates itself; near copies are left
TEXT_ENCODER = "bert-base-uncased"
_TEXT_FILES = ("config.json", "tokenizer*", "vocab.txt", "special_tokens_map.json")


class GroundedDetector(ABC):
    """A `Detector` whose network reads a caption and scores each box for each of its tokens.

    Attributes:
        name: the spec that made it.
        net: the network, float32, in eval mode.
        device: of the network.
        threshold, iou: see `__init__`; None where disabled.
    """

    def __init__(
        self,
        name: str,
        net: torch.nn.Module,
        tokenizer: Any,
        *,
        max_tokens: int,
        preprocessing: DetectorPreprocessing,
        threshold: float | None,
        iou: float | None,
        device: str | torch.device | None,
    ) -> None:
        """Move the network to its device.

        Apple's MPS is used only when asked for: it lacks operators of deformable attention.

        Args:
            max_tokens: of a caption.
            threshold: leave out boxes with a lower score; None keeps every one.
            iou: of boxes with a higher IoU, whatever their phrases, keep the best; None keeps all.
            device: e.g. ``cuda``; the best one of this machine by default.

        Raises:
            BadInput: a device that this machine lacks; a threshold or iou that is not 0 to 1.
        """
        for option, value in (("threshold", threshold), ("iou", iou)):
            if value is not None and not 0 <= value <= 1:
                raise BadInput(f"{option} is 0 to 1, or None to switch it off, found {value!r}")
        self.name, self.threshold, self.iou = name, threshold, iou
        self.device = choose_placement(device, mps_dtype=None).device
        self.net = net.to(self.device).eval()
        self.preprocessing = preprocessing
        self._tokenizer, self._max_tokens = tokenizer, max_tokens

    def candidates(self, image: Image, phrases: Sequence[str]) -> Candidates:
        """All phrases in one forward pass, unless they exceed the tokens of a caption.

        See `rsvp.detectors.Detector`; `rsvp.detectors.captions` says how phrases are read.

        Returns:
            Boxes clipped to the image, best score first.
        """
        captions = write_captions(phrases, self._tokenizer, self._max_tokens)
        pixels = to_pixels(image.rgb, self.preprocessing).to(self.device)
        found = []
        for caption in captions:
            logits, boxes = (part.float().cpu().numpy() for part in self.detect(pixels, caption))
            found.append(match_phrases(logits, boxes, caption, (image.height, image.width)))
        return Candidates.concat(found).at_least(self.threshold).nms(self.iou)

    @torch.inference_mode()
    def detect(self, pixels: torch.Tensor, caption: Caption) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's output for one image, unfiltered.

        Args:
            pixels: (1, 3, h, w), as `rsvp.detectors.preprocessing.to_pixels` makes them.

        Returns:
            (n, T) logits, one for each of the T tokens of the caption; (n, 4) boxes, centre, width
            and height, 0 to 1 of the image.
        """
        ids = torch.tensor([caption.ids], device=self.device)
        logits, boxes = self._forward(pixels.to(self.device), ids)
        return logits[:, : len(caption.ids)], boxes

    @abstractmethod
    def _forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, at least T) and boxes (n, 4) of pixels (1, 3, h, w) and tokens (1, T)."""


def load_text(model: str) -> tuple[Any, transformers.BertConfig]:
    """BERT's tokenizer and config, without its weights, which come with a checkpoint.

    Args:
        model: a folder or a hub id.

    Raises:
        ModelUnavailable: not there, not readable, or not BERT.
    """
    folder = hub_folder(model, "tokenizer files", _TEXT_FILES, needs=("*",), bare=True)
    config = transformers.BertConfig()  # that of bert-base-uncased, where the folder has none
    if (folder / "config.json").is_file():
        with reading(folder, "BERT"):
            config = transformers.BertConfig.from_pretrained(folder)
    return load_tokenizer(folder), config


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        ModelUnavailable: none that can be read.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a broken file may raise anything
        raise ModelUnavailable(
            f"{folder} has no readable tokenizer: {first_line(error)}"
        ) from error
