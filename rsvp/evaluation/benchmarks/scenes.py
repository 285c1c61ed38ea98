"""Rendered scenes: masks, by kind of query, and by whether training has seen its words."""

from __future__ import annotations

from rsvp.datasets.scenes import SceneDataset
from rsvp.evaluation.benchmarks.masks import MaskBenchmark
from rsvp.evaluation.metrics import SCENES


class Scenes(MaskBenchmark):
    """The folders that ``python -m rsvp.embedded.scenes`` writes."""

    reader = SceneDataset
    protocols = (SCENES,)
