"""What all region strategies share: the view, the reply's JSON schema, and reading the reply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame, as_written, to_box, to_point
from rsvp.images import shrink
from rsvp.parsing import Expect, ParsedReply, RawStep, RawTarget, parse_path, parse_reply
from rsvp.registry import MAX_SIDE
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import View
from rsvp.strategies.paths import ObjectList, PlacedObject, unmentioned
from rsvp.types import Box, Image, Point, Proposal, Reasoning, RgbArray, Step

Schema = dict[str, Any]
RegionSchemas = tuple[dict[str, Schema], dict[str, Schema]]  # of a step, and of a target

STRING: Schema = {"type": "string"}
FRACTIONS = "the MLLM was asked for coordinates {}, and wrote fractions of 1: read as such"
MAX_TARGETS = 500  # of one reply; each costs a pass of the mask decoder
TOO_MANY = "the MLLM named {} targets; the first {} are segmented"
INTEGERS: Schema = {"type": "array", "items": {"type": "integer"}}


def array(items: Schema) -> Schema:
    """The JSON schema of a list."""
    return {"type": "array", "items": items}


def number_type(*, fractions: bool) -> Schema:
    """The JSON schema of a coordinate."""
    return {"type": "number" if fractions else "integer"}


def record(properties: Mapping[str, Schema]) -> Schema:
    """An object as strict servers accept it: every property required, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class CoordinateMap(Generic[V]):
    """Turns a model's numbers into pixels of the image.

    Attributes:
        image_size: (height, width) in pixels.
    """

    frame: Frame
    view: V
    image_size: tuple[int, int]

    def box(self, numbers: tuple[float, ...]) -> Box:
        """Raises BadInput where the box has no area in the image."""
        return to_box(numbers, self.frame, view_size=self.view.size, image_size=self.image_size)

    def point(self, numbers: tuple[float, ...]) -> Point:
        """Raises BadInput where the point lies outside the image."""
        return to_point(numbers, self.frame, view_size=self.view.size, image_size=self.image_size)


class RegionStrategy(ABC, Generic[V]):
    """Base of the strategies: a subclass says what it draws, and reads one step and one target.

    Args:
        max_side: the view's longer side is shrunk to this many pixels, instead of what is known of
            the model.
    """

    name: str
    expect: ClassVar[Expect]

    def __init__(self, *, max_side: int | None = None) -> None:
        if max_side is not None and max_side < 1:
            raise BadInput(f"max_side is at least 1 pixel, found {max_side}")
        self.max_side = max_side

    @abstractmethod
    def region_schemas(self, frame: Frame | None) -> RegionSchemas:
        """How a step and how a target names its region, beside its text or label."""

    def step_boxes(self, raw: RawStep, place: CoordinateMap[V]) -> Iterable[Box]:
        """The boxes that a step names; they only illustrate, so unusable ones are left out."""
        return ()

    @abstractmethod
    def proposal(self, raw: RawTarget, place: CoordinateMap[V]) -> Proposal:
        """One target; BadInput where its region cannot be used."""

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:
        """See `Strategy.schema`."""
        step, target = self.region_schemas(frame)
        steps = {"steps": array(record({"text": STRING, **step}))} if cot else {}
        targets = array(record({"label": STRING, **target}))
        return record({**steps, "targets": targets, "reason": STRING})

    def path_schema(self, frame: Frame | None = None) -> Mapping[str, Any]:
        """See `Strategy.path_schema`."""
        identity = {} if self.expect == "marks" else {"id": {"type": "integer"}}
        named = array(record({**identity, "label": STRING, **self.region_schemas(frame)[1]}))
        steps = array(record({"text": STRING, "objects": named}))
        return record({"path": steps, "answer": STRING, "answer_objects": named})

    def view(
        self,
        image: Image,
        query: str = "",
        *,
        max_side: int = MAX_SIDE,
        cache: EmbeddingCache | None = None,
    ) -> View:
        """See `Strategy.view`."""
        return self.draw(shrink(image.rgb, self.max_side or max_side), image, query, cache)

    def draw(self, rgb: RgbArray, image: Image, query: str, cache: EmbeddingCache | None) -> View:
        """The view of an image that was shrunk to `rgb`: by default without anything drawn."""
        return View(rgb, size_variables(rgb))

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """Read a reply; see `Strategy.read`.

        Raises:
            UnparsableReply: no answer in the text, or a target whose region cannot be used.
        """
        reply = parse_reply(text, expect=self.expect, y_first=frame.y_first)
        named = tuple(self.targets(reply))
        targets, own_view = named[:MAX_TARGETS], self.checked_view(view)
        try:
            place, warnings = _coordinate_map(targets, own_view, image, frame)
            proposals = tuple(self.proposal(raw, place) for raw in targets)
        except BadInput as error:
            raise UnparsableReply(str(error), text) from error
        steps = tuple(Step(r.text, tuple(self.step_boxes(r, place))) for r in reply.steps)
        if len(named) > MAX_TARGETS:
            warnings += (TOO_MANY.format(len(named), MAX_TARGETS),)
        return Reasoning(
            steps,
            proposals,
            reply.reason,
            text,
            understood=reply.understood,
            warnings=(*warnings, *reply.warnings),
        )

    def read_path(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """Read a reasoning path; see `Strategy.read_path`.

        Raises:
            UnparsableReply: no path in the text, or all places in it cannot be used.
        """
        reply = parse_path(text, expect=self.expect, y_first=frame.y_first)
        parts = [(f"step {n}", s.text, s.objects) for n, s in enumerate(reply.steps, start=1)]
        parts.append(("the answer", reply.answer, reply.targets))
        placed = [raw for *_, named in parts for raw in named if raw.has_region]
        own_view, errors = self.checked_view(view), list[BadInput]()
        found = ObjectList(max(image.height, image.width))

        def usable(raw: RawTarget) -> Proposal | None:
            try:
                return self.proposal(raw, place) if raw.has_region else None
            except BadInput as error:
                errors.append(error)
                return None

        try:
            place, warnings = _coordinate_map(placed, own_view, image, frame)
        except BadInput as error:
            raise UnparsableReply(str(error), text) from error
        mentions = [
            found.add(where, said, [PlacedObject(o.label, _identity(o), usable(o)) for o in named])
            for where, said, named in parts
        ]
        if placed and not found.proposals:
            raise UnparsableReply(str(errors[0]), text)
        *steps, answer = mentions
        pairs = zip(reply.steps, steps, strict=True)
        path = Reasoning(
            tuple(Step(step.text, objects=named) for step, named in pairs),
            tuple(found.proposals),
            reply.reason,
            text,
            understood=reply.understood,
            warnings=(*warnings, *found.warnings, *unmentioned(steps, answer)),
            answer=reply.answer,
            answer_objects=answer,
        )
        if len(path.proposals) <= MAX_TARGETS:
            return path
        too_many = TOO_MANY.format(len(path.proposals), MAX_TARGETS)
        return replace(path.keep(range(MAX_TARGETS)), warnings=(*path.warnings, too_many))

    def checked_view(self, view: View) -> V:
        """The view, which must be one of this strategy's own."""
        return view  # type: ignore[return-value]

    def targets(self, reply: ParsedReply) -> Iterator[RawTarget]:
        """The targets of a reply that count."""
        yield from reply.targets


def _coordinate_map(
    targets: Iterable[RawTarget], view: V, image: Image, frame: Frame
) -> tuple[CoordinateMap[V], tuple[str, ...]]:
    """How the numbers of these targets are read, and a warning where not as they were asked for.

    BadInput where some of them are in another unit than the others.
    """
    groups = [g for raw in targets for g in (raw.box, *raw.points, *raw.negative) if g]
    written = as_written(groups, frame)
    place = CoordinateMap(written, view, (image.height, image.width))
    return place, (FRACTIONS.format(frame.kind),) if written != frame else ()


def _identity(raw: RawTarget) -> int | None:
    """The number by which the model calls an object: its one mark, or an id of its own."""
    return raw.marks[0] if len(raw.marks) == 1 else raw.id


def size_variables(rgb: RgbArray) -> dict[str, str]:
    """The prompt's variables that every view has."""
    return {"width": str(rgb.shape[1]), "height": str(rgb.shape[0])}
