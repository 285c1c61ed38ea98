"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: masks of referring expressions.

    giou ciou              by the protocol's rules
    miou precision@0.5 …   mean of I / U, and the share of samples with I / U at least so much
    n_acc t_acc            gRefCOCO: share of the samples without (with) a target that are answered
                           so; a prediction without a pixel says that there is no target

`precision@…` of gRefCOCO is over the samples with a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rsvp.datasets.refcoco import RefCocoDataset
from rsvp.evaluation.benchmarks.masks import MaskBenchmark, MaskOutcome
from rsvp.evaluation.metrics import GREFCOCO, LISA, SEG_ZERO, IntervalNumbers, ScoringProtocol
from rsvp.evaluation.stats import mean_interval, mean_or_none


class RefCoco(MaskBenchmark):
    """RefCOCO and RefCOCO+."""

    reader = RefCocoDataset
    protocols: ClassVar[tuple[ScoringProtocol, ...]] = (LISA, SEG_ZERO)
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "testA", "testB")
    scores_more = True

    def more_numbers(self, outcomes: Sequence[MaskOutcome]) -> IntervalNumbers:
        """Mean IoU and precisions."""
        ratios = [one.ratio for one in outcomes]
        return {"miou": mean_interval(ratios), **_precisions(ratios, (0.5, 0.6, 0.7, 0.8, 0.9))}


class RefCocog(RefCoco):
    """RefCOCOg."""

    splits = ("train", "val", "test")


class GRefCoco(RefCoco):
    """gRefCOCO: an expression may have several targets, or none."""

    protocols = (GREFCOCO,)

    def more_numbers(self, outcomes: Sequence[MaskOutcome]) -> IntervalNumbers:
        """How often "no target" is right and a target is found, and precisions."""
        absent = [one for one in outcomes if one.no_target]
        present = [one for one in outcomes if not one.no_target]
        return {
            "n_acc": mean_or_none([one.none_predicted for one in absent]),
            "t_acc": mean_or_none([not one.none_predicted for one in present]),
            **_precisions([one.ratio for one in present], (0.7, 0.8, 0.9)),
        }


def _precisions(ratios: Sequence[float], thresholds: Sequence[float]) -> IntervalNumbers:
    return {f"precision@{t}": mean_or_none([one >= t for one in ratios]) for t in thresholds}
