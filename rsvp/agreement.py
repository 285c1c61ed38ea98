"""Several sampled replies to one query: which targets most of them agree on, and how many do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rsvp.masks import mask_iou_matrix
from rsvp.types import BoolMask, Proposal, Reasoning, Target

OVERLAP = 0.5  # IoU of two masks from which on they mean the same object
STRIDE = 2  # IoUs are computed on every second row and column of large masks
LARGE = 512  # pixels of a mask's longer side


def agree_on(
    samples: Sequence[Reasoning], segment: Callable[[Sequence[Proposal]], Mapping[int, Target]]
) -> tuple[Reasoning, dict[int, Target], float]:
    """Segment the proposals of all replies at once, and choose among these; see `most_agreed`.

    Args:
        segment: the targets of proposals by their index; those that a hint rules out are missing.

    Returns:
        The chosen reply, its targets by the index of their proposal, and `Agreement.share`.
    """
    proposals = list(dict.fromkeys(one for sample in samples for one in sample.proposals))
    found, place = segment(proposals), {one: at for at, one in enumerate(proposals)}
    targets = [
        {i: found[place[one]] for i, one in enumerate(sample.proposals) if place[one] in found}
        for sample in samples
    ]
    best = most_agreed([tuple(one.values()) for one in targets])
    kept = dict(zip(targets[best.index], best.targets, strict=True))
    return samples[best.index], kept, best.share


@dataclass(frozen=True, slots=True)
class Agreement:
    """The reply that most others agree with.

    Attributes:
        index: of the reply.
        targets: its own; the score of each is the share of the replies that have it.
        share: of the replies that have these targets and no others, 0 to 1.
    """

    index: int
    targets: tuple[Target, ...]
    share: float


def most_agreed(replies: Sequence[Sequence[Target]]) -> Agreement:
    """Choose among the targets of several replies, at least one.

    Two replies agree where they have as many targets, in pairs whose masks overlap. That nothing is
    there needs more than half of the replies, unless none of them has a target.
    """
    count = len(replies)
    masks = [_masks(one) for one in replies]
    overlaps = [[_ious(a, b) for b in masks] for a in masks]
    pairs = [[_pairing(iou) for iou in row] for row in overlaps]
    support = [sum(one is not None for one in row) for row in pairs]
    closeness = [sum(one or 0.0 for one in row) for row in pairs]
    order = sorted(range(count), key=lambda i: (-support[i], -closeness[i], i))
    found = [i for i in order if replies[i]]
    best = order[0]
    if not replies[best] and 2 * support[best] <= count and found:
        best = found[0]
    hits = sum((iou >= OVERLAP).any(axis=1) for iou in overlaps[best] if iou.size)
    shares = np.broadcast_to(np.asarray(hits, dtype=float) / count, len(replies[best]))
    targets = zip(replies[best], shares.tolist(), strict=True)
    return Agreement(
        best, tuple(replace(t, score=share) for t, share in targets), support[best] / count
    )


def _masks(targets: Sequence[Target]) -> BoolMask | None:
    """(n, h, w) of the targets, made smaller where they are large; None without targets."""
    masks = [target.mask for target in targets]
    step = STRIDE if masks and max(masks[0].shape) > LARGE else 1
    return np.stack([mask[::step, ::step] for mask in masks]) if masks else None


def _ious(first: BoolMask | None, second: BoolMask | None) -> NDArray[np.float32]:
    """(n, m) IoU of masks."""
    if first is None or second is None:
        n, m = (0 if masks is None else len(masks) for masks in (first, second))
        return np.zeros((n, m), np.float32)
    return mask_iou_matrix(first, second)


def _pairing(iou: NDArray[np.float32]) -> float | None:
    """The mean IoU of the pairs, best first; None where the replies do not agree."""
    n, m = iou.shape
    if n != m:
        return None
    left, total = iou.copy(), 0.0
    for _ in range(n):
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        if left[row, column] < OVERLAP:
            return None
        total += float(left[row, column])
        left[row, :] = left[:, column] = -1
    return total / n if n else 1.0
