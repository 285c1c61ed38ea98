"""ReasonSeg (X. Lai et al., LISA, CVPR 2024): masks of implicit queries, short and long."""

from __future__ import annotations

from rsvp.datasets.reasonseg import ReasonSegDataset
from rsvp.evaluation.benchmarks.masks import MaskBenchmark
from rsvp.evaluation.metrics import LISA, REASONSEG_X, SEG_ZERO, VISIONREASONER


class ReasonSeg(MaskBenchmark):
    """ReasonSeg, and its mirrors ReasonSeg-X and ReasonSeg-R."""

    reader = ReasonSegDataset
    protocols = (LISA, SEG_ZERO, VISIONREASONER, REASONSEG_X)
    splits = ("train", "val", "test")
