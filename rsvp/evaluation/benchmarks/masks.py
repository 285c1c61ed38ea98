"""Benchmarks that compare the union of the predicted masks with the truth: gIoU and cIoU.

giou ciou              by the protocol's rules
miou precision@0.5 …   RefCOCO: mean of I / U, and the share of samples with I / U at least so
                       much; of gRefCOCO over the samples with a target
n_acc t_acc            gRefCOCO: share of the samples without (with) a target that are answered
                       so; a prediction without a pixel says that there is no target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rsvp.datasets import BaseDataset
from rsvp.datasets.instances import CocoDataset
from rsvp.datasets.jsonl import JsonlDataset
from rsvp.datasets.reasonseg import open_reasonseg
from rsvp.datasets.refcoco import RefCocoDataset
from rsvp.datasets.scenes import SceneDataset, scene_task
from rsvp.evaluation import metrics
from rsvp.evaluation.benchmarks import Benchmark
from rsvp.evaluation.metrics import IntervalNumbers, Overlap, ScoringProtocol
from rsvp.evaluation.predictions import Prediction
from rsvp.evaluation.stats import Aggregator, mean_interval, mean_or_none


@dataclass(frozen=True, slots=True)
class MaskOutcome:
    """What is kept of a scored sample."""

    overlap: Overlap
    no_target: bool  # there is nothing to find
    none_predicted: bool  # the prediction has no pixel, and so says that there is nothing

    @property
    def ratio(self) -> float:
        """I / U without an epsilon, so that one half is one half; 0 where U is 0."""
        return self.overlap.intersection / self.overlap.union if self.overlap.union else 0.0


class MaskScorer(Aggregator[MaskOutcome, IntervalNumbers]):
    """Scores masks; keeps a few numbers of each sample, never its masks."""

    def __init__(
        self, dataset: BaseDataset, protocol: ScoringProtocol, benchmark: MaskBenchmark
    ) -> None:
        super().__init__(
            lambda outcomes: (
                metrics.iou_numbers([one.overlap for one in outcomes], protocol)
                | benchmark.more_numbers(outcomes)
            )
        )
        self._dataset = dataset
        self._protocol = protocol

    def add(self, index: int, prediction: Prediction) -> None:
        sample = self._dataset[index]
        truth = metrics.truth(sample, self._protocol)
        height, width = truth.mask.shape
        spans = prediction.spans((height, width))
        overlap = metrics.overlap_spans(spans, truth)
        outcome = MaskOutcome(overlap, not truth.mask.any(), not len(spans))
        self.append(outcome, (sample.kind,), sample.tags)


class MaskBenchmark(Benchmark):
    """A benchmark of union masks; a subclass names its reader, protocols and splits."""

    scores_more: ClassVar[bool] = False

    def scorer(self, dataset: BaseDataset, protocol: ScoringProtocol) -> MaskScorer:
        return MaskScorer(dataset, protocol, self)

    def more_numbers(self, outcomes: Sequence[MaskOutcome]) -> IntervalNumbers:
        """What the benchmark reports besides gIoU and cIoU."""
        return {}


class Scenes(MaskBenchmark):
    """Rendered scenes, by kind of query, and by whether training has seen its words.

    Those of ``--task qa`` are questions, those of ``--task trace`` ask for reasoning paths.
    """

    reader = SceneDataset
    protocols = (metrics.SCENES,)
    has_absent = True

    def name_for(self, name: str, data: Path) -> str:
        return {"qa": "scenes-qa", "trace": "scenes-trace"}.get(scene_task(data), name)


class Jsonl(MaskBenchmark):
    """A user's own images, queries and masks; see `rsvp.datasets.jsonl`."""

    reader = JsonlDataset
    protocols = (ScoringProtocol("jsonl"),)


class Coco(MaskBenchmark):
    """COCO instances: every category of an image is a query; its crowds are left out."""

    reader = CocoDataset
    protocols = (ScoringProtocol("coco-masks"),)
    splits = None
    has_absent = False


class ReasonSeg(MaskBenchmark):
    """Implicit queries, short and long (X. Lai et al., LISA, CVPR 2024); ReasonSeg-X and -R."""

    reader = open_reasonseg
    protocols = (metrics.LISA, metrics.SEG_ZERO, metrics.VISIONREASONER, metrics.REASONSEG_X)
    splits = ("train", "val", "test")
    has_absent = False


class RefCoco(MaskBenchmark):
    reader = RefCocoDataset
    protocols: ClassVar[tuple[ScoringProtocol, ...]] = (metrics.LISA, metrics.SEG_ZERO)
    splits: ClassVar[tuple[str, ...] | None] = ("train", "val", "testA", "testB")
    has_absent: ClassVar[bool | None] = False
    scores_more = True

    def more_numbers(self, outcomes: Sequence[MaskOutcome]) -> IntervalNumbers:
        ratios = [one.ratio for one in outcomes]
        return {"miou": mean_interval(ratios), **_precisions(ratios, (0.5, 0.6, 0.7, 0.8, 0.9))}


class RefCocog(RefCoco):
    splits = ("train", "val", "test")


class GRefCoco(RefCoco):
    """gRefCOCO: an expression may have several targets, or none."""

    protocols = (metrics.GREFCOCO,)
    has_absent = True

    def more_numbers(self, outcomes: Sequence[MaskOutcome]) -> IntervalNumbers:
        absent = [one for one in outcomes if one.no_target]
        present = [one for one in outcomes if not one.no_target]
        return {
            "n_acc": mean_or_none([one.none_predicted for one in absent]),
            "t_acc": mean_or_none([not one.none_predicted for one in present]),
            **_precisions([one.ratio for one in present], (0.7, 0.8, 0.9)),
        }


def _precisions(ratios: Sequence[float], thresholds: Sequence[float]) -> IntervalNumbers:
    return {f"precision@{t}": mean_or_none([one >= t for one in ratios]) for t in thresholds}
