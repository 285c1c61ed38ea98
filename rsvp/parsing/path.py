"""Reads a reasoning path: its steps with the objects that they name, the answer and its objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rsvp.parsing import keys
from rsvp.parsing.keys import Expect
from rsvp.parsing.lenient_json import Array, Node, Object
from rsvp.parsing.reply import (
    MAX_TARGETS,
    EntryReader,
    ParsedReply,
    RawStep,
    RawTarget,
    is_cut,
    label_of,
    read_reply,
)
from rsvp.parsing.search import find_object
from rsvp.parsing.values import Unreadable, whole, words

_PATH = ("path", *keys.STEPS, "trace")
_OBJECTS = ("objects", "object", "things")
_ANSWER = ("answer", "final_answer", "conclusion")
_ANSWER_OBJECTS = ("answer_objects", "answer_object", *keys.TARGETS)
_ID = ("id", "object_id")


def parse_path(text: str, *, expect: Expect, y_first: bool = False) -> ParsedReply:
    """Read a reply whose steps name objects.

    An object whose place is missing or cannot be read stays, without a region: it is part of the
    text, and no mask depends on it.

    Args:
        text, expect, y_first: see `rsvp.parsing.parse_reply`.

    Returns:
        The answer's objects are the targets.

    Raises:
        UnparsableReply: it contains no path, or none that is certain.
    """
    return read_reply(text, lambda bare: _PathReader(EntryReader(expect, y_first)).read(bare))


class _PathReader:
    """Reads the objects of one reply."""

    def __init__(self, entries: EntryReader) -> None:
        self._entries = entries
        self._count = 0

    def read(self, text: str) -> ParsedReply:
        """The path in a text; Unreadable where there is none."""
        node = find_object(text, _path_of, 'JSON with a "path"')
        reason = words(node.first(keys.REASON))
        if _is_not_understood(node):
            return ParsedReply((), (), reason, understood=False)
        answer, objects = node.first(_ANSWER), node.first(_ANSWER_OBJECTS)
        if isinstance(answer, Object):  # the answer with its objects in it
            objects = answer.first((*_ANSWER_OBJECTS, *_OBJECTS), objects)
            answer = answer.first((*keys.STEP_TEXT, *_ANSWER, "label"), "")
        elif node.key(_ANSWER_OBJECTS) is None:
            raise Unreadable(f'the reply {_cut(node)} has no "answer_objects"')
        found = tuple(self._objects(objects))
        if not found and isinstance(objects, Array) and not objects.complete:
            raise Unreadable("the reply was cut off before its first complete answer object")
        said = words(answer) or ", ".join(dict.fromkeys(o.label for o in found if o.label))
        if node.key(_ANSWER) is None and not found:
            raise Unreadable(f'the reply {_cut(node)} has no "answer"')
        return ParsedReply(tuple(self._steps(node.first(_PATH))), found, reason, answer=said)

    def _steps(self, node: Node) -> Iterator[RawStep]:
        items = node.items if isinstance(node, Array) else [node]
        for item in items:
            if isinstance(item, str):
                yield RawStep(item)
            elif isinstance(item, Object) and not is_cut(item):
                # Regions beside the text are objects without a name.
                here = item.entries[name] if (name := item.key(_OBJECTS)) else _nameless(item)
                yield RawStep(words(item.first(keys.STEP_TEXT)), objects=tuple(self._objects(here)))

    def _objects(self, node: Node) -> Iterator[RawTarget]:
        items = node.items if isinstance(node, Array) else [node]
        for item in items:
            if item is None or isinstance(item, bool) or is_cut(item):
                continue
            for found in self._entry(item):
                self._count += 1
                if self._count > MAX_TARGETS:
                    raise Unreadable(f"the reply names more than {MAX_TARGETS} objects")
                if found.label or found.has_region or found.id is not None:
                    yield found

    def _entry(self, item: Node) -> list[RawTarget]:
        if isinstance(item, str):
            return [RawTarget(item)]
        if isinstance(item, float):
            return [RawTarget("", id=whole(item))]
        try:
            found = self._entries.entry(item)
        except Unreadable:
            found = [RawTarget(label_of(item))] if isinstance(item, Object) else []
        sure = self._entries.expect != "marks"  # there, an id may be the number of the mark
        given = whole(item.first(_ID)) if isinstance(item, Object) and sure else None
        return [replace(one, id=given) for one in found]


def _path_of(node: Node) -> Object | None:
    """An object with a path."""
    if not isinstance(node, Object):
        return None
    return node if isinstance(node.first(_PATH), Array) or _is_not_understood(node) else None


def _is_not_understood(node: Object) -> bool:
    return node.entries.get("understood") is False


def _nameless(step: Object) -> Object:
    """A step as an object without label and number; the number may be the step's own."""
    names = keys.REGION - {"id", "number"}
    return Object({name: value for name, value in step.entries.items() if name in names})


def _cut(node: Object) -> str:
    return "" if node.complete else "was cut off: it"
