"""How stage 1 shows the image to the MLLM and how its reply is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rsvp.frames import Frame
from rsvp.registry import MAX_SIDE
from rsvp.segmenters import Segmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.types import Box, Image, Reasoning, RgbArray

NO_EXAMPLES = (
    "examples (like) are for a detector of concepts, e.g. --strategy marks:sam3:facebook/sam3; the "
    "strategy {} has none"
)


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
    """A visual prompt, the name of its prompt files, and how to read the reply.

    `rsvp.strategies.base.RegionStrategy` implements most of it.

    Attributes:
        name: of the strategy and of its prompt files, e.g. ``grid``.
    """

    name: str

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:
        """JSON schema of the reply, with the chain of thought or without.

        Args:
            frame: names the key of a box; where coordinates are fractions (0-1) the schema asks
                for numbers, else for integers.
        """
        ...

    def path_schema(self, frame: Frame | None = None) -> Mapping[str, Any]:
        """JSON schema of a reasoning path, see `schema`."""
        ...

    def view(
        self,
        image: Image,
        query: str = "",
        *,
        max_side: int = MAX_SIDE,
        cache: EmbeddingCache | None = None,
    ) -> View:
        """Draw the visual prompt; what is drawn may depend on the query.

        Args:
            max_side: the longest side of the view in pixels, see `rsvp.registry.ModelFamily`.
            cache: the pipeline's segmenter, for strategies that look for candidates with it.
        """
        ...

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """Read a reply into pixels of the image.

        Raises:
            UnparsableReply: it holds no answer.
        """
        ...

    def read_path(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """Read a reasoning path: every object of its steps and its answer, each once.

        Objects without a usable place stay in the steps, without a number.

        Raises:
            UnparsableReply: it holds no path.
        """
        ...


@runtime_checkable
class NeedsSegmenter(Protocol):
    """A strategy that may use the segmenter before the MLLM is asked."""

    def check_segmenter(self, segmenter: Segmenter) -> None:
        """Raise BadInput where this segmenter cannot do what the strategy needs."""
        ...


@runtime_checkable
class TakesPhrases(Protocol):
    """A strategy whose candidates come from a detector that is told what to look for.

    Attributes:
        ask_phrases: the MLLM is asked, in a turn before, what the detector shall look for.
    """

    ask_phrases: bool

    def looking_for(self, phrases: Sequence[str], like: Sequence[Box]) -> Strategy:
        """This strategy with the MLLM's phrases (none: as before) and boxes around examples.

        Raises:
            BadInput: examples for a detector that takes none.
        """
        ...


@runtime_checkable
class ChecksPrompt(Protocol):
    """A strategy with settings that not every prompt tells the MLLM of."""

    def check_prompt(self, mllm: str, template: str) -> None:
        """Raise BadInput where an MLLM is asked by a template that cannot say what is shown."""
        ...
