"""What a run comes to: every mean with its 95 % bootstrap interval.

Samples are taken in the order of the records, so that the same records give the same summary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsvp.evaluation.stats import Interval, mean_interval, ratio_interval

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """The score of some of the samples."""

    n: int
    giou: Interval
    ciou: Interval

    def to_dict(self) -> dict[str, Any]:
        """``{"n", "giou", "ciou"}``, each interval ``{"mean", "low", "high"}``."""
        return {"n": self.n, "giou": self.giou.to_dict(), "ciou": self.ciou.to_dict()}


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds a sample in one stage."""

    mean: float
    p95: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's scores. None stands where the run has no sample to tell it.

    Attributes:
        failed: samples without an answer; they are scored as empty predictions.
        overall: None only for a run without samples.
        by_kind, by_tag: in the order in which they first appear.
        oracle: gIoU of the segmenter on the true boxes; an absent sample is empty and scores 1.
        box_recall: share of the true boxes matched one-to-one by a predicted box at IoU >= 0.5.
        box_to_mask: mean IoU over single objects, true box -> mask.
        absent_detected: share of the absent samples answered with "no target"; a failure is no
            answer.
        false_absent: share of the other samples answered with "no target".
        seconds: per stage, over the samples that went through it.
    """

    n: int
    failed: int
    overall: Group | None
    by_kind: Mapping[str, Group]
    by_tag: Mapping[str, Group]
    oracle: Interval | None
    box_recall: Interval | None
    box_to_mask: Interval | None
    absent_detected: Interval | None
    false_absent: Interval | None
    seconds: Mapping[str, Duration]

    def to_dict(self) -> dict[str, Any]:
        """As `summary.json` and `rsvp eval --json` have it.

        ``n``, ``failed``, ``giou``, ``ciou``, ``by_kind`` and each tag (``seen``, ``unseen``) as
        in `Group`, then the other fields by their names; an interval is ``{"mean", "low",
        "high"}``, null where there is nothing to tell.
        """
        overall = self.overall
        document = {
            "n": self.n,
            "failed": self.failed,
            "giou": _shown(overall.giou if overall else None),
            "ciou": _shown(overall.ciou if overall else None),
            "by_kind": {kind: group.to_dict() for kind, group in self.by_kind.items()},
            **{tag: group.to_dict() for tag, group in self.by_tag.items()},
        }
        for name in ("oracle", "box_recall", "box_to_mask", "absent_detected", "false_absent"):
            document[name] = _shown(getattr(self, name))
        document["seconds"] = {
            stage: {"mean": one.mean, "p95": one.p95} for stage, one in self.seconds.items()
        }
        return document


class Tally:
    """Adds records up; keeps a few numbers of each, never its masks."""

    def __init__(self) -> None:
        self.failed = 0
        self._iou: list[float] = []
        self._shared: list[tuple[int, int]] = []
        self._kinds: dict[str, list[int]] = defaultdict(list)
        self._tags: dict[str, list[int]] = defaultdict(list)
        self._oracle: list[float] = []
        self._boxes: list[tuple[int, int]] = []
        self._objects: list[tuple[float, int]] = []
        self._absent: dict[bool, list[float]] = {True: [], False: []}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._total = 0.0

    @property
    def n(self) -> int:
        """How many records there are."""
        return len(self._iou)

    @property
    def giou(self) -> float | None:
        """The mean IoU so far."""
        return self._total / self.n if self.n else None

    def add(self, record: Record) -> None:
        """Count one record."""
        index = self.n
        self._iou.append(record["iou"])
        self._total += record["iou"]
        self._shared.append((record["intersection"], record["union"]))
        self._kinds[record["kind"]].append(index)
        for tag in record["tags"]:
            self._tags[tag].append(index)
        self.failed += record["failure"] is not None
        self._absent[record["absent"]].append(float(record["no_target"] is True))
        if record["true_boxes"]:
            self._boxes.append((record["matched_boxes"], record["true_boxes"]))
        if record["oracle"] is not None:
            self._oracle.append(record["oracle"]["iou"])
            objects = record["oracle"]["objects"]
            self._objects.extend([(sum(objects), len(objects))] if objects else [])
        for stage, seconds in record["seconds"].items():
            self._seconds[stage].append(seconds)

    def summary(self) -> Summary:
        """The summary of what was added."""
        everything = range(self.n)
        return Summary(
            n=self.n,
            failed=self.failed,
            overall=self._group(everything) if self.n else None,
            by_kind={kind: self._group(which) for kind, which in self._kinds.items()},
            by_tag={tag: self._group(which) for tag, which in self._tags.items()},
            oracle=_mean(self._oracle),
            box_recall=_ratio(self._boxes),
            box_to_mask=_ratio(self._objects),
            absent_detected=_mean(self._absent[True]),
            false_absent=_mean(self._absent[False]),
            seconds={
                stage: Duration(float(np.mean(s)), float(np.percentile(s, 95)))
                for stage, s in self._seconds.items()
            },
        )

    def _group(self, which: Iterable[int]) -> Group:
        chosen = list(which)
        shared = np.array([self._shared[i] for i in chosen])
        return Group(
            len(chosen),
            mean_interval([self._iou[i] for i in chosen]),
            ratio_interval(shared[:, 0], shared[:, 1]),
        )


def _mean(values: list[float]) -> Interval | None:
    return mean_interval(values) if values else None


def _ratio(pairs: list[tuple[int, int]] | list[tuple[float, int]]) -> Interval | None:
    return ratio_interval(*np.array(pairs).T) if pairs else None


def _shown(interval: Interval | None) -> dict[str, float] | None:
    return interval.to_dict() if interval else None
