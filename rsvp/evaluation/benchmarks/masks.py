"""Benchmarks that compare the union of the predicted masks with the truth: gIoU and cIoU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rsvp.datasets import Dataset, Sample
from rsvp.evaluation import metrics
from rsvp.evaluation.aggregator import Aggregator
from rsvp.evaluation.benchmarks import Benchmark
from rsvp.evaluation.metrics import IntervalNumbers, Overlap, ScoringProtocol
from rsvp.evaluation.predictions import Prediction


@dataclass(frozen=True, slots=True)
class MaskOutcome:
    """What is kept of a scored sample.

    Attributes:
        no_target: there is nothing to find.
        none_predicted: the prediction has no pixel, and so says that there is nothing.
    """

    overlap: Overlap
    no_target: bool
    none_predicted: bool

    @property
    def ratio(self) -> float:
        """I / U without an epsilon, so that one half is one half; 0 where U is 0."""
        return self.overlap.intersection / self.overlap.union if self.overlap.union else 0.0


MoreNumbers = Callable[[Sequence[MaskOutcome]], IntervalNumbers]


class MaskScorer(Aggregator[MaskOutcome, IntervalNumbers]):
    """Scores masks; keeps a few numbers of each sample, never its masks."""

    def __init__(
        self, dataset: Dataset, protocol: ScoringProtocol, more_numbers: MoreNumbers
    ) -> None:
        super().__init__(
            lambda outcomes: (
                metrics.iou_numbers([one.overlap for one in outcomes], protocol)
                | more_numbers(outcomes)
            )
        )
        self._dataset = dataset
        self._protocol = protocol

    def add(self, index: int, prediction: Prediction) -> None:
        """Score the prediction of sample `index`; BadInput where a mask is broken."""
        sample: Sample = self._dataset[index]
        truth = metrics.truth(sample, self._protocol)
        height, width = truth.mask.shape
        spans = prediction.spans((height, width))
        overlap = metrics.overlap_spans(spans, truth)
        outcome = MaskOutcome(overlap, not truth.mask.any(), not len(spans))
        self.append(outcome, (sample.kind,), sample.tags)

    def numbers(self) -> IntervalNumbers:
        """The scores of all samples."""
        return self.overall()


class MaskBenchmark(Benchmark):
    """A benchmark of union masks; a subclass names its reader, protocols and splits."""

    scores_more: ClassVar[bool] = False

    def scorer(self, dataset: Dataset, protocol: ScoringProtocol) -> MaskScorer:
        """See `Benchmark.scorer`."""
        return MaskScorer(dataset, protocol, self.more_numbers)

    def more_numbers(self, outcomes: Sequence[MaskOutcome]) -> IntervalNumbers:
        """What the benchmark reports besides gIoU and cIoU."""
        del outcomes
        return {}
