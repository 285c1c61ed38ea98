"""The segmenter, used by one thread at a time, with the encodings of the last few images kept."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsvp.segmenters import Segmenter
from rsvp.types import Image, Masks, Proposal


@dataclass(slots=True)
class _Entry:
    encoding: Any
    seconds: float


class Encodings:
    """Prompts a segmenter and encodes a repeated image once.

    Args:
        keep: of so many images the encoding is kept; the least recently used one goes first.
    """

    def __init__(self, segmenter: Segmenter, keep: int) -> None:
        self._segmenter = segmenter
        self._lock = threading.Lock()  # networks need not be thread-safe
        self._keep = keep
        self._entries: OrderedDict[tuple[str, tuple[int, ...]], _Entry] = OrderedDict()

    def encode(self, image: Image) -> None:
        """Encode the image now, if it isn't yet; may run in a thread, ahead of `masks`."""
        with self._lock:
            self._entry(image)

    def masks(self, image: Image, proposals: Sequence[Proposal]) -> tuple[Masks, float, float]:
        """The masks, the seconds that encoding this image took, and those of the masks.

        Encoding seconds are told once, so that they add up over the queries on one image.
        """
        with self._lock:
            entry = self._entry(image)
            seconds, entry.seconds = entry.seconds, 0.0
            started = time.perf_counter()
            masks = self._segmenter.masks(entry.encoding, proposals)
            return masks, seconds, time.perf_counter() - started

    def _entry(self, image: Image) -> _Entry:
        key = (image.sha256, image.rgb.shape)
        if key not in self._entries:
            started = time.perf_counter()
            (encoding,) = self._segmenter.encode([image])
            self._entries[key] = _Entry(encoding, time.perf_counter() - started)
            if len(self._entries) > self._keep:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]
