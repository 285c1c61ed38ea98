"""`result.json`: the whole result, with masks as COCO run-length encodings.

Coordinates are pixels of the upright image, times are seconds. The models below take the values of
`rsvp.types` or the JSON; their JSON schema is `docs/schemas/result.schema.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from rsvp.errors import BadInput
from rsvp.masks import encode_rle
from rsvp.parsing.mentions import numbered
from rsvp.platform.files import json_bytes, parse_json, read_bytes
from rsvp.trace import PathStep, TracedQuestion
from rsvp.types import AnsweredQuestion, Box, ModelNames, Segmentation, Usage
from rsvp.writers.common import image_stem, look_file, mask_file

RESULT = "result.json"


def _xyxy(box: Any) -> Any:
    return [round(value, 2) for value in box.xyxy] if isinstance(box, Box) else box


def _numbered(step: Any) -> Any:
    if not isinstance(step, PathStep):
        return step
    return {"text": numbered(step.text, step.objects), "objects": step.objects}


def _rle(mask: Any) -> Any:
    return encode_rle(mask) if isinstance(mask, np.ndarray) else mask


Rounded = Annotated[float, AfterValidator(lambda value: round(value, 4))]
Xyxy = Annotated[list[float], BeforeValidator(_xyxy), Field(min_length=4, max_length=4)]


class _DocumentModel(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, from_attributes=True, use_attribute_docstrings=True
    )


class ImageEntry(_DocumentModel):
    """The image that was segmented."""

    path: str | None
    width: int
    height: int
    sha256: str
    """Hex digest of the file, or of the pixels where there was no file."""


class StepEntry(_DocumentModel):
    """One step of the reasoning."""

    text: str
    boxes: list[Xyxy]
    """x0, y0, x1, y1 of the objects that the step names."""


class MaskEntry(_DocumentModel):
    """A COCO run-length encoding."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    """Height and width."""
    counts: str


class _MaybePresent(_DocumentModel):
    # An entry whose presence is left out where it is not known
    @model_serializer(mode="wrap")
    def _serialized(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in dump(self).items() if k != "presence" or v is not None}


class TargetEntry(_MaybePresent):
    """One object that answers the query."""

    label: str
    box: Xyxy
    """x0, y0, x1, y1."""
    raw: list[float]
    """The numbers of the proposal as the MLLM wrote them, in its own coordinate frame."""
    score: Rounded
    """The IoU that the segmenter predicts for its mask, 0 to 1."""
    presence: Rounded | None = None
    """The probability that the object is in the box; missing if the segmenter reads no labels."""
    mask: Annotated[MaskEntry, BeforeValidator(_rle)]


class VerdictEntry(_DocumentModel):
    """What a round of verification decided about one target."""

    round: int
    """From 1."""
    target: int
    """From 0, as stage 1 named them; those that a round adds go on counting, rejected ones keep
    their number."""
    verdict: Literal["accept", "correct", "reject", "add"]
    reason: str
    label: str


class RoundEntry(_DocumentModel):
    """What a round of verification cost."""

    round: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: Rounded
    """Spent waiting for replies."""
    usd: float | None
    """Null where no prices were given."""


class ResultDocument(_DocumentModel):
    """The answer to one query on one image."""

    schema_version: Literal[1]
    image: ImageEntry
    query: str
    no_target: bool
    understood: bool
    """False where the MLLM says that it cannot read images of this kind."""
    reason: str
    reply: str
    """The text of the MLLM's reply, unchanged; empty where no MLLM was called."""
    steps: list[StepEntry]
    targets: list[TargetEntry]
    agreement: Rounded | None
    """The share of several sampled replies that give these targets; null where one was asked."""
    rounds: int
    """Of verification."""
    verdicts: list[VerdictEntry]
    round_costs: list[RoundEntry]
    usage: Usage
    timings: dict[str, Rounded]
    models: ModelNames
    warnings: list[str]


class LookEntry(_DocumentModel):
    """A closer look that the MLLM asked for."""

    query: str
    no_target: bool
    targets: list[TargetEntry]
    box: Xyxy | None
    """x0, y0, x1, y1 of the part of the image that was shown; null where nothing was."""
    size: Annotated[list[int], Field(min_length=2, max_length=2)] | None
    """Height and width of the picture that was shown."""


class AnswerDocument(_DocumentModel):
    """The answer to one question about one image."""

    schema_version: Literal[1]
    image: ImageEntry
    question: str
    choices: list[str]
    answer: str
    choice: int | None
    """Index of the chosen one; null without choices, or where the answer is none of them."""
    understood: bool
    """False where the MLLM says that it cannot read images of this kind."""
    reason: str
    reply: str
    """The text of the MLLM's last reply, unchanged."""
    zoom: str
    background: str | None
    """What takes the place of what is outside the masks, with zoom mask."""
    looks: list[LookEntry]
    steps: list[StepEntry]
    """Why each look was asked for, and the boxes that it found."""
    rounds: int
    """Of verification, of all looks together."""
    verdicts: list[VerdictEntry]
    round_costs: list[RoundEntry]
    usage: Usage
    timings: dict[str, Rounded]
    models: ModelNames
    warnings: list[str]


class PathObjectEntry(_MaybePresent):
    """An object that a step names; box, score and mask are null where it is not grounded."""

    label: str
    number: int | None
    """The same wherever the object returns; the texts and the overlay show it too."""
    box: Xyxy | None
    """x0, y0, x1, y1."""
    score: Rounded | None
    """The IoU that the segmenter predicts for its mask, 0 to 1."""
    presence: Rounded | None = None
    """The probability that the object is in the box; missing if the segmenter reads no labels."""
    mask: Annotated[MaskEntry, BeforeValidator(_rle)] | None


class PathStepEntry(_DocumentModel):
    """One step of a reasoning path."""

    text: str
    """As the MLLM wrote it, with [number] behind the label of each object, [?] without a mask."""
    objects: list[PathObjectEntry]


class TraceDocument(_DocumentModel):
    """A question answered by a reasoning path."""

    schema_version: Literal[1]
    image: ImageEntry
    question: str
    answer: str
    no_target: bool
    """Whether the answer is that there is no such object."""
    understood: bool
    """False where the MLLM says that it cannot read images of this kind."""
    reason: str
    reply: str
    """The text of the MLLM's reply, unchanged."""
    path: list[Annotated[PathStepEntry, BeforeValidator(_numbered)]]
    answer_objects: list[PathObjectEntry]
    not_grounded: int
    """How many objects, of different labels, have no mask."""
    rounds: int
    """Of verification, which is about the answer's objects."""
    verdicts: list[VerdictEntry]
    round_costs: list[RoundEntry]
    usage: Usage
    timings: dict[str, Rounded]
    models: ModelNames
    warnings: list[str]


Document = ResultDocument | AnswerDocument | TraceDocument


def document(result: Segmentation) -> Document:
    """The model of `result.json` for a result."""
    reasoning = result.reasoning
    model: type[Document] = ResultDocument
    if isinstance(result, AnsweredQuestion):
        model = AnswerDocument
    elif isinstance(result, TracedQuestion):
        model = TraceDocument
    stage_1 = {"schema_version": 1, "reply": reasoning.raw, "steps": reasoning.steps}
    return model.model_validate(
        {name: stage_1.get(name, getattr(result, name, None)) for name in model.model_fields}
    )


def to_dict(result: Segmentation) -> dict[str, Any]:
    """The result as `result.json` holds it, as plain values."""
    return document(result).model_dump()


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    yield RESULT, json_bytes(to_dict(result))


def _listed(parts: list[Any], key: str) -> list[Any]:
    """What the parts of a document, if they are objects, have under a key."""
    return [one for part in parts if isinstance(part, dict) for one in part.get(key) or []]


class EarlierResult(BaseModel):
    """What the `result.json` of a folder says about the other files there."""

    schema_version: Literal[1]
    image: ImageEntry
    query: str
    targets: list[Any]
    looks: list[dict[str, Any]] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _targets_elsewhere(cls, values: Any) -> Any:
        """An answer has its targets in its looks, a trace in its path, by number."""
        if not isinstance(values, dict):
            return values
        path, looks = values.get("path"), values.get("looks")
        if isinstance(path, list):
            named = _listed([*path, {"objects": values.get("answer_objects")}], "objects")
            numbers = {o.get("number") for o in named if isinstance(o, dict)} - {None}
            return {**values, "query": values.get("question"), "targets": list(numbers)}
        if isinstance(looks, list):
            found = _listed(looks, "targets")
            return {**values, "query": values.get("question"), "targets": found}
        return values

    @classmethod
    def read(cls, folder: Path) -> EarlierResult | None:
        """None where there is no `result.json`, or it is something else."""
        file = folder / RESULT
        try:
            return cls.model_validate(parse_json(read_bytes(file), str(file)))
        except (BadInput, ValidationError):
            return None

    @property
    def masks(self) -> list[str]:
        """The masks of its targets."""
        return [mask_file(number) for number in range(len(self.targets))]

    @property
    def pictures(self) -> list[str]:
        """The pictures of its looks."""
        shown = [look for look in self.looks if look.get("size")]
        return [look_file(number) for number in range(len(shown))]

    def is_of(self, result: Segmentation) -> bool:
        """Whether it answers the same query on the same image."""
        return (self.image.sha256, self.query) == (result.image.sha256, result.query)

    def accounts_for(self, name: str, stem: str | None) -> bool:
        """Whether a file belongs to this result; `stem` is that of the image it may be named for.

        Of files that are named for another image, it knows nothing.
        """
        if name.startswith(("masks/", "looks/")):
            return name in (*self.masks, *self.pictures)
        return Path(name).stem != stem or stem == image_stem(self.image.path)
