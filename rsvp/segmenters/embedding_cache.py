"""A segmenter that encodes a repeated image once, and runs one call at a time.

Calls of several threads on one image that wait for the segmenter are decoded in one batch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput, first_line
from rsvp.platform.lru import LRUCache
from rsvp.segmenters import Segmenter
from rsvp.types import Image, Masks, PackedMask, Proposal

_ARRAY_BYTES = 1 << 27  # of masks that the segmenter makes in one call; then they are packed
_BATCH = 64  # proposals, at most, that several calls have in one batch


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


@dataclass(slots=True, eq=False)
class _Call:
    """A thread's proposals on an image.

    Attributes:
        batched: it has been in a batch; where that failed, it is decoded alone.
    """

    key: Hashable
    proposals: Sequence[Proposal]
    batched: bool = False
    found: TimedMasks | None = None


class EmbeddingCache:
    """Prompts a segmenter; keeps the embeddings of the images used last.

    While one thread holds the lock, others that ask for masks wait; the first of them to get it
    decodes its proposals and those of the others on the same image in one batch.

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
        self._waiting = list[_Call]()

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
        call = _Call(_key(image), prompted)
        self._waiting.append(call)
        try:
            with self.lock:
                if not call.batched and len(calls := self._batch(call)) > 1:
                    with contextlib.suppress(Exception):  # then each call gets its own error
                        self._decode(image, calls)
                if call.found is None:
                    self._decode(image, [call])
        finally:
            self._waiting.remove(call)
        found = call.found
        assert found is not None
        return found if len(prompted) == len(proposals) else _with_own_masks(proposals, found)

    def _batch(self, call: _Call) -> list[_Call]:
        """The call, and those on the same image that fit into one batch with it."""
        call.batched, calls, free = True, [call], _BATCH - len(call.proposals)
        for other in tuple(self._waiting):
            if not other.batched and other.key == call.key and len(other.proposals) <= free:
                other.batched = True
                calls.append(other)
                free -= len(other.proposals)
        return calls

    def _decode(self, image: Image, calls: Sequence[_Call]) -> None:
        """Set the masks of calls on one image; each gets its share of the decoder's seconds."""
        proposals = [proposal for call in calls for proposal in call.proposals]
        most = max(1, _ARRAY_BYTES // (image.height * image.width))
        with self._failing():
            embedding = self._embedding(image)
            started = time.perf_counter()
            parts = [
                _packed(self.segmenter.masks(embedding.value, proposals[first : first + most]))
                for first in range(0, len(proposals), most)
            ]
        each = (time.perf_counter() - started) / max(1, len(proposals))
        whole, end = _join(parts, embedding.seconds, 0.0), 0
        embedding.seconds = 0.0
        for call in calls:
            rows = slice(end, end := end + len(call.proposals))
            call.found = TimedMasks(
                whole.masks[rows],
                whole.scores[rows],
                None if whole.presence is None else whole.presence[rows],
                whole.encode_seconds if call is calls[0] else 0.0,
                each * len(call.proposals),
            )

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

        return self._embeddings.get(_key(image), encode)


def _key(image: Image) -> Hashable:
    """Equal for images of the same content."""
    return image.sha256, image.rgb.shape


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
