"""What every Grounding DINO backend shares: phrases and pixels in, candidates out.

Grounding DINO reads all phrases of an image at once, as one text in which a full stop ends each
phrase, and gives every box a logit for every token (https://arxiv.org/abs/2303.05499, section 3.4).
The usual way back, from tokens above a threshold to words, returns incomplete phrases and joins
two into one. Here the caption is built from the tokens of each phrase, so that the tokens of each
phrase are known, whatever its spelling:

- full stops and question marks inside a phrase, which the network would take for its end, are left
  out ("St. Bernard" is read as "st bernard");
- capitals are lowered, as in training; of phrases with the same tokens only the first is used;
- a phrase of unknown words only is left out, with a warning.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsvp.detectors import Candidates
from rsvp.detectors.preprocessing import DetectorPreprocessing, to_pixels
from rsvp.errors import BadInput, ModelUnavailable, first_line
from rsvp.platform.devices import choose_placement
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import reading, transformers
from rsvp.types import Image

log = logging.getLogger(__name__)

THRESHOLD = 0.25  # the lower of the two that the official demos use
NMS_IOU = 0.8  # the network suppresses most duplicates itself; near copies are left
TEXT_ENCODER = "bert-base-uncased"
_TEXT_FILES = ("config.json", "tokenizer*", "vocab.txt", "special_tokens_map.json")
_END = "."
_ENDS = (".", "?")  # the network takes them for the end of a phrase


@dataclass(frozen=True, slots=True)
class Caption:
    """Phrases as the network reads them.

    Attributes:
        ids: the tokens: start, then each phrase and a full stop, then end.
        spans: for each phrase, its first token and the one after its last.
        phrases: as the caller spells them.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    phrases: tuple[str, ...]


def write_captions(phrases: Sequence[str], tokenizer: Any, max_tokens: int) -> list[Caption]:
    """Put the phrases, in their order, into as few captions as possible: usually one.

    Args:
        tokenizer: BERT's, of transformers.
        max_tokens: of a caption.

    Raises:
        BadInput: no phrase, one without a word in it, or one that is too long by itself.
    """
    if isinstance(phrases, str) or not phrases:
        raise BadInput("a detector needs a list of at least one phrase to look for")
    tokens = _tokens(phrases, tokenizer)
    groups: list[dict[str, tuple[int, ...]]] = []
    length = max_tokens  # so that the first phrase starts a caption
    for phrase, ids in tokens.items():
        if len(ids) + 3 > max_tokens:
            raise BadInput(
                f"a phrase has at most {max_tokens - 3} tokens, found {len(ids)}: {phrase[:60]!r}"
            )
        if length + len(ids) + 1 > max_tokens:
            groups.append({})
            length = 2  # start and end
        groups[-1][phrase] = ids
        length += len(ids) + 1
    return [_caption(group, tokenizer) for group in groups]


def _tokens(phrases: Sequence[str], tokenizer: Any) -> dict[str, tuple[int, ...]]:
    """The tokens of each phrase that the tokenizer knows; of equal ones the first."""
    special = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(list(_ENDS))}
    special.discard(tokenizer.unk_token_id)
    spelling: dict[tuple[int, ...], str] = {}
    for phrase in phrases:
        # No tokenizer takes half a surrogate pair, e.g. of a broken file name.
        text = phrase.lower().encode("utf-8", "replace").decode("utf-8")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        words = tuple(token for token in ids if token not in special)
        if not words:
            raise BadInput(f"a phrase to look for has a word in it, found {phrase!r}")
        if set(words) == {tokenizer.unk_token_id}:
            log.warning("the detector knows no word of %r: it is left out", phrase)
            continue
        spelling.setdefault(words, phrase)
    return {phrase: words for words, phrase in spelling.items()}


def _caption(tokens: dict[str, tuple[int, ...]], tokenizer: Any) -> Caption:
    end = tokenizer.convert_tokens_to_ids(_END)
    ids: list[int] = [tokenizer.cls_token_id]
    spans = []
    for words in tokens.values():
        spans.append((len(ids), len(ids) + len(words)))
        ids += [*words, end]
    return Caption((*ids, tokenizer.sep_token_id), tuple(spans), tuple(tokens))


def match_phrases(
    logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    caption: Caption,
    image_size: tuple[int, int],
) -> Candidates:
    """Every box of one image with the phrase that it matches best, best score first.

    A phrase's score is the highest probability among its own tokens; a box has the score of its
    best phrase. Boxes are clipped to the image; one wholly outside is left out.

    Args:
        logits: (n, T), a column for each token of the caption; further columns are ignored.
        boxes: (n, 4), centre, width and height, 0 to 1 of the image.
        image_size: (H, W).
    """
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    by_phrase = np.stack(
        [probabilities[:, first:last].max(axis=1) for first, last in caption.spans], 1
    )
    best = by_phrase.argmax(axis=1)
    scores = by_phrase[np.arange(len(boxes)), best].astype(np.float32)
    centres, halves = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64) / 2
    sides = np.array([image_size[1], image_size[0]] * 2)
    corners = np.hstack([centres - halves, centres + halves]) * sides
    pixels = np.clip(corners, 0, sides).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[(pixels[order, :2] < pixels[order, 2:]).all(axis=1)]
    phrases = tuple(caption.phrases[best[row]] for row in order)
    return Candidates(pixels[order], scores[order], phrases)


class GroundedDetector(ABC):
    """A `Detector` whose network reads a caption and scores each box for each of its tokens.

    Attributes:
        name: the spec that made it.
        net: the network, float32, in eval mode.
        device: of the network; by default the best one of this machine. Apple's MPS is used only
            when asked for: it lacks operators of deformable attention.
        threshold: boxes with a lower score are left out; None keeps every one.
        iou: of boxes with a higher IoU, whatever their phrases, the best is kept; None keeps all.
    """

    def __init__(
        self,
        name: str,
        net: torch.nn.Module,
        tokenizer: Any,
        max_tokens: int,
        preprocessing: DetectorPreprocessing,
        *,
        threshold: float | None,
        iou: float | None,
        device: str | torch.device | None,
    ) -> None:
        """Move the network to its device; a caption has at most `max_tokens`.

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
        """Boxes clipped to the image, best score first, of all phrases in one forward pass.

        Too many phrases for one caption need several passes.
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
    """BERT's tokenizer and config from a folder or a hub id; its weights come with a checkpoint.

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
    """The tokenizer of a folder; ModelUnavailable where none can be read."""
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a broken file may raise anything
        raise ModelUnavailable(
            f"{folder} has no readable tokenizer: {first_line(error)}"
        ) from error
