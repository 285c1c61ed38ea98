"""How stage 1 shows the image to the MLLM and how its reply is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rsvp.frames import Frame
from rsvp.segmenters import Segmenter
from rsvp.types import Image, Masks, Proposal, Reasoning, RgbArray

MAX_SIDE = 1536  # of a view, in pixels: beyond it models resize or tile anyway, and uploads grow


@dataclass(frozen=True, slots=True)
class View:
    """What the MLLM is shown of an image.

    Attributes:
        rgb: (h, w, 3) uint8, the visual prompt, maybe smaller than the image.
        variables: what the strategy adds to the prompt's `$variables`.
    """

    rgb: RgbArray
    variables: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return int(self.rgb.shape[0]), int(self.rgb.shape[1])


@runtime_checkable
class Strategy(Protocol):
    """A region strategy: the visual prompt, the prompt's name, and how to read the reply.

    Attributes:
        name: of the strategy and of its prompt files, e.g. ``grid``.
    """

    name: str

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:
        """JSON schema of the reply, with the chain of thought or without.

        Args:
            frame: where coordinates are fractions (0-1) the schema asks for numbers, else for
                integers.
        """
        ...

    def view(self, image: Image, query: str = "") -> View:
        """Draw the visual prompt; what is drawn may depend on what is asked for."""
        ...

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """Read a reply into pixels of the image.

        Raises:
            UnparsableReply: when it holds no answer.
        """
        ...


class SharedSegmenter(Protocol):
    """The pipeline's segmenter, for others to use as well.

    Attributes:
        lock: to be held while the segmenter itself runs, as networks need not be thread-safe.
    """

    segmenter: Segmenter
    lock: AbstractContextManager[Any]

    def masks(self, image: Image, proposals: Sequence[Proposal]) -> tuple[Masks, float, float]:
        """The masks; the image is encoded once for all. Takes the lock. Then two timings."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A strategy that may need the segmenter before the MLLM is asked."""

    def with_segmenter(self, shared: SharedSegmenter) -> Strategy:
        """The strategy for a pipeline with this segmenter.

        Raises:
            BadInput: the segmenter cannot do what is needed of it.
        """
        ...
