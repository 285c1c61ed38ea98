"""A run's scores: every mean with its 95 % bootstrap interval.

Samples are taken in the order of the records, so that the same records give the same summary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from rsvp.evaluation.metrics import SCENES, Overlap, ScoringProtocol, iou_numbers, vrt
from rsvp.evaluation.metrics.vrt import PartScore, VrtScore
from rsvp.evaluation.pending import RecordCounts
from rsvp.evaluation.records import AnswerRecord, Record
from rsvp.evaluation.score import Score
from rsvp.evaluation.stats import Aggregator, Interval, mean_or_none, ratio_interval


class GroupSummary(BaseModel, frozen=True):
    """The scores of some of the samples."""

    n: int
    skipped: int = Field(default=0, description="How many the protocol leaves out of gIoU.")
    giou: Interval | None = Field(
        default=None, description="Null where the protocol leaves all of them out."
    )
    ciou: Interval | None = None


class Duration(BaseModel, frozen=True):
    """Seconds a sample in one stage."""

    mean: float
    p95: float


class Summary(GroupSummary, frozen=True, json_schema_extra={"additionalProperties": True}):
    """A run's scores, as `summary.json` and `rsvp eval --json` have them.

    Besides these keys there is one a tag (``seen``, ``unseen``) with a `GroupSummary`, and what
    else the benchmark scores, as in `rsvp score --json`. Null stands where no sample has a value.
    """

    schema_version: Literal[1] = 1
    failed: int = Field(description="Samples without an answer, scored as empty predictions.")
    not_understood: int = Field(
        default=0,
        description="Samples whose image or query the model says it cannot read, scored likewise.",
    )
    by_kind: dict[str, GroupSummary] = Field(
        default={}, description="In the order in which the kinds first appear."
    )
    by_tag: SkipJsonSchema[dict[str, GroupSummary]] = Field(default={}, exclude=True)
    oracle: Interval | None = Field(
        default=None,
        description="gIoU of the segmenter on the true boxes; an absent sample is empty, scores 1.",
    )
    oracle_r_lq: Interval | None = Field(
        default=None,
        description="Of reasoning paths: as r_lq, r_sq and a_miou, but of the true boxes' masks.",
    )
    oracle_r_sq: Interval | None = None
    oracle_a_miou: Interval | None = None
    oracle_groups: SkipJsonSchema[dict[str, dict[str, Interval]]] = Field(
        default={}, exclude=True, description="The same three of each kind and tag."
    )
    box_recall: Interval | None = Field(
        default=None,
        description="Share of the true boxes matched one-to-one by a predicted box at IoU >= 0.5.",
    )
    box_to_mask: Interval | None = Field(
        default=None, description="Mean IoU over single objects, true box -> mask."
    )
    absent_detected: Interval | None = Field(
        default=None,
        description='Share of the absent samples answered "no target"; not those that failed or '
        "were not understood.",
    )
    false_absent: Interval | None = Field(
        default=None, description='Share of the other samples answered "no target".'
    )
    seconds: dict[str, Duration] = Field(
        default={}, description="Per stage, over the samples that went through it."
    )
    official: SkipJsonSchema[Score | None] = Field(
        default=None, exclude=True, description="The benchmark's own scores, beyond gIoU and cIoU."
    )

    def to_dict(self) -> dict[str, Any]:
        """The document: the fields, then the tags and the benchmark's own scores."""
        tags = {tag: group.model_dump() for tag, group in self.by_tag.items()}
        document = {**self.model_dump(), **tags}
        if self.official:
            document = _merged(document, self.official.to_dict())
        oracle = {
            group: {name: interval.to_dict() for name, interval in scores.items()}
            for group, scores in self.oracle_groups.items()
        }
        return _merged(document, {"by_kind": oracle})


class CostAggregator(RecordCounts):
    """What a run costs: failures with their causes, tokens, and seconds of each stage, so far."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, record: Record | AnswerRecord) -> None:
        super().add(record)
        if record.failure is not None:
            self.causes[record.failure.message or record.failure.error] += 1
        for stage, seconds in record.seconds.items():
            self._seconds[stage].append(seconds)

    def seconds(self) -> dict[str, Duration]:
        return {
            stage: Duration(mean=float(np.mean(s)), p95=float(np.percentile(s, 95)))
            for stage, s in self._seconds.items()
        }


class RunAggregator(CostAggregator, Aggregator[Overlap, GroupSummary]):
    """Aggregates records; keeps a few numbers of each, never its masks."""

    model = Record

    def __init__(self, protocol: ScoringProtocol = SCENES) -> None:
        CostAggregator.__init__(self)
        Aggregator.__init__(self, lambda found: GroupSummary(**iou_numbers(found, protocol)))  # type: ignore[arg-type]
        self.not_understood = 0  # samples, so far
        self._iou_sum, self._iou_count = 0.0, 0
        self._oracle: list[float] = []
        self._oracle_paths = Aggregator(_oracle_scores)
        self._boxes: list[tuple[float, int]] = []
        self._objects: list[tuple[float, int]] = []
        self._said_absent: dict[bool, list[bool]] = {True: [], False: []}  # by truly absent

    @property
    def headline(self) -> tuple[str, float | None]:
        return "gIoU", self._iou_sum / self._iou_count if self._iou_count else None

    def add(self, record: Record) -> None:  # type: ignore[override]
        super().add(record)
        self.append(Overlap(record.intersection, record.union), (record.kind,), record.tags)
        if record.iou is not None:
            self._iou_sum += record.iou
            self._iou_count += 1
        self.not_understood += not record.understood
        self._said_absent[record.absent].append(record.no_target is True)
        if record.true_boxes:
            self._boxes.append((record.matched_boxes, record.true_boxes))
        if record.oracle is not None:
            self._oracle += [] if record.oracle.iou is None else [record.oracle.iou]
            objects, path = record.oracle.objects, record.oracle.path
            if path:
                parts = [PartScore(tuple(ious), len(ious)) for ious in (path, objects)]
                score = VrtScore(record.id, (), *parts)
                self._oracle_paths.append(score, (record.kind,), record.tags)
            self._objects += [(sum(objects), len(objects))] if objects else []

    def summary(self, official: Score | None = None) -> Summary:
        overall = self.overall().model_dump(include={"skipped", "giou", "ciou"}) if self.n else {}
        oracle: dict[str, Any] = {**self._oracle_paths.overall()}
        return Summary(
            n=self.n,
            failed=self.failed,
            not_understood=self.not_understood,
            **overall,
            by_kind=self.by_kind(),
            by_tag=self.by_tag(),
            oracle=mean_or_none(self._oracle),
            **oracle,
            oracle_groups={**self._oracle_paths.by_kind(), **self._oracle_paths.by_tag()},
            box_recall=_ratio(self._boxes),
            box_to_mask=_ratio(self._objects),
            absent_detected=mean_or_none(self._said_absent[True]),
            false_absent=mean_or_none(self._said_absent[False]),
            seconds=self.seconds(),
            official=official,
        )


def _oracle_scores(paths: Sequence[VrtScore]) -> dict[str, Interval]:
    names, found = ("r_lq", "r_sq", "a_miou"), vrt.summarize(paths) if paths else {}
    return {f"oracle_{n}": one for n in names if isinstance(one := found.get(n), Interval)}


def _ratio(pairs: Sequence[tuple[float, int]]) -> Interval | None:
    return ratio_interval(*np.array(pairs).T) if pairs else None


def _merged(document: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The document and what `more` adds to it; a value that both have stays, key by key."""
    merged = dict(document)
    for name, value in more.items():
        own = merged.get(name)
        if own is None:
            merged[name] = value
        elif isinstance(own, dict) and isinstance(value, Mapping):
            merged[name] = _merged(own, value)
    return merged
