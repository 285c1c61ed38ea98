"""Two runs on the same samples: which is better, by how much, on which kinds, on which samples.

Differences are B - A, with the interval of a paired bootstrap: both runs are scored on the same
resamples, so that samples that are hard for both do not hide which run is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rsvp.errors import BadInput
from rsvp.evaluation import benchmarks, records
from rsvp.evaluation.benchmarks import Benchmark
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.metrics import ScoringProtocol, empty_ciou
from rsvp.evaluation.records import RECORDS, AnswerRecord, Record
from rsvp.evaluation.stats import Aggregator, Difference, paired_difference, paired_ratio_difference
from rsvp.platform.runs import CONFIG

FOUND = 0.5  # a sample counts as found from this IoU on

_DATA = "data_sha256"
_SAME = ("benchmark", "protocol", "split", _DATA, "samples")


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """How much better B is on some of the samples."""

    n: int
    a: float  # gIoU of either run
    b: float
    giou: Difference  # B - A
    ciou: Difference


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that only one run found, at IoU 0.5."""

    id: str
    kind: str
    iou_a: float
    iou_b: float


@dataclass(frozen=True, slots=True)
class Comparison:
    runs: tuple[str, str]
    failed: tuple[int, int]  # samples without an answer, in A and in B
    overall: GroupDifference
    by_kind: Mapping[str, GroupDifference]
    gained: Sequence[Flip]  # what only B found, the largest change first
    lost: Sequence[Flip]  # what only A found
    metric: str = "gIoU"  # or the accuracy of answers

    def to_dict(self) -> dict[str, Any]:
        """As `rsvp compare --json` prints it."""
        fields = asdict(self)
        if self.metric == "accuracy":
            for group in (fields["overall"], *fields["by_kind"].values()):
                group["accuracy"] = group.pop("giou")
                del group["ciou"]
        runs = {name: list(fields.pop(name)) for name in ("runs", "failed")}
        return {**runs, **fields.pop("overall"), **fields}


class _Row(NamedTuple):
    id: str
    kind: str
    # The IoU, 0 of a sample that the protocol leaves out (nothing there, nothing predicted); of a
    # question 1 where the answer is right, so that both differences are that of the accuracy.
    iou: float
    intersection: int
    union: int
    failed: bool


_Pair = tuple[_Row, _Row]  # a sample in both runs


def compare(run_a: str | Path, run_b: str | Path) -> Comparison:
    """Compare two finished runs of `rsvp eval` on the same data.

    Raises:
        BadInput: a folder holds no run, the runs differ in their data, benchmark or protocol, or
            one of them has no record of a sample.
    """
    folders = Path(run_a), Path(run_b)
    benchmark, protocol = _benchmark(*folders)
    aggregator = Aggregator[_Pair, GroupDifference](lambda pairs: _difference(pairs, protocol))
    for pair in _pairs(*folders, benchmark):
        aggregator.append(pair, (pair[0].kind,))
    pairs = aggregator.values
    return Comparison(
        runs=(str(run_a), str(run_b)),
        failed=(sum(a.failed for a, _ in pairs), sum(b.failed for _, b in pairs)),
        overall=aggregator.overall(),
        by_kind=aggregator.by_kind(),
        gained=_flips(pairs, gained=True),
        lost=_flips(pairs, gained=False),
        metric="gIoU" if benchmark.asks_for_masks else "accuracy",
    )


def _benchmark(folder_a: Path, folder_b: Path) -> tuple[Benchmark, ScoringProtocol]:
    """The benchmark and the protocol of both runs, refused where their data or rules differ."""
    for folder in (folder_a, folder_b):
        if not (folder / CONFIG).is_file() or not (folder / RECORDS).is_file():
            raise BadInput(f"{folder} holds no run: {CONFIG} and {RECORDS} are looked for")
    first, second = EvalConfig.read(folder_a).run, EvalConfig.read(folder_b).run
    for key in _SAME:
        old, new = getattr(first, key), getattr(second, key)
        if old != new:
            what = "the data" if key == _DATA else f"{key} ({old} and {new})"
            raise BadInput(f"{folder_a} and {folder_b} cannot be compared: they differ in {what}")
    benchmark = benchmarks.find(first.benchmark)
    return benchmark, benchmark.protocol(first.protocol)


def _pairs(folder_a: Path, folder_b: Path, benchmark: Benchmark) -> list[_Pair]:
    """The samples of both runs, in the order of the first."""
    model: Any = Record if benchmark.asks_for_masks else AnswerRecord
    first, second = (
        {r.id: _row(r) for r in records.read(folder / RECORDS, model)}
        for folder in (folder_a, folder_b)
    )
    for folder, own, other in ((folder_a, first, second), (folder_b, second, first)):
        lacking = next((one for one in other if one not in own), None)
        if lacking is not None:
            raise BadInput(f"{folder} has no record of sample {lacking!r}; finish it with --resume")
    if not first:
        raise BadInput(f"{folder_a} has no records to compare")
    return [(row, second[key]) for key, row in first.items()]


def _row(record: Record | AnswerRecord) -> _Row:
    score, failed = record.score or 0.0, record.failure is not None
    if isinstance(record, AnswerRecord):
        return _Row(record.id, record.kind, score, int(score), 1, failed)
    return _Row(record.id, record.kind, score, record.intersection, record.union, failed)


def _difference(pairs: Sequence[_Pair], protocol: ScoringProtocol) -> GroupDifference:
    rows = list(zip(*pairs, strict=True))
    a, b = ([row.iou for row in run] for run in rows)
    sums = [([row.intersection for row in run], [row.union for row in run]) for run in rows]
    return GroupDifference(
        n=len(pairs),
        a=sum(a) / len(a),
        b=sum(b) / len(b),
        giou=paired_difference(a, b),
        ciou=paired_ratio_difference(*sums, empty=empty_ciou(protocol)),
    )


def _flips(pairs: Sequence[_Pair], *, gained: bool) -> list[Flip]:
    """The samples that one run found and the other did not, the largest change first."""
    found = [
        Flip(a.id, a.kind, a.iou, b.iou)
        for a, b in pairs
        if (a.iou >= FOUND) != (b.iou >= FOUND) and (b.iou > a.iou) == gained
    ]
    return sorted(found, key=lambda flip: -abs(flip.iou_b - flip.iou_a))
