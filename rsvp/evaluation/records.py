"""One line of `records.jsonl`: a sample with its answer and its score.

`records.jsonl` is also a predictions file: `rsvp score` reads `id`, `masks`, `scores` and `text`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rsvp.errors import BadInput
from rsvp.evaluation.records_file import read_records

Numbers = list[float | None]  # JSON has no NaN: null stands for it


class _RecordModel(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Failure(_RecordModel):
    """Why there is no answer."""

    error: str = Field(description="The class of the error.")
    message: str


class TokenUsage(_RecordModel):
    """What the MLLM read and wrote."""

    prompt_tokens: int
    completion_tokens: int
    calls: int


class OracleRecord(_RecordModel):
    """The segmenter on the true boxes."""

    iou: float | None = Field(description="As of the record, but of the masks of the true boxes.")
    intersection: int
    union: int
    objects: list[float] = Field(description="The IoU of each object, from its own box.")
    failure: Failure | None


class Record(_RecordModel):
    """A sample, answered and scored; a failed one counts as an empty prediction."""

    schema_version: Literal[1] = 1
    id: str
    kind: str
    tags: list[str]
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
    steps: list[str] = Field(description="The reasoning steps.")
    reason: str
    raw: str = Field(description="The MLLM's reply, word for word.")
    warnings: list[str]
    usage: TokenUsage | None
    prompt_sha256: str | None
    failure: Failure | None
    seconds: dict[str, float] = Field(description="Of each stage.")

    def to_dict(self) -> dict[str, Any]:
        """As the line has it; `text` only where there is one."""
        return self.model_dump(exclude={"text"} if self.text is None else None)

    @classmethod
    def parse(cls, entry: dict[str, Any], file: Path) -> Record:
        """A record from its line; BadInput, with file and id, where a field is missing or wrong."""
        try:
            return cls.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise BadInput(
                f"{file}: the record of {entry['id']!r} is not complete ({field}: {first['msg']})"
            ) from error


def read(file: Path) -> Iterator[Record]:
    """The records of a run, one after the other, each sample once.

    Raises:
        BadInput: a line is no record, or a second one of its sample; one line with file and id.
    """
    seen: set[str] = set()
    for entry in read_records(file):
        if entry["id"] in seen:
            raise BadInput(f"{file}: two records of sample {entry['id']!r}")
        seen.add(entry["id"])
        yield Record.parse(entry, file)
