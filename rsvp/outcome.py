"""Proposals and their masks as targets, and what is odd about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rsvp.masks import mask_to_box
from rsvp.types import Box, Image, Masks, Proposal, Target

LOW_PRESENCE = 0.02  # below it a segmenter that reads labels doubts what stage 1 calls the thing


def targets_of(image: Image, proposals: Sequence[Proposal], found: Masks) -> Iterator[Target]:
    """One target a proposal, with its mask."""
    for place, proposal in enumerate(proposals):
        mask, score = found.masks[place], float(found.scores[place])
        box = proposal.box or mask_to_box(mask) or _around(proposal, image)
        certain = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
        told = found.presence is not None and proposal.label.strip()
        presence = float(found.presence[place]) if told and found.presence is not None else None
        yield Target(proposal.label, box, certain, mask, presence, proposal.raw)


def _around(proposal: Proposal, image: Image) -> Box:
    """A box of at least a pixel around the points, for a target whose mask came out empty."""
    xs, ys = [p.x for p in proposal.points], [p.y for p in proposal.points]
    x0, y0 = math.floor(min(xs)), math.floor(min(ys))
    x1, y1 = min(math.floor(max(xs)) + 1, image.width), min(math.floor(max(ys)) + 1, image.height)
    return Box(min(x0, x1 - 1), min(y0, y1 - 1), x1, y1)


def doubts_about(targets: Sequence[Target], *, named: bool) -> Iterator[str]:
    """What is odd about the targets, in words.

    Args:
        named: the labels are what stage 1 calls the targets.
    """
    yield from _empty_masks(targets)
    if named:
        yield from _strangers(targets)


def _empty_masks(targets: Sequence[Target]) -> Iterator[str]:
    for number, target in enumerate(targets):
        if not target.mask.any():
            yield f"the segmenter found no pixels for target {number} ({target.label})"


def _strangers(targets: Sequence[Target]) -> Iterator[str]:
    for number, target in enumerate(targets):
        if target.presence is not None and target.presence < LOW_PRESENCE:
            yield (
                f"the segmenter doubts that target {number} is {target.label} "
                f"(presence {target.presence:.2f})"
            )
