"""A segmenter that encodes a repeated image once, and runs one call at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsvp.errors import BadInput
from rsvp.platform.lru import LRUCache
from rsvp.segmenters import Segmenter
from rsvp.types import BoolMask, Image, Masks, Proposal


@dataclass(slots=True)
class _Embedding:
    value: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class TimedMasks:
    """Masks, and the seconds that the encoder and the decoder took for them.

    `encode_seconds` counts once for each image, so that sums over its queries are true.
    """

    masks: Masks
    encode_seconds: float
    decode_seconds: float


class EmbeddingCache:
    """Prompts a segmenter; keeps the embeddings of the images used last.

    Args:
        max_images: of so many images the embedding is kept.

    Attributes:
        segmenter: the one that is prompted.
        lock: held while the segmenter runs, as networks need not be thread-safe.
    """

    def __init__(self, segmenter: Segmenter, max_images: int) -> None:
        self.segmenter = segmenter
        self.lock = threading.Lock()
        self._embeddings: LRUCache[_Embedding] = LRUCache(max_images)

    def encode(self, image: Image) -> None:
        """Encode the image now if it isn't yet; may run in a thread, ahead of `masks`."""
        with self.lock:
            self._embedding(image)

    def masks(self, image: Image, proposals: Sequence[Proposal]) -> TimedMasks:
        """One mask a proposal; proposals that bring their own mask need no segmenter.

        Raises:
            BadInput: the masks are not all of one size.
        """
        prompted = [proposal for proposal in proposals if proposal.mask is None]
        if proposals and not prompted:
            return TimedMasks(_with_own_masks(proposals, None), 0.0, 0.0)
        with self.lock:
            embedding = self._embedding(image)
            encode_seconds, embedding.seconds = embedding.seconds, 0.0
            started = time.perf_counter()
            found = self.segmenter.masks(embedding.value, prompted)
        seconds = time.perf_counter() - started
        if len(prompted) < len(proposals):
            found = _with_own_masks(proposals, found)
        return TimedMasks(found, encode_seconds, seconds)

    def _embedding(self, image: Image) -> _Embedding:
        def encode() -> _Embedding:
            started = time.perf_counter()
            (value,) = self.segmenter.encode([image])
            return _Embedding(value, time.perf_counter() - started)

        return self._embeddings.get((image.sha256, image.rgb.shape), encode)


def _with_own_masks(proposals: Sequence[Proposal], found: Masks | None) -> Masks:
    """The masks of all proposals in order: their own where they bring one, else the next found.

    Presence is known only where the segmenter made all masks, so that it is left out here.
    """
    pairs = iter(zip(found.masks, found.scores, strict=True) if found is not None else ())
    masks: list[BoolMask] = []
    scores: list[float] = []
    for proposal in proposals:
        mask, score = proposal.mask, 1.0 if proposal.score is None else proposal.score
        if mask is None:
            mask, score = next(pairs)
        masks.append(mask)
        scores.append(float(score))
    if len({mask.shape for mask in masks}) > 1:
        raise BadInput(f"masks of one image have one size, found {[mask.shape for mask in masks]}")
    return Masks(np.stack(masks), np.array(scores, dtype=np.float32))
