"""Finds the answer in a reply among prose, thinking blocks, drafts and fences.

`find` scans the text once for JSON documents, selects those that can be an answer, and chooses as a
careful reader would: text in a thinking block is no answer; the last complete answer counts; an
answer next to one that cannot be read is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from rsvp.parsing.lenient_json import Array, Broken, Document, Node, Object, Reader
from rsvp.parsing.values import Unreadable, has_named_box, is_flat

Expect = Literal["box", "bands", "points", "marks"]

TARGETS = ("targets", "target")
BOX = ("box", "bbox", "bbox_2d", "box_2d", "bounding_box", "boundingbox", "boxes", "bboxes")
POINTS = ("points", "point", "point_2d", "points_2d")
NOT_POINTS = ("not", "not_points", "negative", "negative_points", "exclude")
MARKS = ("marks", "mark", "mark_id", "number", "id")
ROWS = ("rows", "row")
COLUMNS = ("columns", "column", "cols", "col")
LABEL = ("label", "name", "object", "class", "category", "description", "target")
STEPS = ("steps", "reasoning_steps", "thoughts", "chain_of_thought", "reasoning")
_ANSWER_KEYS = frozenset((*TARGETS, *BOX, *POINTS, *MARKS, *ROWS, *COLUMNS))
_REPLY_KEYS = _ANSWER_KEYS.union(STEPS)
_WRAPPERS = ("answer", "final_answer", "output", "result", "response", "final")
# Other names of the list, accepted only in a complete document: "targets" may still have followed.
_LISTS = (
    *("objects", "detections", "instances", "results", "predictions", "regions", "annotations"),
    *("boxes", "bboxes", "bounding_boxes", "points", "marks"),
)
_STEP_MARKS = ("text", "step", "thought")
_SAYS_PRESENT = ("present", "is_present", "found", "exists")
_SAYS_ABSENT = ("no_target", "absent", "not_found")

_THINK = r"(?:think|thinking|thought|reasoning)"
_CLOSE = re.compile(rf"</{_THINK}>|◁/think▷", re.IGNORECASE)
_LANDMARK = re.compile(
    rf"\[|\{{(?=\s*+(?:[\"'“”‘’„}}/\#]|\w|\Z))|</?{_THINK}>|◁/?think▷", re.IGNORECASE
)
# What may be between two parts of one list, and beside a bare list on its own.
_GAP = re.compile(r"[\s,;]*+(?:(?:[0-9]{1,3}[.)]|[-*•]|and)\s*+)?")
_ALONE_BEFORE = re.compile(r"(?:\A|[\n>]|```(?:json|python)?)[ \t]*\Z")
_ALONE_AFTER = re.compile(r"[ \t]*[.,]?[ \t]*(?:\r?\n|<|```|\Z)")
_NEARBY = 40
_ONLY_CLOSING = re.compile(r"(?:\s|```|</?\w{1,12}>|<\|\w{1,20}\|>)*+\Z")


@dataclass(frozen=True, slots=True)
class AnswerCandidate:
    """A document, or a part of one, that can be the answer.

    Attributes:
        kind: "whole" has a targets list of its own; "entry" is one target, "entries" a list of
            them; "bare" is a list without any key.
        targets: the node with the targets.
        context: the objects around the targets, innermost first: steps and reason are there.
        complete: the document was closed.
        absent: the document says other than by an empty list that there is no target.
        named: the list's key is "targets", which no reasoning step has.
    """

    kind: Literal["whole", "entry", "entries", "bare"]
    targets: Node
    context: tuple[Object, ...]
    start: int
    end: int
    complete: bool
    absent: bool = False
    named: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it says that there is no target."""
        nothing = isinstance(self.targets, Array) and not self.targets.items
        return self.absent or self.targets is None or nothing


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer, the text outside of thinking blocks, and whether there is broken JSON."""

    answer: AnswerCandidate | None
    visible: str
    broken: bool


def find(text: str, expect: Expect) -> SearchResult:
    """Find the answer; markup in `visible` has precedence over one of kind "bare".

    Raises:
        Unreadable: an answer contradicts itself or another one.
        OutOfBudgetError: the text costs too much to read.
    """
    scan = _Scan(text)
    answers = _merged(_answers(scan.found, expect), text)
    answers = [answer for answer in answers if scan.trusts(answer)]
    keyed = [answer for answer in answers if answer.kind != "bare"]
    answers = keyed or [answer for answer in answers if _stands_alone(answer, text)]
    broken = any(isinstance(item, Broken) and item.keys & _ANSWER_KEYS for item in scan.found)
    visible = text[scan.visible_from : scan.thinking_from]
    return SearchResult(_chosen(answers, scan.found), visible, broken)


class _Scan:
    """The documents of a text, in order, without those in closed thinking blocks.

    Attributes:
        visible_from: where the last closed thinking block ends.
        thinking_from: where an unclosed thinking block begins, or None.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Document | Broken] = []
        self.visible_from = 0
        self.thinking_from: int | None = None
        reader = Reader(text)
        position = 0
        while landmark := _LANDMARK.search(text, position):
            if landmark[0] in "[{":
                position = self._read(reader, landmark.start())
            else:
                position = self._tag(landmark)

    def _read(self, reader: Reader, start: int) -> int:
        """Read the document at `start`; returns where to continue."""
        found = reader.read(start)
        if isinstance(found, Document):
            # The reader stops at a closing tag outside of strings, so that one before the end is
            # in a string: of an answer that was cut off, or of a stray bracket in a thinking block.
            quoted = not found.node.complete and _CLOSE.search(self.text, start, found.end)
            if quoted and not found.keys & _REPLY_KEYS:
                return start + 1
            self.found.append(found)
            return found.end
        self.found.append(found)
        return found.end if found.too_deep else start + 1

    def _tag(self, tag: re.Match[str]) -> int:
        """Skip thinking; a closing tag alone ends a thinking block that the prompt opened."""
        if "/" in tag[0]:
            # Broken JSON that reaches beyond the tag may quote it; then the rest is no answer.
            self.found = [item for item in self.found if item.end > tag.end()]
            self.thinking_from = None
            self.visible_from = tag.end()
        elif self.thinking_from is None:
            close = _CLOSE.search(self.text, tag.end())
            if close:
                self.visible_from = close.end()
                return close.end()
            self.thinking_from = tag.end()
        return tag.end()

    def trusts(self, answer: AnswerCandidate) -> bool:
        """Whether an answer is outside of thinking, and not a readable part of a broken one."""
        if self.thinking_from is not None and answer.start >= self.thinking_from:
            # A model that forgot the closing tag ends with its answer.
            last = _ONLY_CLOSING.match(self.text, answer.end) is not None
            return answer.kind == "whole" and answer.complete and last and not answer.is_empty
        if answer.named:
            return True
        whole = answer.kind == "whole"  # it may follow broken JSON, but not be a part of it
        return not any(
            isinstance(item, Broken)
            and item.keys & _REPLY_KEYS
            and item.start < answer.start
            and not (whole and item.end <= answer.start)
            for item in self.found
        )


def _answers(found: Iterable[Document | Broken], expect: Expect) -> list[AnswerCandidate]:
    documents = (item for item in found if isinstance(item, Document))
    answers = (_answer(item.node, expect, item.start, item.end) for item in documents)
    return [answer for answer in answers if answer]


def _answer(node: Array | Object, expect: Expect, start: int, end: int) -> AnswerCandidate | None:
    """The answer in a document, if any."""
    whole = AnswerCandidate("whole", None, (), start, end, node.complete)
    if isinstance(node, Array):
        return _list_answer(node, expect, whole)
    named = node.key(TARGETS)
    if named and not (isinstance(node.entries[named], str) and is_entry(node, expect)):
        _check_consistent(node, node.entries[named])
        return replace(whole, targets=node.entries[named], context=(node,), named=True)
    inside = node.first(_WRAPPERS)
    if isinstance(inside, Array | Object):
        inner = _answer(inside, expect, start, end)
        if inner and (node.complete or inner.kind == "whole"):
            context = (*inner.context, node)
            return replace(inner, kind="whole", context=context, complete=node.complete)
    return _keyed_answer(node, expect, whole) if node.complete else None


def _keyed_answer(node: Object, expect: Expect, whole: AnswerCandidate) -> AnswerCandidate | None:
    """The answer in an object that has no "targets" key."""
    for name in _LISTS:
        value = node.entries.get(name)
        if isinstance(value, Array) and _is_list_of_entries(value, expect):
            if value.items or not node.key(LABEL):
                return replace(whole, targets=value, context=(node,))
            return None
    if _says(node, present=False) or _no_bands(node, expect):
        return replace(whole, absent=True, context=(node,))
    if is_entry(node, expect):
        return replace(whole, kind="entry", targets=node, context=(node,))
    return None


def _list_answer(node: Array, expect: Expect, whole: AnswerCandidate) -> AnswerCandidate | None:
    """The answer in a list at top level."""
    first = node.items[0] if node.items else None
    if len(node.items) == 1 and isinstance(first, Object) and first.key(TARGETS):
        return _answer(first, expect, whole.start, whole.end)
    if any(isinstance(item, Object) and is_entry(item, expect) for item in node.items):
        return replace(whole, kind="entries", targets=node)
    if not node.items or is_flat(node) or all(isinstance(item, Array) for item in node.items):
        return replace(whole, kind="bare", targets=node)
    return None


def is_entry(node: Object, expect: Expect) -> bool:
    """Whether an object looks like one target, and not like a reasoning step."""
    if node.key(_STEP_MARKS) and not node.key(LABEL):
        return False
    if expect == "box":
        return node.key(BOX) is not None or has_named_box(node)
    if expect == "bands":
        return node.key(ROWS) is not None and node.key(COLUMNS) is not None
    if expect == "points":
        return node.key(POINTS) is not None or {"x", "y"} <= node.entries.keys()
    return node.key(MARKS) is not None


def _is_list_of_entries(node: Array, expect: Expect) -> bool:
    return all(isinstance(item, Object) and is_entry(item, expect) for item in node.items)


def _no_bands(node: Object, expect: Expect) -> bool:
    """Whether it is `{"rows": [], "columns": []}`, which means absent in the paper."""
    bands = (node.first(ROWS), node.first(COLUMNS))
    empty = all(isinstance(value, Array) and not value.items for value in bands)
    return expect == "bands" and empty


def _says(node: Object, *, present: bool) -> bool:
    """Whether the object states presence (or absence) by a boolean."""
    entries = node.entries
    return any(entries.get(name) is present for name in _SAYS_PRESENT) or any(
        entries.get(name) is (not present) for name in _SAYS_ABSENT
    )


def _check_consistent(node: Object, targets: Node) -> None:
    empty = targets is None or (isinstance(targets, Array) and targets.complete)
    empty = empty and not (isinstance(targets, Array) and targets.items)
    if _says(node, present=empty):
        raise Unreadable("the reply contradicts itself on whether there is a target")


def _merged(answers: list[AnswerCandidate], text: str) -> list[AnswerCandidate]:
    """Join neighbours that are parts of one list: entries, or boxes on lines of their own."""
    runs: list[list[AnswerCandidate]] = []
    for answer in answers:
        last = runs[-1][-1] if runs else None
        part = answer.kind == "entry" or (answer.kind == "bare" and _is_flat_list(answer.targets))
        alike = last and part and last.kind == answer.kind and not last.is_empty
        if last and alike and _GAP.fullmatch(text, last.end, answer.start):
            runs[-1].append(answer)
        else:
            runs.append([answer])
    return [_joined(run) if len(run) > 1 else run[0] for run in runs]


def _is_flat_list(node: Node) -> bool:
    return isinstance(node, Array) and bool(node.items) and is_flat(node)


def _joined(run: list[AnswerCandidate]) -> AnswerCandidate:
    kind: Literal["entries", "bare"] = "entries" if run[0].kind == "entry" else "bare"
    targets = Array([answer.targets for answer in run])
    return AnswerCandidate(kind, targets, (), run[0].start, run[-1].end, run[-1].complete)


def _stands_alone(answer: AnswerCandidate, text: str) -> bool:
    """Whether a bare list is the whole reply, or alone on its lines or in a fence or tag."""
    before = text[max(0, answer.start - _NEARBY) : answer.start]
    before = before if answer.start <= _NEARBY else "." + before
    return bool(_ALONE_BEFORE.search(before) and _ALONE_AFTER.match(text, answer.end))


def _chosen(
    answers: list[AnswerCandidate], found: list[Document | Broken]
) -> AnswerCandidate | None:
    """The last complete answer, or the last one that was cut off."""
    complete = [answer for answer in answers if answer.complete]
    if not complete:
        return answers[-1] if answers else None
    chosen = complete[-1]
    if chosen.is_empty and any(item.start >= chosen.end and _is_unread(item) for item in found):
        raise Unreadable("the reply says that there is no target and then begins another answer")
    return chosen


def _is_unread(item: Document | Broken) -> bool:
    if isinstance(item, Broken):
        return bool(item.keys & _ANSWER_KEYS)
    return not item.node.complete
