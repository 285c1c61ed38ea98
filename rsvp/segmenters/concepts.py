"""SAM 3's concept segmentation as a detector: every instance of noun phrases, with its mask.

https://arxiv.org/abs/2511.16719. The image is encoded once. Each phrase gives a presence, the
probability that anything of it is on the image, and candidates; a candidate's score is its own
times the presence, as in the official post-processing. Of candidates whose masks overlap, whatever
their phrases, the best is kept. Boxes around examples are one more prompt, with the text "visual"
as in `Sam3Processor`. The VLSM and `sam3:` use the tracker of the same checkpoint.
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
from rsvp.segmenters.roi_align import provide_roi_align
from rsvp.segmenters.transforms import Window, crop_to_square
from rsvp.types import Box, Image, PackedMask

log = logging.getLogger(__name__)

MAX_TOKENS = 32  # of a phrase, with start and end; as in `Sam3Processor`
THRESHOLD, OVERLAP = 0.3, 0.7
VISUAL = "visual"  # the text of a prompt that is boxes alone


class _Prompt(NamedTuple):
    """A phrase with its tokens and attention mask, (1, 32) each, and (1, k, 4) example boxes."""

    phrase: str
    ids: Tensor
    attention_mask: Tensor
    boxes: Tensor | None = None


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
    concepts: ClassVar[bool] = True

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
        provide_roi_align(self.net)
        self._tokenizer = load_tokenizer(folder)

    @torch.inference_mode()
    def candidates(
        self, image: Image, phrases: Sequence[str], like: Sequence[Box] = ()
    ) -> Candidates:
        """Every instance of the phrases, with its mask, best score first; see `Detector`.

        Args:
            like: boxes around examples, in pixels, of what to find too, the examples among it; its
                phrase is "".
        """
        prompts = self._prompts(phrases, like, image)
        found = list(self._detect(image, prompts))
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
        size = (image.height, image.width)
        return Candidates(
            corners.cpu().numpy(),
            scores[rows].cpu().numpy(),
            tuple(prompts[owners[row]].phrase for row in rows.tolist()),
            tuple(PackedMask.pack(_full_size(logits[row], size)) for row in rows.tolist()),
        )

    def _prompts(self, phrases: Sequence[str], like: Sequence[Box], image: Image) -> list[_Prompt]:
        """Every different phrase, and the examples."""
        if isinstance(phrases, str) or not (phrases or like):
            raise BadInput("a detector needs a list of at least one phrase to look for")
        prompts: list[_Prompt] = []
        for phrase in dict.fromkeys(phrases):
            text = phrase.encode("utf-8", "replace").decode("utf-8").strip()
            if not any(character.isalnum() for character in text):
                raise BadInput(f"a phrase to look for has a word in it, found {phrase!r}")
            tokens = self._tokens(text)
            if tokens[0].shape[1] > MAX_TOKENS:  # e.g. a query that is a sentence
                log.warning("%s reads no phrase as long as %r: it is left out", self.name, text)
                continue
            prompts.append(_Prompt(phrase, *tokens))
        if like:
            sides = torch.tensor([image.width, image.height] * 2)
            corners = torch.tensor([box.xyxy for box in like]) / sides
            low, high = corners[:, :2], corners[:, 2:]
            boxes = torch.cat([(low + high) / 2, high - low], dim=1)  # centre, width and height
            prompts.append(_Prompt("", *self._tokens(VISUAL), boxes[None]))
        if not prompts:
            raise BadInput(f"no phrase is short enough: {MAX_TOKENS} tokens with start and end")
        return prompts

    def _tokens(self, text: str) -> tuple[Tensor, Tensor]:
        made = self._tokenizer(
            text, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
        )
        return made["input_ids"], made["attention_mask"]

    def _detect(self, image: Image, prompts: Sequence[_Prompt]) -> Iterator[_Found]:
        made = self.preprocessing
        square, _ = crop_to_square(
            image.rgb, Window.whole((image.height, image.width)), 0.0, made.size,
            resampling=made.resampling,
        )  # fmt: skip
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (made.mean, made.std))
        pixels = ((square - mean) / std)[None].to(self.device)
        vision = self.net.get_vision_features(pixel_values=pixels)
        for phrase, ids, attention_mask, boxes in prompts:
            found: Any = self.net(
                vision_embeds=vision,
                input_ids=ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
                input_boxes=None if boxes is None else boxes.to(self.device),
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
    """(H, W) bool; probabilities are resized as by `Sam3ImageProcessor`; `sam3` resizes logits."""
    resized = F.interpolate(logits.sigmoid()[None, None].float(), size, mode="bilinear")
    return np.asarray((resized[0, 0] > 0.5).cpu())
