"""Which benchmarks there are: name -> reader, metric and protocols, one literal table."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rsvp.datasets import Dataset
from rsvp.datasets.scenes import SceneDataset
from rsvp.errors import BadInput
from rsvp.evaluation import metrics
from rsvp.evaluation.metrics import Protocol


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark.

    Attributes:
        reader: opens its folder.
        metric: what is compared, ``iou``: one union mask a sample.
        protocols: the rules by which it is scored, the default first.
    """

    reader: Callable[[Path], Dataset]
    metric: str
    protocols: tuple[Protocol, ...]

    def protocol(self, name: str | None = None) -> Protocol:
        """A protocol by name, None for the default; BadInput lists the known ones."""
        if name is None:
            return self.protocols[0]
        for protocol in self.protocols:
            if protocol.name == name:
                return protocol
        known = ", ".join(p.name for p in self.protocols)
        raise BadInput(f"unknown protocol {name!r}; known here: {known}")


BENCHMARKS: dict[str, Benchmark] = {
    "scenes": Benchmark(SceneDataset, "iou", (metrics.SCENES,)),
}


def find(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        BadInput: no such benchmark; the message lists the known ones.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    close = difflib.get_close_matches(name, BENCHMARKS, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    raise BadInput(f"unknown benchmark {name!r}{hint} Known: {', '.join(BENCHMARKS)}")
