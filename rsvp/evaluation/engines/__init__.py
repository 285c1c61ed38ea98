"""What a run gives to an engine: these samples, scored by these rules."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsvp.datasets import Dataset, Sample
from rsvp.evaluation import outcomes
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.outcomes import EvalOptions, SampleOutcome
from rsvp.evaluation.records import Record


@dataclass(frozen=True, slots=True)
class Work:
    """The samples that a run still has to answer."""

    data: Path  # an engine of several processes opens it in each of them
    open_dataset: Callable[[Path], Dataset]
    dataset: Dataset  # the same, opened here
    indices: Sequence[int]  # which of its samples, in order
    protocol: ScoringProtocol
    options: EvalOptions

    def __iter__(self) -> Iterator[Sample]:
        return (self.dataset[i] for i in self.indices)

    def record(self, sample: Sample, outcome: SampleOutcome) -> Record:
        """The record of an answered sample."""
        return outcomes.to_record(sample, outcome, self.protocol, self.options)


Engine = Callable[[Work], Generator[Record, None, None]]
"""One record a sample, as they get done.

Raises BadInput where a sample's image is broken or does not fit its truth, ModelUnavailable and
MissingExtra where a model is missing.
"""
