"""Anyone's predictions on a benchmark, scored without loading a model.

Samples are scored one after the other in the benchmark's order, so that the order of the
predictions changes nothing. A sample without a prediction counts as an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput
from rsvp.evaluation import benchmarks
from rsvp.evaluation.benchmarks import Benchmark, Numbers
from rsvp.evaluation.predictions import PredictionFile
from rsvp.evaluation.stats import Interval


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of predictions.

    Attributes:
        samples: how many the benchmark has.
        missing, failed: see `PredictionFile`; of official results, `missing` names files.
        numbers: name -> interval, number, or None where no sample has it.
        by_kind, by_tag: the same for parts of the samples; empty where the metric has none.
        references: what others report of the benchmark.
    """

    benchmark: str
    protocol: str
    samples: int
    missing: tuple[str, ...] = field(repr=False)
    failed: int
    numbers: Numbers
    by_kind: Mapping[str, Numbers] = field(default_factory=dict)
    by_tag: Mapping[str, Numbers] = field(default_factory=dict)
    references: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As `rsvp score --json` prints it; an interval is ``{"mean", "low", "high"}``."""
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "n": self.samples,
            "missing": len(self.missing),
            "failed": self.failed,
            **to_json(self.numbers),
            "by_kind": {kind: to_json(one) for kind, one in self.by_kind.items()},
            **{tag: to_json(one) for tag, one in self.by_tag.items()},
        }


def score(
    name: str,
    data: str | Path,
    predicted: str | Path,
    *,
    protocol: str | None = None,
    split: str | None = None,
) -> Score:
    """Score the predictions of a file.

    Args:
        name: of the benchmark, see `rsvp.evaluation.benchmarks`.
        data: its folder.
        predicted: JSON lines, see `rsvp.evaluation.predictions`; for SegInW also a folder of the
            official ``seginw_<Name>_val.json``.
        protocol: one of the benchmark's, the first by default.
        split: where the folder holds several, e.g. RefCOCO's ``testA``.

    Raises:
        BadInput: unknown benchmark, protocol or split, malformed data or predictions.
        MissingExtra: an optional library is missing.
    """
    benchmark = benchmarks.find(name)
    benchmark.protocol(protocol)  # refused before the data is read
    source = Path(predicted)
    if not source.exists():
        raise BadInput(f"there are no predictions {source}")
    name = benchmarks.resolve(name, data)
    benchmark = benchmarks.find(name)
    return score_samples(name, benchmark, benchmark.open(Path(data), split), source, protocol)


def score_samples(
    name: str,
    benchmark: Benchmark,
    dataset: Any,
    source: Path,
    protocol: str | None = None,
    *,
    count: int | None = None,
) -> Score:
    """Score the predictions of a file on open samples, or the first `count`; see `score`."""
    rules = benchmark.protocol(protocol)
    official = benchmark.score_official(dataset, source)
    if official is not None:
        numbers, missing = official
        return Score(name, rules.name, len(dataset), missing, failed=0, numbers=numbers)
    scorer = benchmark.scorer(dataset, rules)
    ids = [dataset.sample_id(i) for i in range(len(dataset))][:count]
    with PredictionFile(source, ids) as predictions:
        for index, sample_id in enumerate(ids):
            scorer.add(index, predictions[sample_id])
    return Score(
        benchmark=name,
        protocol=rules.name,
        samples=len(ids),
        missing=predictions.missing,
        failed=predictions.failed,
        numbers=scorer.numbers(),
        by_kind=scorer.by_kind(),
        by_tag=scorer.by_tag(),
        references=benchmark.references,
    )


def to_json(numbers: Numbers) -> dict[str, Any]:
    return {
        name: value.to_dict() if isinstance(value, Interval) else value
        for name, value in numbers.items()
    }
