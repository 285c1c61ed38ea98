"""SAM 3's concept segmentation as a detector: every instance of noun phrases, with its mask.

https://arxiv.org/abs/2511.16719. The image is encoded once. Each phrase gives a presence, the
probability that anything of it is on the image, and candidates; a candidate's score is its own
times the presence, as in the official post-processing. Of candidates whose masks overlap, whatever
their phrases, the best is kept. The VLSM and `sam3:` use the tracker of the same checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsvp.detectors import Candidates
from rsvp.detectors.grounded import load_tokenizer
from rsvp.errors import BadInput
from rsvp.platform.devices import choose_placement
from rsvp.platform.hub import WEIGHTS, hub_folder
from rsvp.segmenters.mask_filter import mask_nms, tight_boxes
from rsvp.segmenters.networks import KINDS, NetworkKind, load_folder
from rsvp.segmenters.transforms import Window, crop_to_square
from rsvp.types import Image, PackedMask

log = logging.getLogger(__name__)

MAX_TOKENS = 32  # of a phrase, with start and end; as in `Sam3Processor`
THRESHOLD, OVERLAP = 0.3, 0.7


class _Found(NamedTuple):
    """The candidates of one phrase: (n,) scores, (n, 4) boxes in 0..1, (n, h, w) mask logits."""

    scores: Tensor
    boxes: Tensor
    logits: Tensor


class Sam3Detector:
    """SAM 3's detector from a hub id or a folder, e.g. ``facebook/sam3``.

    Attributes:
        name: the spec that made it.
        net: the network, float32 weights, in eval mode.
        threshold: candidates with a lower score are left out; None keeps every one.
        overlap: the IoU of masks beyond which the worse candidate is left out; None keeps all.
    """

    kind: ClassVar[NetworkKind] = NetworkKind(
        "SAM 3", "Sam3", ("sam3", "sam3_video"), KINDS["sam3"].usual, nested="detector_config"
    )
    spec: ClassVar[str] = "sam3"

    def __init__(
        self,
        model: str,
        *,
        threshold: float | None = THRESHOLD,
        overlap: float | None = OVERLAP,
        device: str | torch.device | None = None,
    ) -> None:
        """Load the weights.

        Raises:
            ModelUnavailable: no such weights, or of another model.
            BadInput: a device that this machine lacks; a threshold or overlap that is not 0 to 1.
        """
        for option, value in (("threshold", threshold), ("overlap", overlap)):
            if value is not None and not 0 <= value <= 1:
                raise BadInput(f"{option} is 0 to 1, or None to switch it off, found {value!r}")
        folder = hub_folder(model, f"{self.kind.title} weights", (*WEIGHTS, "merges.txt"))
        net, self.preprocessing = load_folder(self.kind, folder)
        self.name, self.threshold, self.overlap = f"{self.spec}:{model}", threshold, overlap
        self.device = choose_placement(device, mps_dtype=None).device
        self.net = net.to(self.device).eval()
        self._tokenizer = load_tokenizer(folder)

    @torch.inference_mode()
    def candidates(self, image: Image, phrases: Sequence[str]) -> Candidates:
        """Every instance of the phrases, with its mask, best score first; see `Detector`."""
        tokens = self._tokens(phrases)
        found = list(self._detect(image, tokens))
        owners = [row for row, one in enumerate(found) for _ in one.scores]
        scores, boxes, logits = (torch.cat(column) for column in zip(*found, strict=True))
        small = logits > 0
        rows = small.flatten(1).any(dim=1).nonzero()[:, 0]
        if self.overlap is not None and len(rows):
            one = small[rows]
            rows = rows[mask_nms(one, tight_boxes(one), scores[rows], self.overlap)]
        else:
            rows = rows[scores[rows].argsort(descending=True, stable=True)]
        sides = boxes.new_tensor([image.width, image.height] * 2)
        corners = (boxes.clamp(0, 1) * sides)[rows]
        inside = (corners[:, :2] < corners[:, 2:]).all(dim=1)
        rows, corners = rows[inside], corners[inside]
        names = list(tokens)
        size = (image.height, image.width)
        return Candidates(
            corners.cpu().numpy(),
            scores[rows].cpu().numpy(),
            tuple(names[owners[row]] for row in rows.tolist()),
            tuple(PackedMask.pack(_full_size(logits[row], size)) for row in rows.tolist()),
        )

    def _tokens(self, phrases: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """The ids and the attention mask, (1, 32) each, of every different phrase."""
        if isinstance(phrases, str) or not phrases:
            raise BadInput("a detector needs a list of at least one phrase to look for")
        tokens: dict[str, tuple[Tensor, Tensor]] = {}
        for phrase in phrases:
            text = phrase.encode("utf-8", "replace").decode("utf-8").strip()
            if not any(character.isalnum() for character in text):
                raise BadInput(f"a phrase to look for has a word in it, found {phrase!r}")
            made = self._tokenizer(
                text, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
            )
            if made["input_ids"].shape[1] > MAX_TOKENS:  # e.g. a query that is a sentence
                log.warning("%s reads no phrase as long as %r: it is left out", self.name, text)
                continue
            tokens[phrase] = (made["input_ids"], made["attention_mask"])
        if not tokens:
            raise BadInput(f"no phrase is short enough: {MAX_TOKENS} tokens with start and end")
        return tokens

    def _detect(self, image: Image, tokens: dict[str, tuple[Tensor, Tensor]]) -> Iterator[_Found]:
        made = self.preprocessing
        square, _ = crop_to_square(
            image.rgb, Window.whole((image.height, image.width)), 0.0, made.size,
            resampling=made.resampling,
        )  # fmt: skip
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (made.mean, made.std))
        pixels = ((square - mean) / std)[None].to(self.device)
        vision = self.net.get_vision_features(pixel_values=pixels)
        for phrase, (ids, attention_mask) in tokens.items():
            found: Any = self.net(
                vision_embeds=vision,
                input_ids=ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
            )
            presence = found.presence_logits.sigmoid().flatten()[0]
            scores = (found.pred_logits[0].sigmoid() * presence).float()
            keep = scores > (-1 if self.threshold is None else self.threshold)
            log.info("%r: presence %.2f, %d candidates", phrase, float(presence), int(keep.sum()))
            yield _Found(scores[keep], found.pred_boxes[0][keep], found.pred_masks[0][keep])


class Sam3LiteDetector(Sam3Detector):
    """SAM 3 with a small text encoder, e.g. ``yonigozlan/sam3-litetext-s0``."""

    kind = NetworkKind("SAM 3 LiteText", "Sam3LiteText", ("sam3_lite_text",), KINDS["sam3"].usual)
    spec = "sam3-lite"


def _full_size(logits: Tensor, size: tuple[int, int]) -> Any:
    """(H, W) bool; probabilities are resized, not logits, as in the official post-processing."""
    resized = F.interpolate(logits.sigmoid()[None, None].float(), size, mode="bilinear")
    return np.asarray((resized[0, 0] > 0.5).cpu())
