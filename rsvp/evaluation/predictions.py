"""Anyone's predictions: one JSON object a line, checked as they are read, never all in memory.

    {"id": sample id, "masks": [RLE, …]}      an empty list says that there is no target
    "scores": [0 to 1, …]                     one a mask, where the metric ranks
    "text": "…"                               the reply, where the metric reads it

Other fields are not read: a run's `records.jsonl` is such a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsvp.datasets import numbered_lines
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import is_number, spans
from rsvp.evaluation.metrics.spans import Spans
from rsvp.masks import rle_runs
from rsvp.platform.files import parse_json

_LOWEST_SCORE = -1e300  # of a record's null: a score that was not finite ranks last


@dataclass(frozen=True, slots=True)
class Prediction:
    id: str
    masks: tuple[Any, ...] = field(default=(), repr=False)  # COCO RLE, not checked yet
    scores: tuple[float, ...] | None = None  # one a mask; None where the line has none
    text: str = field(default="", repr=False)
    failed: bool = False  # the line says itself that there was no answer
    where: str = ""  # file, line and id, as errors begin

    def spans(self, size: tuple[int, int]) -> Spans:
        """The union of the masks; BadInput where one is broken or not of (H, W) `size`."""
        runs = (rle_runs(mask, size, self.where) for mask in self.masks)
        return spans.union([spans.from_runs(one) for one in runs])


class PredictionFile(AbstractContextManager["PredictionFile"]):
    """The predictions of a file, by the samples' ids; only the lines' offsets are in memory.

    Attributes:
        missing: ids without a prediction, in the benchmark's order.
        failed: how many lines say themselves that there was no answer.
    """

    def __init__(self, file: Path, ids: Sequence[str]) -> None:
        """Read the file once and check its lines, but for the masks, for the samples of `ids`.

        Raises:
            BadInput: the file cannot be read, or a line is not a prediction, is of an unknown
                sample, or is the second one of its sample. One line with file, line and id.
        """
        self.file = file
        self.failed = 0
        self._lines: dict[str, tuple[int, int]] = {}  # id -> (line number from 1, offset in bytes)
        known = frozenset(ids)
        try:
            self._stream = file.open("rb")
            for number, offset, line in numbered_lines(self._stream):
                one = self._parse(line, number)
                if one.id not in known:
                    raise BadInput(f"{one.where}: the benchmark has no sample of this id")
                if one.id in self._lines:
                    first = self._lines[one.id][0]
                    raise BadInput(f"{one.where}: line {first} is of the same sample")
                self._lines[one.id] = number, offset
                self.failed += one.failed
        except OSError as error:
            raise BadInput(f"cannot read {file}: {error.strerror}") from error
        self.missing = tuple(one for one in ids if one not in self._lines)

    def __getitem__(self, sample_id: str) -> Prediction:
        """The prediction for a sample; an empty one where it is missing."""
        if sample_id not in self._lines:
            return Prediction(sample_id)
        number, offset = self._lines[sample_id]
        self._stream.seek(offset)
        return self._parse(self._stream.readline(), number)

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _parse(self, line: bytes, number: int) -> Prediction:
        where = f"{self.file}: line {number}"
        entry = parse_json(line, where)
        sample_id = _id(entry.get("id")) if isinstance(entry, dict) else None
        if sample_id is None:
            raise BadInput(f'{where}: a prediction is {{"id": …, "masks": […]}}, the id a text')
        where = f"{where}, id {sample_id!r}"
        masks, text = entry.get("masks"), entry.get("text")
        if masks is None and text is None:
            raise BadInput(f"{where}: neither masks nor text")
        if not isinstance(masks or [], list):
            raise BadInput(f"{where}: masks is a list of RLE, found {type(masks).__name__}")
        if not isinstance(text or "", str):
            raise BadInput(f"{where}: text is a text, found {type(text).__name__}")
        masks = masks or []
        return Prediction(
            id=sample_id,
            masks=tuple(masks),
            scores=_scores(entry.get("scores"), len(masks), where),
            text=text or "",
            failed=entry.get("failure") is not None,
            where=where,
        )


def _id(found: object) -> str | None:
    """An id as text; sentence ids are often written as numbers."""
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else None


def _scores(found: object, count: int, where: str) -> tuple[float, ...] | None:
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != count:
        number = len(found) if isinstance(found, list) else type(found).__name__
        raise BadInput(f"{where}: {count} masks need as many scores, found {number}")
    values = [_LOWEST_SCORE if v is None else v for v in found]
    for value in values:
        if not is_number(value):
            raise BadInput(f"{where}: a score is a number, found {value!r}")
    return tuple(float(v) for v in values)
