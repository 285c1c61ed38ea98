"""The filled box: what a pipeline of stage 1 alone would answer, for ablations. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rsvp.errors import BadInput
from rsvp.types import Image, Masks, Proposal


class BoxSegmenter:
    """Fills each proposal's box: what stage 2 has to be better than.

    Args:
        argument: none; ``box`` takes no argument in a spec.
    """

    name = "box"

    def __init__(self, argument: str | None = None) -> None:
        if argument is not None:
            raise BadInput(f"the box segmenter takes no argument, found {argument!r}")

    def encode(self, images: Sequence[Image]) -> list[tuple[int, int]]:
        """The (H, W) of each image is all there is to know."""
        return [(image.height, image.width) for image in images]

    def masks(self, encoding: tuple[int, int], proposals: Sequence[Proposal]) -> Masks:
        """One filled box a proposal; every score is 1, for nothing here judges a mask.

        A pixel is filled when its centre lies in the box; a box between centres fills the pixel
        that it is in.

        Raises:
            BadInput: a proposal has points and no box.
        """
        height, width = encoding
        masks = np.zeros((len(proposals), height, width), dtype=np.bool_)
        for mask, proposal in zip(masks, proposals, strict=True):
            box = proposal.box
            if box is None:
                raise BadInput("the box segmenter fills boxes and cannot use points alone")
            mask[_pixels(box.y0, box.y1, height), _pixels(box.x0, box.x1, width)] = True
        return Masks(masks, np.ones(len(proposals), dtype=np.float32))


def _pixels(low: float, high: float, extent: int) -> slice:
    """The pixels of 0..extent whose centres lie in low..high, at least one."""
    first, end = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if first >= end:
        first = math.floor((low + high) / 2)
        end = first + 1
    first = min(max(first, 0), extent - 1)
    return slice(first, max(min(end, extent), first + 1))
