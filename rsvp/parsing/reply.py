"""The answer in a reply: its steps, targets and reason."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from rsvp.errors import UnparsableReply
from rsvp.parsing import keys, search, selection, values
from rsvp.parsing.choice import AnswerCandidate
from rsvp.parsing.keys import Expect
from rsvp.parsing.lenient_json import Array, Node, Object, OutOfBudgetError
from rsvp.parsing.values import Numbers, Pair, Unreadable, preview

T = TypeVar("T")

__all__ = ["Expect", "ParsedReply", "RawStep", "RawTarget", "parse_reply"]

MAX_TARGETS = 1_000
_MAX_BANDS = 20_000  # of all targets together
_NO_CORNERS = re.compile(r"w\W{0,3}h|width|cent(?:er|re)")
_MAX_REPEATS = 3  # more equal targets are a repetition loop


@dataclass(frozen=True, slots=True)
class RawStep:
    """One reasoning step and what it names: boxes in the model's frame, bands and marks from 1."""

    text: str
    boxes: tuple[Numbers, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()
    objects: tuple[RawTarget, ...] = ()  # of a reasoning path, see `rsvp.parsing.path`


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
        id: of a reasoning path: the number by which the model calls the object.
    """

    label: str
    box: Numbers | None = None
    points: tuple[Pair, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()
    negative: tuple[Pair, ...] = ()
    id: int | None = None

    @property
    def has_region(self) -> bool:
        """Whether it says where it is."""
        return bool(self.box or self.points or self.rows or self.marks)


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """The content of a reply. No targets means that the model said: not in this image.

    Attributes:
        understood: False where the model says (`"understood": false`) that it cannot read images
            of this kind.
        warnings: what was left out, in words for the user.
        answer: of a reasoning path, whose answer's objects are the targets.
    """

    steps: tuple[RawStep, ...]
    targets: tuple[RawTarget, ...]
    reason: str
    understood: bool = True
    warnings: tuple[str, ...] = ()
    answer: str = ""


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
    return read_reply(text, lambda bare: _parsed(bare, EntryReader(expect, y_first)))


def read_reply(text: str, read: Callable[[str], T]) -> T:
    """Read a reply without the quotes around it; what `read` cannot read is `UnparsableReply`."""
    try:
        return read(_unquoted(text))
    except Unreadable as error:
        raise UnparsableReply(str(error), text) from None
    except OutOfBudgetError:
        raise UnparsableReply("the reply is too complicated to read", text) from None


def _parsed(text: str, reader: EntryReader) -> ParsedReply:
    answer = search.find(text, reader.expect)
    understood = _first(answer, ("understood",), lambda value: value is False) is not False
    targets, warnings = _without_repeats(reader.targets(answer))
    return ParsedReply(_steps(answer, reader), targets, _reason(answer), understood, warnings)


def _without_repeats(
    targets: list[RawTarget],
) -> tuple[tuple[RawTarget, ...], tuple[str, ...]]:
    """The targets with those of a repetition loop once, and a warning about it."""
    counts = Counter(targets)
    repeats = max(counts.values(), default=0)
    if repeats <= _MAX_REPEATS:
        return tuple(targets), ()
    kept = [t for t in counts for _ in range(1 if counts[t] > _MAX_REPEATS else counts[t])]
    return tuple(kept), (f"the reply repeats a target {repeats} times; it counts once",)


def _unquoted(text: str) -> str:
    """The reply; where it is a JSON string as a whole, the content of that string."""
    bare = text.strip()
    if bare.startswith('"') and bare.endswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(bare))
    return text


class EntryReader:
    """Reads targets of the expected kind."""

    def __init__(self, expect: Expect, y_first: bool) -> None:
        self.expect = expect
        self.y_first = y_first
        self._bands = 0

    def targets(self, answer: AnswerCandidate) -> list[RawTarget]:
        """All targets of an answer.

        Raises:
            Unreadable: one of them cannot be read, or none was complete.
        """
        node = answer.targets
        if answer.absent:
            return []
        for context in answer.context:
            _check_form(context)
        if node is None:
            if not _reason(answer):
                raise Unreadable('"targets" is null without a reason')
            return []
        if isinstance(node, Array):
            return self._list(node)
        if isinstance(node, Object):
            if not node.complete:
                raise Unreadable("the reply was cut off inside its first target")
            return self.entry(node)
        return self._values("", node)

    def _list(self, node: Array) -> list[RawTarget]:
        if node.complete and not node.items:
            return []
        items = [item for item in node.items if not is_cut(item)]
        if len(items) > MAX_TARGETS and not values.is_flat(node):
            raise Unreadable(f"the reply has more than {MAX_TARGETS} targets")
        if node.complete and not (items := selection.flagged(items)):
            return []
        if not items:
            raise Unreadable("the reply was cut off before its first complete target")
        if self.expect in ("box", "points") and values.is_flat(node):
            if not node.complete:
                raise Unreadable("the reply was cut off inside its first target")
            return self._values("", node)
        if self.expect == "box" and values.corner_pairs(node):
            return self._values("", node)
        targets: list[RawTarget] = []
        for place, item in enumerate(items, start=1):
            try:
                targets += self.entry(item)
            except Unreadable as error:
                raise Unreadable(f"target {place}: {error}") from None
        return targets

    def entry(self, node: Node) -> list[RawTarget]:
        """The target of one entry; several when it lists several boxes."""
        if not isinstance(node, Object):
            return self._values("", node)
        if not keys.has_region(node, self.expect):
            labelled = keys.labelled(node, self.expect)
            if labelled and not node.key(selection.LABEL):
                return [target for item in labelled.items for target in self.entry(item)]
        label = label_of(node)
        _check_form(node)
        if self.expect == "bands":
            rows = values.bands(_field(node, keys.ROWS, '"rows"'))
            columns = values.bands(_field(node, keys.COLUMNS, '"columns"'))
            self._bands += len(rows) + len(columns)
            if self._bands > _MAX_BANDS:
                raise Unreadable("the reply names too many bands")
            return [RawTarget(label, rows=rows, columns=columns)]
        if self.expect == "marks":
            marks = _field(node, keys.MARKS, '"marks"')
            for name, value in node.entries.items():
                chosen = selection.is_choice(name) and name not in keys.REGION
                numbers = isinstance(value, float) or values.is_number_list(value)
                if chosen and numbers and values.bands(value) != values.bands(marks):
                    raise Unreadable(f'"{name[:20]}" is {preview(value)} and "marks" other numbers')
            return self._values(label, marks)
        names = keys.BOX if self.expect == "box" else keys.POINTS
        named_here = keys.has_region(node, self.expect) and node.key(names) is None
        value = node if named_here else _field(node, names, f'"{names[0]}"')
        found = self._values(label, value)
        return found if self.expect == "box" else [self._with_more(node, found[0])]

    def _with_more(self, node: Object, target: RawTarget) -> RawTarget:
        """The points of a target with its negative points and its box, if it has them."""
        negative, box = _optional(node, keys.NOT_POINTS), _optional(node, keys.ONLY_BOX)
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
        text = node.first(keys.STEP_TEXT, "")
        return RawStep(
            text if isinstance(text, str) else "",
            boxes=tuple(self._step_boxes(node)),
            rows=_step_bands(node, keys.ROWS),
            columns=_step_bands(node, keys.COLUMNS),
            marks=_step_bands(node, keys.SURE_MARKS),
        )

    def _step_boxes(self, node: Object) -> Iterator[Numbers]:
        for name in ("boxes", "bboxes", "box", "bbox", "bbox_2d", "box_2d"):
            value = node.entries.get(name)
            whole = not isinstance(value, Array) or values.is_flat(value)
            for item in [value] if whole or not isinstance(value, Array) else value.items:
                with contextlib.suppress(Unreadable):
                    yield from values.boxes(item, y_first=self.y_first)


def is_cut(node: Node) -> bool:
    return isinstance(node, Array | Object) and not node.complete


def _check_form(node: Object) -> None:
    """Unreadable where it says that its boxes are no corners, as in `"format": "xywh"`."""
    said = node.first(keys.FORM)
    if isinstance(said, str) and _NO_CORNERS.search(said[:100].lower()):
        raise Unreadable(f"boxes are two corners, found {preview(said)}")


def _field(node: Object, names: tuple[str, ...], what: str) -> Node:
    name = node.key(names)
    if name is None:
        raise Unreadable(f"{preview(node)} has no {what}")
    return node.entries[name]


def _optional(node: Object, names: tuple[str, ...]) -> Node:
    """The value of an optional field; None where it is missing or an empty list."""
    value = node.first(names)
    return None if isinstance(value, Array) and not value.items else value


def label_of(node: Object) -> str:
    value = node.first(selection.LABEL, "")
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else ""


def _step_bands(node: Object, names: tuple[str, ...]) -> tuple[int, ...]:
    with contextlib.suppress(Unreadable):
        return values.bands(node.first(names))
    return ()


def _steps(answer: AnswerCandidate, reader: EntryReader) -> tuple[RawStep, ...]:
    node = _first(answer, keys.STEPS, lambda value: isinstance(value, Array | Object))
    items: list[Node] = []
    if isinstance(node, Array):
        items = node.items
    elif isinstance(node, Object):
        items = list(node.entries.values())
    steps = (reader.step(item) for item in items)
    return tuple(step for step in steps if step is not None)


def _reason(answer: AnswerCandidate) -> str:
    found = _first(answer, keys.REASON, lambda value: isinstance(value, str))
    return found if isinstance(found, str) else ""


def _first(answer: AnswerCandidate, names: tuple[str, ...], fits: Callable[[Node], bool]) -> Node:
    """The first fitting value under one of `names` in the objects around the targets."""
    for context in answer.context:
        for name in names:
            if name in context.entries and fits(context.entries[name]):
                return context.entries[name]
    return None
