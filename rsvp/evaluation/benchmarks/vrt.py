"""Reasoning paths: the reply and its masks against the path's objects and the answer's.

VRT-Bench, and rendered scenes of ``--task trace``. `rsvp.evaluation.metrics.vrt` has the metric and
the names of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rsvp.datasets.scenes import TraceSceneDataset
from rsvp.datasets.vrt import VrtDataset
from rsvp.evaluation.benchmarks import Benchmark, Json, Numbers
from rsvp.evaluation.metrics import SCENES, ScoringProtocol, vrt
from rsvp.evaluation.metrics.vrt import VrtScore
from rsvp.evaluation.predictions import Prediction
from rsvp.evaluation.stats import Aggregator
from rsvp.writers.vrt import SEG


class VrtScorer(Aggregator[VrtScore, Numbers]):
    """Scores replies; keeps the IoUs of each sample, never its masks."""

    def __init__(self, dataset: VrtDataset | TraceSceneDataset) -> None:
        super().__init__(vrt.summarize)
        self._dataset = dataset

    def add(self, index: int, prediction: Prediction) -> None:
        truth = self._dataset.truth(index)
        score = vrt.score(truth, prediction.text, prediction.masks, prediction.where)
        self.append(score, truth.classes)

    def by_kind(self) -> dict[str, Numbers]:
        """The scores of each class, by name; a sample may be of several."""
        return dict(sorted(super().by_kind().items()))


class Vrt(Benchmark):
    reader: ClassVar[Callable[..., Any]] = VrtDataset
    protocols: ClassVar[tuple[ScoringProtocol, ...]] = (ScoringProtocol("vrt"),)
    traces = True
    references: ClassVar[tuple[str, ...]] = (
        "R-Sa2VA-Qwen3VL-4B-SFT  R-LQ 0.663  R-SQ 0.873  A-mIoU 0.595  (arXiv:2512.05091)",
        "R-Sa2VA-Qwen3VL-4B-RL   R-LQ 0.670  R-SQ 0.867  A-mIoU 0.621  (arXiv:2512.05091)",
    )
    libraries = ("scipy.optimize",)

    def scorer(
        self, dataset: VrtDataset | TraceSceneDataset, protocol: ScoringProtocol
    ) -> VrtScorer:
        return VrtScorer(dataset)

    def export_line(self, record: Json) -> Json:
        """As `rsvp score` reads it; without a reasoning path, all masks are the answer."""
        line = super().export_line(record)
        marks = " ".join([SEG] * len(record["masks"]))
        return {"text": f"<answer>{marks}</answer>", **line}


class TraceScenes(Vrt):
    """Rendered scenes of ``--task trace``, by the number of hops and the kind of question."""

    reader = TraceSceneDataset
    protocols = (SCENES,)
    has_absent = True
    references = ()
