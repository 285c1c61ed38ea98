"""Stage 2: proposals in, masks out. Encode an image once, prompt it many times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from rsvp.types import Image, Masks, Proposal


@runtime_checkable
class Segmenter(Protocol):
    """A promptable segmenter.

    Attributes:
        name: the spec that made it, e.g. ``sam2:facebook/sam2.1-hiera-large``.
    """

    name: str

    def encode(self, images: Sequence[Image]) -> list[Any]:
        """Encode images, all in one encoder batch; one opaque encoding an image."""
        ...

    def masks(self, encoding: Any, proposals: Sequence[Proposal]) -> Masks:
        """One mask a proposal, all in one decoder batch, at the image's own size.

        No proposals give `Masks` of shape (0, H, W).
        """
        ...
