"""Phrases as one caption, and boxes back to the phrase that each matches.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp.detectors import Candidates
from rsvp.errors import BadInput

log = logging.getLogger(__name__)

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
    for phrase, ids in tokens.items():
        if len(ids) + 3 > max_tokens:
            raise BadInput(
                f"a phrase has at most {max_tokens - 3} tokens, found {len(ids)}: {phrase[:60]!r}"
            )
    return [_caption(group, tokenizer) for group in _groups(tokens, max_tokens)]


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


def _groups(
    tokens: dict[str, tuple[int, ...]], max_tokens: int
) -> Iterator[dict[str, tuple[int, ...]]]:
    group: dict[str, tuple[int, ...]] = {}
    length = 2  # start and end
    for phrase, ids in tokens.items():
        if group and length + len(ids) + 1 > max_tokens:
            yield group
            group, length = {}, 2
        group[phrase] = ids
        length += len(ids) + 1
    if group:
        yield group


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
    pixels = _corners(boxes.astype(np.float64), image_size)
    order = np.argsort(-scores, kind="stable")
    order = order[(pixels[order, :2] < pixels[order, 2:]).all(axis=1)]
    phrases = tuple(caption.phrases[best[row]] for row in order)
    return Candidates(pixels[order], scores[order], phrases)


def _corners(boxes: NDArray[np.float64], image_size: tuple[int, int]) -> NDArray[np.float32]:
    """(n, 4) xyxy in pixels, clipped to the image."""
    height, width = image_size
    half = boxes[:, 2:] / 2
    corners = np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])
    sides = np.array([width, height, width, height])
    clipped: NDArray[np.float32] = np.clip(corners * sides, 0, sides).astype(np.float32)
    return clipped
