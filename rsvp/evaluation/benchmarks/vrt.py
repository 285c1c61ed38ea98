"""VRT-Bench: the reply and its masks against the reasoning's objects and the answer's.

`rsvp.evaluation.metrics.vrt` has the metric and the names of its numbers.
"""

from __future__ import annotations

from rsvp.datasets.vrt import VrtDataset
from rsvp.evaluation.benchmarks import Benchmark, Json, Numbers
from rsvp.evaluation.metrics import ScoringProtocol, vrt
from rsvp.evaluation.metrics.vrt import VrtScore
from rsvp.evaluation.predictions import Prediction
from rsvp.evaluation.stats import Aggregator


class VrtScorer(Aggregator[VrtScore, Numbers]):
    """Scores replies; keeps the IoUs of each sample, never its masks."""

    def __init__(self, dataset: VrtDataset) -> None:
        super().__init__(vrt.summarize)
        self._dataset = dataset

    def add(self, index: int, prediction: Prediction) -> None:
        """Score the prediction of sample `index`; raises what `vrt.score` does."""
        truth = self._dataset.truth(index)
        score = vrt.score(truth, prediction.text, prediction.masks, prediction.where)
        self.append(score, truth.classes)

    def by_kind(self) -> dict[str, Numbers]:
        """The scores of each class, by name; a sample may be of several."""
        return dict(sorted(super().by_kind().items()))


class Vrt(Benchmark):
    """VRT-Bench."""

    reader = VrtDataset
    protocols = (ScoringProtocol("vrt"),)
    scores_path = True
    libraries = ("scipy.optimize",)

    def scorer(self, dataset: VrtDataset, protocol: ScoringProtocol) -> VrtScorer:
        return VrtScorer(dataset)

    def export_line(self, record: Json) -> Json:
        """As `rsvp score` reads it; without a reasoning path, all masks are the answer."""
        line = super().export_line(record)
        marks = " ".join([vrt.SEG] * len(record["masks"]))
        return {"text": f"<answer>{marks}</answer>", **line}
