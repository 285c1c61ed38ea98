"""The append-only `records.jsonl` of a run: one line a sample, with its answer and its score.

A record is written once, whole, when its sample is done. A kill can only tear the last line, which
is dropped when the run is resumed. A complete run puts its records into the order of the samples,
so that the file is the same whatever happened before.

`records.jsonl` is also a predictions file: `rsvp score` reads `id`, `masks`, `scores` and `text`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from rsvp.errors import BadInput
from rsvp.platform.files import atomic_write, validate, writable
from rsvp.types import RoundCost, Usage, Verdict

RECORDS = "records.jsonl"
SYNC_EVERY = 16  # records between two fsyncs; a power cut costs at most these, a kill none

Span = tuple[int, int]  # where a line begins, and its length, in bytes
Numbers = list[float | None]  # JSON has no NaN: null stands for it


class _RecordModel(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Failure(_RecordModel):
    """Why there is no answer."""

    error: str = Field(description="The class of the error.")
    message: str


class OracleRecord(_RecordModel):
    """The segmenter on the true boxes."""

    iou: float | None = Field(description="As of the record, but of the masks of the true boxes.")
    intersection: int
    union: int
    objects: list[float] = Field(description="The IoU of each object, from its own box.")
    path: list[float] = Field(default=[], description="The same of the objects of the path.")
    failure: Failure | None


class _SampleRecord(_RecordModel):
    # What the records of all runs have
    schema_version: Literal[1] = 1
    id: str
    kind: str
    tags: list[str]
    steps: list[str] = Field(description="The reasoning steps; why each look was asked for.")
    reason: str
    raw: str = Field(description="The MLLM's last reply, word for word.")
    warnings: list[str]
    rounds: int = Field(default=0, description="Of verification.")
    verdicts: list[Verdict] = []
    round_costs: list[RoundCost] = []
    usage: Usage | None
    prompt_sha256: str | None
    failure: Failure | None
    seconds: dict[str, float] = Field(description="Of each stage.")

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump()


class Record(_SampleRecord):
    """A sample, answered and scored; a failed one counts as an empty prediction."""

    iou: float | None = Field(
        description="Of the union of the predicted masks with the truth, by the protocol; null "
        "where it leaves the sample out."
    )
    intersection: int = Field(description="Pixels.")
    union: int = Field(description="Pixels.")
    absent: bool = Field(description="Nothing in the image answers the query.")
    no_target: bool | None = Field(
        description="The model says that nothing does; null where there is no answer."
    )
    understood: bool = Field(
        default=True,
        description="False where the model says that it cannot read the image or the query.",
    )
    masks: list[dict[str, Any]] = Field(description="COCO RLE, one a predicted target.")
    scores: Numbers = Field(description="0 to 1, one a mask.")
    boxes: list[list[float]] = Field(description="xyxy in pixels, one a mask.")
    labels: list[str]
    raw_numbers: list[Numbers] = Field(
        default=[], description="The numbers of each target as the MLLM wrote them, in its frame."
    )
    true_boxes: int = Field(description="How many objects there are to find.")
    matched_boxes: int = Field(description="How many of them are found, at box IoU >= 0.5.")
    oracle: OracleRecord | None = Field(description="Null where the run does not ask for it.")
    text: str | None = Field(
        default=None,
        description="Of benchmarks that score the path to the answer: the steps and the answer, "
        "with a [SEG] for each mask.",
    )
    agreement: float | None = Field(
        default=None, description="The share of several sampled replies that give these targets."
    )

    @property
    def score(self) -> float | None:
        return self.iou

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(exclude={"text"} if self.text is None else None)


class LookRecord(_RecordModel):
    """A closer look that the MLLM asked for."""

    query: str
    masks: list[dict[str, Any]] = Field(description="COCO RLE, one a target that was found.")
    box: list[float] | None = Field(description="xyxy of what was shown; null for nothing.")
    size: list[int] | None = Field(description="Height and width of the picture.")


class TrueLookRecord(_RecordModel):
    """The answer after a look at the true masks; without a look where the question needs none."""

    text: str
    right: bool | None
    failure: Failure | None


class AnswerRecord(_SampleRecord):
    """A question, answered and scored; a failed one counts as wrong."""

    question: str
    choices: list[str] = Field(description="In the order in which they were shown.")
    text: str = Field(description="The answer, as the benchmark reads it.")
    choice: int | None
    right: bool | None = Field(description="Null where the right answer is secret.")
    oracle: TrueLookRecord | None = Field(description="Null where the run does not ask for it.")
    looks: list[LookRecord]

    @property
    def score(self) -> float | None:
        """1 where it is right."""
        return None if self.right is None else float(self.right)


class RecordsFile(AbstractContextManager["RecordsFile"]):
    """The records of a run, open for appending; use it as a context manager."""

    def __init__(self, file: Path, *, sync_every: int = SYNC_EVERY) -> None:
        """Open or create the file and drop a torn last line; BadInput where this fails."""
        self.file = file
        self._sync_every = sync_every
        self._unsynced = 0
        with writable(file):
            self._stream: BinaryIO = file.open("ab")
            _drop_torn_line(file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; BadInput where the disk refuses it."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        with writable(self.file):
            # A query may hold half a surrogate pair, which UTF-8 cannot.
            self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._stream.flush()
            self._unsynced += 1
            if self._unsynced >= self._sync_every:
                self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._unsynced = 0

    def __exit__(self, *_: object) -> None:
        # On a full disk, closing fails too: it tries to write what is left in the buffer.
        with writable(self.file), self._stream:
            self._sync()


def read(file: Path, model: type[Any] = Record) -> Iterator[Any]:
    """The records of a run by their model, see `read_records`; BadInput where one is broken."""
    for entry in read_records(file):
        where = f"{file}: the record of {entry['id']!r} is not complete"
        yield validate(model.model_validate, entry, where)


def read_records(file: Path) -> Iterator[dict[str, Any]]:
    """The records as they are in the file, of each sample the first.

    BadInput, with its number, where a line is no record.
    """
    seen: set[str] = set()
    for record, _ in _read(file):
        if record["id"] not in seen:
            seen.add(record["id"])
            yield record


def read_spans(file: Path) -> Iterator[tuple[dict[str, Any], Span]]:
    """Every record with the place of its line; BadInput where a line is no record."""
    start = 0
    for record, line in _read(file):
        yield record, (start, len(line))
        start += len(line)


def keep_records(file: Path, ids: Sequence[str]) -> bool:
    """Put the records into the order of these ids, and drop those of other ids and second ones.

    The file is replaced whole or not at all, and left alone where it is in order already; memory
    holds where the lines begin, not the lines. Returns whether the file has changed; BadInput where
    a line is not a record, or the disk refuses the new file.
    """
    spans: dict[str, Span] = {}
    end = 0
    for record, span in read_spans(file):
        spans.setdefault(record["id"], span)
        end = sum(span)
    wanted = [spans[sample_id] for sample_id in ids if sample_id in spans]
    if wanted == list(spans.values()) and end == sum(length for _, length in wanted):
        return False
    with file.open("rb") as stream:

        def lines() -> Iterator[bytes]:
            for begin, length in wanted:
                stream.seek(begin)
                yield stream.read(length)

        atomic_write(file, lines(), sync=True)
    return True


def drop_failed(file: Path) -> None:
    """Remove the records of failed samples or items, so that these are pending again."""
    if file.is_file():
        _drop_torn_line(file)
        found = read_records(file)
        keep_records(file, [r["id"] for r in found if not (r.get("failure") or r.get("error"))])


def _drop_torn_line(file: Path) -> None:
    """Cut off a last line without its end, or, after a power cut, one that is not JSON."""
    with file.open("r+b") as stream:
        start, end, line = 0, 0, b""
        for line in stream:
            start, end = end, end + len(line)
        if end and not (line.endswith(b"\n") and _parse(line) is not None):
            stream.truncate(start)


def _read(file: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            record = _parse(line)
            if record is None:
                raise BadInput(f"{file}: line {number} is not a record")
            yield record, line


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None
