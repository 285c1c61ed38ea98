"""The benchmarks: one class each, found by its name in `rsvp.registry`.

A class says how to open the samples, which protocols and splits there are, how predictions are
scored, and how a run is exported. A plug-in adds one by the entry point ``benchmark.NAME``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rsvp import registry
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.predictions import Prediction
from rsvp.platform import files

Json = Mapping[str, Any]
Numbers = Mapping[str, Any]  # name -> interval, number, or None where no sample has it


class Scorer(Protocol):
    """Scores predictions, one call a sample, in the benchmark's order: all, by kind, by tag."""

    def add(self, index: int, prediction: Prediction) -> None:
        """Score the prediction of sample `index`; BadInput where a mask is broken."""

    def numbers(self) -> Numbers: ...
    def by_kind(self) -> Mapping[str, Numbers]: ...
    def by_tag(self) -> Mapping[str, Numbers]: ...


class Benchmark(ABC):
    """A benchmark.

    Attributes:
        reader: opens a folder, ``reader(Path)``, with ``split=…`` where there are `splits`; a
            `rsvp.datasets.BaseDataset`, or questions.
        protocols: the rules by which it can be scored, the default first.
        splits: what ``--split`` may name; none where a split is a folder of its own, None where
            the data itself names its splits.
        asks_for_masks: False where the answer is text: `rsvp eval` asks questions.
        has_absent: whether queries may have no target; None where that is not known. False makes
            `rsvp eval` tell the MLLM that every target exists, True refuses to.
        traces: it asks for a reasoning path, whose objects are scored too.
        scores_more: its scores are more than the gIoU and cIoU that every run has.
        libraries: optional ones that its scores need; the extra ``eval`` installs them.
        needs_all: they mean nothing for some of its samples.
        references: what others report, a line each; printed beside the scores as theirs.
        export_file: where `export` writes.
    """

    reader: ClassVar[Callable[..., Any]]
    protocols: ClassVar[tuple[ScoringProtocol, ...]]
    splits: ClassVar[tuple[str, ...] | None] = ()
    asks_for_masks: ClassVar[bool] = True
    has_absent: ClassVar[bool | None] = None
    traces: ClassVar[bool] = False
    scores_more: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ()
    needs_all: ClassVar[bool] = False
    references: ClassVar[tuple[str, ...]] = ()
    export_file: ClassVar[str] = "predictions.jsonl"

    @abstractmethod
    def scorer(self, dataset: Any, protocol: ScoringProtocol) -> Scorer:
        """A new scorer for the samples of `dataset`."""

    def open(self, data: Path, split: str | None = None) -> Any:
        """The samples in a folder; None opens the reader's default split."""
        self.check_split(split)
        return type(self).reader(data, **({} if split is None else {"split": split}))

    def name_for(self, name: str, data: Path) -> str:
        """The name of the benchmark for a folder: this one's, or that of another task."""
        return name

    def check_split(self, split: str | None) -> None:
        """BadInput where there is no such split; the message lists the known ones."""
        if not (split is None or self.splits is None or split in self.splits):
            known = ", ".join(self.splits)
            hint = f"known here: {known}" if known else "here a split is a folder: name it as data"
            raise BadInput(f"unknown split {split!r}; {hint}")

    def protocol(self, name: str | None = None) -> ScoringProtocol:
        """A protocol by name, None for the default; BadInput lists the known ones."""
        for protocol in self.protocols:
            if name in (None, protocol.name):
                return protocol
        known = ", ".join(p.name for p in self.protocols)
        raise BadInput(f"unknown protocol {name!r}; known here: {known}")

    def target_exists(self, wanted: bool | None = None) -> bool:
        """Whether the MLLM is told that every target exists; BadInput where that would be false.

        Args:
            wanted: what the user says; None for the benchmark's default.
        """
        if wanted and self.has_absent:
            raise BadInput("this benchmark has queries without a target: leave out --target-exists")
        return self.has_absent is False if wanted is None else wanted

    def score_official(self, dataset: Any, source: Path) -> tuple[Numbers, tuple[str, ...]] | None:
        """Score predictions in the benchmark's own form.

        Returns:
            The numbers, and the names of missing files; None where `source` has another form.
        """
        return None

    def export(self, records: Iterable[Json], folder: Path, data: Path | None) -> list[Path]:
        """Write predictions as the benchmark's own evaluation reads them; the files written.

        Args:
            records: with `id`, `masks`, `scores`, `text`, see `rsvp.evaluation.predictions`.
            data: the folder that the run's samples came from, where it is known.

        Raises:
            BadInput: an id is not the benchmark's, or a file cannot be written.
            KeyError, TypeError: a record lacks a field.
        """
        lines = (
            (files.dumps(self.export_line(one), indent=None, ascii_only=True) + "\n").encode()
            for one in records
        )
        return [files.atomic_write(folder / self.export_file, lines)]

    def export_line(self, record: Json) -> Json:
        """A line of the exported file: as `rsvp score` reads it."""
        line = {"id": record["id"], "masks": record["masks"]}
        optional = {name: record.get(name) for name in ("scores", "text")}
        return line | {name: value for name, value in optional.items() if value is not None}


def find(name: str) -> Benchmark:
    """A benchmark by name; BadInput lists the known ones."""
    benchmark: Benchmark = registry.make("benchmark", registry.Spec(name))
    return benchmark


def resolve(name: str, data: str | Path) -> str:
    """The name of the benchmark that a folder is for: ``scenes`` of --task qa are questions."""
    return find(name).name_for(name, Path(data))
