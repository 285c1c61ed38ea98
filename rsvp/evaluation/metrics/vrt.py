"""VRT-Bench's metric: are the objects of the reasoning found, and those of the answer.

A reply is ``<think>… [SEG] …</think><answer>… [SEG] …</answer>``; its k-th ``[SEG]`` is its k-th
mask: `rsvp.writers.vrt` writes one, `seg_indices` reads it. Reasoning and answer are matched to
their true objects separately, one to one, so that the summed IoU is largest; a true object without
a match scores 0, a mask without one costs nothing. The IoUs of all objects of all samples are
pooled: LQ (localization quality) is the share above 0.5, SQ (segmentation quality) the mean of
those, mIoU the mean of all.

Source: H. Yuan et al., Visual Reasoning Tracer (2025), https://arxiv.org/abs/2512.05091, and its
``vrt_sa2va/evaluation``. Precision is ours: surplus masks are free in the official numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from rsvp.datasets.instances import encode
from rsvp.datasets.vrt import VrtObject, VrtTruth
from rsvp.evaluation.stats import Interval, ratio_interval
from rsvp.masks import RLE
from rsvp.platform.extras import require
from rsvp.writers.vrt import SEG

FOUND = 0.5  # an object is found above this IoU

_OPEN, _CLOSE = "<answer>", "</answer>"
_NAMES = (  # the published ones first
    "r_lq", "r_sq", "a_miou", "r_miou", "a_lq", "a_sq", "r_precision", "a_precision",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartScore:
    """How well the masks of one part of a reply, reasoning or answer, match its true objects."""

    ious: tuple[float, ...]  # of each true object; 0 for one that was not matched
    predicted: int  # how many masks there are in this part


@dataclass(frozen=True, slots=True)
class VrtScore:
    id: str
    classes: tuple[str, ...]
    reasoning: PartScore
    answer: PartScore


def seg_indices(text: str) -> tuple[list[int], list[int]]:
    """Which masks of a reply belong to its reasoning, and which to its answer.

    Those before the first whole ``<answer>…</answer>`` are the reasoning's, those in it the
    answer's, those after it nobody's. Without such a tag all are nobody's.
    """
    start = text.find(_OPEN)
    end = text.find(_CLOSE, start + len(_OPEN))
    if start < 0 or end < 0:
        return [], []
    starts = [found.start() for found in re.finditer(re.escape(SEG), text)]
    reasoning = [k for k, place in enumerate(starts) if place < start]
    answer = [k for k, place in enumerate(starts) if start <= place < end]
    return reasoning, answer


def matched_ious(predicted: Sequence[RLE], truth: Sequence[RLE]) -> tuple[float, ...]:
    """The IoU of each true object with the mask that it is matched to, 0 without one.

    All are compressed COCO RLEs of one size. MissingExtra where scipy is not installed.
    """
    if not predicted or not truth:
        return (0.0,) * len(truth)
    solve = require("scipy.optimize", "eval", "matching masks").linear_sum_assignment
    # float32 as in the official code: it decides what lies above 0.5, and how ties are matched
    matrix = coco.iou(list(predicted), list(truth), [0] * len(truth)).astype(np.float32)
    rows, columns = solve(1 - matrix)
    ious = np.zeros(len(truth))
    ious[columns] = matrix[rows, columns]
    return tuple(ious.tolist())


def score(truth: VrtTruth, text: str, masks: Sequence[object], where: str = "") -> VrtScore:
    """Score a reply.

    Args:
        text: the reply; an unanswered sample is "".
        masks: COCO RLEs, the k-th for the k-th ``[SEG]``; a ``[SEG]`` beyond them is dropped.
        where: begins error messages, e.g. the predictions' file; the key by default.

    Raises:
        BadInput: a mask is broken or of another size than the truth.
        MissingExtra: scipy is not installed.
    """
    where = where or truth.id
    predicted = [encode(m, truth.size, f"{where}: mask {k}") for k, m in enumerate(masks)]

    def part(indices: Sequence[int], objects: Sequence[VrtObject]) -> PartScore:
        found = [predicted[k] for k in indices if k < len(predicted)]
        return PartScore(matched_ious(found, [one.mask for one in objects]), len(found))

    reasoning, answer = seg_indices(text)
    return VrtScore(
        truth.id, truth.classes, part(reasoning, truth.reasoning), part(answer, truth.answer)
    )


def summarize(scores: Sequence[VrtScore]) -> dict[str, Interval | int]:
    """The pooled scores of some samples, 0 to 1; r of the reasoning, a of the answer.

    Precision is the share of the masks that found an object. Where there is nothing to divide by a
    value is 0, as in the official code. Intervals resample samples, never the objects in them.
    BadInput where there are no samples.
    """
    pooled = {
        "r": _pooled([one.reasoning for one in scores]),
        "a": _pooled([one.answer for one in scores]),
    }
    return {"n": len(scores)} | {name: pooled[name[0]][name[2:]] for name in _NAMES}


def _pooled(parts: Sequence[PartScore]) -> dict[str, Interval]:
    objects = [len(part.ious) for part in parts]
    found_ious = [[iou for iou in part.ious if iou > FOUND] for part in parts]
    found = [len(ious) for ious in found_ious]
    return {
        "lq": ratio_interval(found, objects, empty=0.0),
        "sq": ratio_interval([sum(ious) for ious in found_ious], found, empty=0.0),
        "miou": ratio_interval([sum(part.ious) for part in parts], objects, empty=0.0),
        "precision": ratio_interval(found, [part.predicted for part in parts], empty=0.0),
    }
