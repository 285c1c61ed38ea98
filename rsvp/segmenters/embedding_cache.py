"""A segmenter that encodes a repeated image once, and runs one call at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput, first_line
from rsvp.platform.lru import LRUCache
from rsvp.segmenters import Segmenter
from rsvp.types import Image, Masks, PackedMask, Proposal

_ARRAY_BYTES = 1 << 27  # of masks that the segmenter makes in one call; then they are packed


@dataclass(slots=True)
class _Embedding:
    value: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class TimedMasks:
    """`rsvp.types.Masks`, packed, and the seconds that the encoder and the decoder took for them.

    `encode_seconds` counts once for each image, so that sums over its queries are true.
    """

    masks: tuple[PackedMask, ...]
    scores: NDArray[np.float32]
    presence: NDArray[np.float32] | None
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

    def keep(self, images: int) -> None:
        """Keep the embeddings of at least so many images."""
        with self.lock:
            self._embeddings.grow(images)

    def encode(self, image: Image) -> None:
        """Encode the image now if it isn't yet; may run in a thread, ahead of `masks`."""
        with self.lock:
            self._embedding(image)

    def masks(self, image: Image, proposals: Sequence[Proposal]) -> TimedMasks:
        """One mask a proposal; proposals that bring their own mask need no segmenter.

        Raises:
            BadInput: the masks are not all of one size, or the network fails on this image.
        """
        prompted = [proposal for proposal in proposals if proposal.mask is None]
        if proposals and not prompted:
            return _with_own_masks(proposals, _join([], 0.0, 0.0))
        most = max(1, _ARRAY_BYTES // (image.height * image.width))
        with self.lock, self._failing():
            embedding = self._embedding(image)
            encode_seconds, embedding.seconds = embedding.seconds, 0.0
            started = time.perf_counter()
            parts = [
                _packed(self.segmenter.masks(embedding.value, prompted[first : first + most]))
                for first in range(0, len(prompted), most)
            ]
        found = _join(parts, encode_seconds, time.perf_counter() - started)
        return found if len(prompted) == len(proposals) else _with_own_masks(proposals, found)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            # Out of memory, or a network whose settings contradict each other.
            raise BadInput(
                f"{self.segmenter.name} fails on this image: {first_line(error)}"
            ) from error

    def _embedding(self, image: Image) -> _Embedding:
        def encode() -> _Embedding:
            started = time.perf_counter()
            (value,) = self.segmenter.encode([image])
            return _Embedding(value, time.perf_counter() - started)

        return self._embeddings.get((image.sha256, image.rgb.shape), encode)


_Part = tuple[list[PackedMask], NDArray[np.float32], NDArray[np.float32] | None]


def _packed(found: Masks) -> _Part:
    return [PackedMask.pack(mask) for mask in found.masks], found.scores, found.presence


def _join(parts: Sequence[_Part], encode_seconds: float, decode_seconds: float) -> TimedMasks:
    masks = tuple(mask for part in parts for mask in part[0])
    scores = np.concatenate([np.zeros(0, np.float32), *(part[1] for part in parts)])
    known = [part[2] for part in parts if part[2] is not None]
    presence = np.concatenate(known) if known and len(known) == len(parts) else None
    return TimedMasks(masks, scores, presence, encode_seconds, decode_seconds)


def _with_own_masks(proposals: Sequence[Proposal], found: TimedMasks) -> TimedMasks:
    """The masks of all proposals in order: their own where they bring one, else the next found.

    Presence is known only where the segmenter made all masks, so that it is left out here.
    """
    others = zip(found.masks, found.scores.tolist(), strict=True)
    pairs = [
        (one.mask, 1.0 if one.score is None else one.score) if one.mask else next(others)
        for one in proposals
    ]
    masks, scores = tuple(mask for mask, _ in pairs), np.array([s for _, s in pairs], np.float32)
    if len({mask.size for mask in masks}) > 1:
        raise BadInput(f"masks of one image have one size, found {[mask.size for mask in masks]}")
    return replace(found, masks=masks, scores=scores, presence=None)
