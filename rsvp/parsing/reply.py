"""The answer in a reply: its steps, targets and reason."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rsvp.errors import UnparsableReply
from rsvp.parsing import search, values
from rsvp.parsing.lenient_json import Array, Node, Object, OutOfBudgetError
from rsvp.parsing.search import AnswerCandidate, Expect
from rsvp.parsing.values import Numbers, Pair, Unreadable, preview

__all__ = ["Expect", "ParsedReply", "RawStep", "RawTarget", "parse_reply"]

_STEP_TEXT = ("text", "step", "thought", "description", "content")
_REASON = ("reason", "explanation", "rationale", "reasoning", "why")
_BOX_MARKUP = re.compile(
    r"(?:(?:<ref>|<\|object_ref_start\|>)([^<]{0,500})(?:</ref>|<\|object_ref_end\|>)\s{0,20})?"
    r"(?:<box>|<\|box_start\|>)([^<]{0,5000})(?:</box>|<\|box_end\|>)"
)
_POINT_MARKUP = re.compile(r"<points?\s([^<>]{1,5000})>([^<]{0,500})</points?>")
_POINT_ATTRIBUTE = re.compile(r"\b([xy])([0-9]{0,4})\s{0,5}=\s{0,5}[\"']([^\"']{0,40})[\"']")


@dataclass(frozen=True, slots=True)
class RawStep:
    """One reasoning step and what it names: boxes in the model's frame, bands and marks from 1."""

    text: str
    boxes: tuple[Numbers, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RawTarget:
    """One target as the model wrote it; only the expected fields are filled.

    Attributes:
        box: four finite numbers in the model's own order and frame, corners maybe swapped; with
            points it may be missing.
        points: pairs of finite numbers in the model's own order and frame.
        negative: the same, on what is not the target.
        rows, columns: 1-based band numbers, any range.
        marks: the numbers of the marks.
    """

    label: str
    box: Numbers | None = None
    points: tuple[Pair, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()
    negative: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """The content of a reply. No targets means that the model said: not in this image.

    Attributes:
        understood: False where the model says (`"understood": false`) that it cannot read images
            of this kind.
    """

    steps: tuple[RawStep, ...]
    targets: tuple[RawTarget, ...]
    reason: str
    understood: bool = True


def parse_reply(text: str, *, expect: Expect, y_first: bool = False) -> ParsedReply:
    """Read a reply.

    Args:
        text: the reply, exactly as the model wrote it.
        expect: what each target must have: a box, band numbers, points, or mark numbers.
        y_first: the model's frame has y before x. Coordinates with names (`{"xmin": …}`,
            `<point x= y=>`) are returned in this order; all others stay as written.

    Raises:
        UnparsableReply: it contains no answer, or none that is certain.
    """
    try:
        return _parsed(_unquoted(text), _EntryReader(expect, y_first))
    except Unreadable as error:
        raise UnparsableReply(str(error), text) from None
    except OutOfBudgetError:
        raise UnparsableReply("the reply is too complicated to read", text) from None


def _parsed(text: str, reader: _EntryReader) -> ParsedReply:
    found = search.find(text, reader.expect)
    answer = found.answer
    if answer is None or answer.kind == "bare":
        marked = tuple(reader.markup(found.visible))
        if marked:
            return ParsedReply((), marked, "")
    if answer is None:
        raise Unreadable(_nothing(text, found.broken))
    understood = _first(answer, ("understood",), lambda value: value is False) is not False
    targets = tuple(reader.targets(answer))
    return ParsedReply(_steps(answer, reader), targets, _reason(answer), understood)


def _nothing(text: str, broken: bool) -> str:
    """Why there is no answer, in words that help the model to correct it."""
    if not text.strip():
        return "the reply is empty"
    return "the reply is not valid JSON" if broken else "the reply has no JSON answer"


def _unquoted(text: str) -> str:
    """The reply; where it is a JSON string as a whole, the content of that string."""
    bare = text.strip()
    if bare.startswith('"') and bare.endswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(bare))
    return text


class _EntryReader:
    """Reads targets of the expected kind."""

    def __init__(self, expect: Expect, y_first: bool) -> None:
        self.expect = expect
        self.y_first = y_first

    def targets(self, answer: AnswerCandidate) -> list[RawTarget]:
        """All targets of an answer.

        Raises:
            Unreadable: one of them cannot be read, or none was complete.
        """
        node = answer.targets
        if answer.absent:
            return []
        if node is None:
            if not _reason(answer):
                raise Unreadable('"targets" is null without a reason')
            return []
        if isinstance(node, Array):
            return self._list(node)
        if isinstance(node, Object):
            if not node.complete:
                raise Unreadable("the reply was cut off inside its first target")
            return self._entry(node)
        return self._values("", node)

    def _list(self, node: Array) -> list[RawTarget]:
        if node.complete and not node.items:
            return []
        items = [item for item in node.items if not _is_cut(item)]
        if not items:
            raise Unreadable("the reply was cut off before its first complete target")
        if self.expect in ("box", "points") and values.is_flat(node):
            if not node.complete:
                raise Unreadable("the reply was cut off inside its first target")
            return self._values("", node)
        if self.expect == "box" and values.is_corner_pair(node):
            return self._values("", node)
        targets: list[RawTarget] = []
        for place, item in enumerate(items, start=1):
            try:
                targets += self._entry(item)
            except Unreadable as error:
                raise Unreadable(f"target {place}: {error}") from None
        return targets

    def _entry(self, node: Node) -> list[RawTarget]:
        """The target of one entry; several when it lists several boxes."""
        if not isinstance(node, Object):
            return self._values("", node)
        label = _label(node)
        if self.expect == "bands":
            rows = values.bands(_field(node, search.ROWS, '"rows"'))
            columns = values.bands(_field(node, search.COLUMNS, '"columns"'))
            return [RawTarget(label, rows=rows, columns=columns)]
        if self.expect == "marks":
            return self._values(label, _field(node, search.MARKS, '"marks"'))
        names = search.BOX if self.expect == "box" else search.POINTS
        named_here = search.is_entry(node, self.expect) and node.key(names) is None
        value = node if named_here else _field(node, names, f'"{names[0]}"')
        found = self._values(label, value)
        return found if self.expect == "box" else [self._with_more(node, found[0])]

    def _with_more(self, node: Object, target: RawTarget) -> RawTarget:
        """The points of a target with its negative points and its box, if it has them."""
        negative, box = _optional(node, search.NOT_POINTS), _optional(node, search.BOX)
        boxes = values.boxes(box, y_first=self.y_first) if box else [None]
        if len(boxes) > 1:
            raise Unreadable(f"{preview(box)} is more than one box for the points of one target")
        points = tuple(values.points(negative, y_first=self.y_first)) if negative else ()
        return replace(target, negative=points, box=boxes[0])

    def _values(self, label: str, node: Node) -> list[RawTarget]:
        """The targets in a value without a key."""
        if self.expect == "box":
            boxes = values.boxes(node, y_first=self.y_first)
            return [RawTarget(label, box=box) for box in boxes]
        if self.expect == "points":
            return [RawTarget(label, points=tuple(values.points(node, y_first=self.y_first)))]
        if self.expect == "marks":
            return [RawTarget(label, marks=values.bands(node))]
        raise Unreadable(f'{preview(node)} has no "rows" and "columns"')

    def step(self, node: Node) -> RawStep | None:
        """One step; regions that cannot be read are left out, as no target depends on them."""
        if isinstance(node, str):
            return RawStep(node)
        if not isinstance(node, Object) or not node.complete:
            return None
        text = node.first(_STEP_TEXT, "")
        return RawStep(
            text if isinstance(text, str) else "",
            boxes=tuple(self._step_boxes(node)),
            rows=_step_bands(node, search.ROWS),
            columns=_step_bands(node, search.COLUMNS),
            marks=_step_bands(node, ("marks", "mark")),
        )

    def _step_boxes(self, node: Object) -> Iterator[Numbers]:
        for name in ("boxes", "bboxes", "box", "bbox", "bbox_2d", "box_2d"):
            value = node.entries.get(name)
            whole = not isinstance(value, Array) or values.is_flat(value)
            for item in [value] if whole or not isinstance(value, Array) else value.items:
                with contextlib.suppress(Unreadable):
                    yield from values.boxes(item, y_first=self.y_first)

    def markup(self, text: str) -> Iterator[RawTarget]:
        """Targets in a model's own tags: `<box>…</box>`, `<|box_start|>…`, `<point x= y=>`."""
        if self.expect == "box":
            for match in _BOX_MARKUP.finditer(text):
                yield from self._values((match[1] or "").strip(), match[2])
        elif self.expect == "points":
            for match in _POINT_MARKUP.finditer(text):
                for point in _attributes(match[1]):
                    ordered = (point[1], point[0]) if self.y_first else point
                    yield RawTarget(match[2].strip(), points=(ordered,))


def _attributes(text: str) -> list[Pair]:
    """`x1="10" y1="20" x2=…` -> pairs, x first."""
    found: dict[str, dict[str, float]] = {}
    for axis, index, value in _POINT_ATTRIBUTE.findall(text):
        found.setdefault(index, {})[axis] = values.number(value)
    if not found or any(len(pair) != 2 for pair in found.values()):
        raise Unreadable("a <point> tag has no x and y")
    return [(pair["x"], pair["y"]) for pair in found.values()]


def _is_cut(node: Node) -> bool:
    return isinstance(node, Array | Object) and not node.complete


def _field(node: Object, names: tuple[str, ...], what: str) -> Node:
    name = node.key(names)
    if name is None:
        raise Unreadable(f"{preview(node)} has no {what}")
    return node.entries[name]


def _optional(node: Object, names: tuple[str, ...]) -> Node:
    """The value of an optional field; None where it is missing or an empty list."""
    value = node.first(names)
    return None if isinstance(value, Array) and not value.items else value


def _label(node: Object) -> str:
    value = node.first(search.LABEL, "")
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else ""


def _step_bands(node: Object, names: tuple[str, ...]) -> tuple[int, ...]:
    with contextlib.suppress(Unreadable):
        return values.bands(node.first(names))
    return ()


def _steps(answer: AnswerCandidate, reader: _EntryReader) -> tuple[RawStep, ...]:
    node = _first(answer, search.STEPS, lambda value: isinstance(value, Array | Object))
    items: list[Node] = []
    if isinstance(node, Array):
        items = node.items
    elif isinstance(node, Object):
        items = list(node.entries.values())
    steps = (reader.step(item) for item in items)
    return tuple(step for step in steps if step is not None)


def _reason(answer: AnswerCandidate) -> str:
    found = _first(answer, _REASON, lambda value: isinstance(value, str))
    return found if isinstance(found, str) else ""


def _first(answer: AnswerCandidate, names: tuple[str, ...], fits: Callable[[Node], bool]) -> Node:
    """The first fitting value under one of `names` in the objects around the targets."""
    for context in answer.context:
        for name in names:
            if name in context.entries and fits(context.entries[name]):
                return context.entries[name]
    return None
