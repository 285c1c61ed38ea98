"""Which part of a reply is the answer: past the prose, the thinking, the drafts and the fences.

`find` scans the text once for JSON documents, keeps those that read as an answer, and chooses as
a careful reader would: what was thought is not yet said; the last complete answer counts; an
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
# Other names of the list, trusted only in a complete document: "targets" may have been to come.
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
# What may stand between two parts of one list, and beside a bare list that stands alone.
_GAP = re.compile(r"[\s,;]*+(?:(?:[0-9]{1,3}[.)]|[-*•]|and)\s*+)?")
_ALONE_BEFORE = re.compile(r"(?:\A|[\n>]|```(?:json|python)?)[ \t]*\Z")
_ALONE_AFTER = re.compile(r"[ \t]*[.,]?[ \t]*(?:\r?\n|<|```|\Z)")
_NEARBY = 40
_LAST_WORDS = re.compile(r"(?:\s|```|</?\w{1,12}>|<\|\w{1,20}\|>)*+\Z")


@dataclass(frozen=True, slots=True)
class Claim:
    """A document, or a part of one, that reads as an answer.

    Attributes:
        kind: "whole" has a targets list of its own; "entry" is one target, "entries" a list of
            them; "bare" is a list without any key.
        targets: the node with the targets.
        context: the objects around the targets, innermost first: steps and reason are there.
        complete: the document was closed.
        absent: the document says in other words than a list that there is no target.
        named: the list is called targets: no step of a chain has such a one.
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
        """Does it claim that there is no target?"""
        nothing = isinstance(self.targets, Array) and not self.targets.items
        return self.absent or self.targets is None or nothing


@dataclass(frozen=True, slots=True)
class Findings:
    """The answer, the part of the text that is not thinking, and whether broken JSON was seen."""

    claim: Claim | None
    visible: str
    broken: bool


def find(text: str, expect: Expect) -> Findings:
    """Find the answer; a claim of kind "bare" is the weakest, markup in `visible` goes before it.

    Raises:
        Unreadable: something was said that cannot be taken at its word.
        OutOfBudgetError: the text is too tangled.
    """
    scan = _Scan(text)
    claims = _merged(_claims(scan.found, expect), text)
    claims = [claim for claim in claims if scan.trusts(claim)]
    keyed = [claim for claim in claims if claim.kind != "bare"]
    claims = keyed or [claim for claim in claims if _stands_alone(claim, text)]
    broken = any(isinstance(item, Broken) and item.keys & _ANSWER_KEYS for item in scan.found)
    visible = text[scan.visible_from : scan.thought_from]
    return Findings(_chosen(claims, scan.found), visible, broken)


class _Scan:
    """The documents of a text, in order, without those in closed thinking blocks.

    Attributes:
        visible_from: where the last closed thinking block ends.
        thought_from: where an unclosed thinking block begins, or None.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Document | Broken] = []
        self.visible_from = 0
        self.thought_from: int | None = None
        reader = Reader(text)
        position = 0
        while landmark := _LANDMARK.search(text, position):
            if landmark[0] in "[{":
                position = self._read(reader, landmark.start())
            else:
                position = self._tag(landmark)

    def _read(self, reader: Reader, start: int) -> int:
        """Try a document at `start`; where to go on."""
        found = reader.read(start)
        if isinstance(found, Document):
            # The reader stops at a closing tag outside of strings: one before the end is quoted,
            # by an answer that was cut off, or by a stray bracket in a thought that swallowed it.
            quoted = not found.node.complete and _CLOSE.search(self.text, start, found.end)
            if quoted and not found.keys & _REPLY_KEYS:
                return start + 1
            self.found.append(found)
            return found.end
        self.found.append(found)
        return found.end if found.too_deep else start + 1

    def _tag(self, tag: re.Match[str]) -> int:
        """Step over thinking; a closing tag alone ends a thought that the prompt began."""
        if "/" in tag[0]:
            # What was broken beyond the tag may have quoted it, and then the rest is no answer.
            self.found = [item for item in self.found if item.end > tag.end()]
            self.thought_from = None
            self.visible_from = tag.end()
        elif self.thought_from is None:
            close = _CLOSE.search(self.text, tag.end())
            if close:
                self.visible_from = close.end()
                return close.end()
            self.thought_from = tag.end()
        return tag.end()

    def trusts(self, claim: Claim) -> bool:
        """Is a claim said aloud, and not the readable rest of an answer that is not?"""
        if self.thought_from is not None and claim.start >= self.thought_from:
            # A model that forgot to close its thought ends with its answer.
            last = _LAST_WORDS.match(self.text, claim.end) is not None
            return claim.kind == "whole" and claim.complete and last and not claim.is_empty
        if claim.named:
            return True
        whole = claim.kind == "whole"  # it may follow what is broken, but not be a part of it
        return not any(
            isinstance(item, Broken)
            and item.keys & _REPLY_KEYS
            and item.start < claim.start
            and not (whole and item.end <= claim.start)
            for item in self.found
        )


def _claims(found: Iterable[Document | Broken], expect: Expect) -> list[Claim]:
    claims: list[Claim] = []
    for item in found:
        if isinstance(item, Document):
            claim = _claim(item.node, expect, item.start, item.end)
            if claim:
                claims.append(claim)
    return claims


def _claim(node: Array | Object, expect: Expect, start: int, end: int) -> Claim | None:
    """The answer that a document holds, if any."""
    whole = Claim("whole", None, (), start, end, node.complete)
    if isinstance(node, Array):
        return _list_claim(node, expect, whole)
    named = node.key(TARGETS)
    if named and not (isinstance(node.entries[named], str) and is_entry(node, expect)):
        _check_consistent(node, node.entries[named])
        return replace(whole, targets=node.entries[named], context=(node,), named=True)
    wrapper = node.key(_WRAPPERS)
    inside = node.entries[wrapper] if wrapper else None
    if isinstance(inside, Array | Object):
        inner = _claim(inside, expect, start, end)
        if inner and (node.complete or inner.kind == "whole"):
            context = (*inner.context, node)
            return replace(inner, kind="whole", context=context, complete=node.complete)
    return _keyed_claim(node, expect, whole) if node.complete else None


def _keyed_claim(node: Object, expect: Expect, whole: Claim) -> Claim | None:
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


def _list_claim(node: Array, expect: Expect, whole: Claim) -> Claim | None:
    """The answer in a list at top level."""
    first = node.items[0] if node.items else None
    if len(node.items) == 1 and isinstance(first, Object) and first.key(TARGETS):
        return _claim(first, expect, whole.start, whole.end)
    if any(isinstance(item, Object) and is_entry(item, expect) for item in node.items):
        return replace(whole, kind="entries", targets=node)
    if not node.items or is_flat(node) or all(isinstance(item, Array) for item in node.items):
        return replace(whole, kind="bare", targets=node)
    return None


def is_entry(node: Object, expect: Expect) -> bool:
    """Does an object look like one target (and not like a step of the chain)?"""
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
    """`{"rows": [], "columns": []}`: the paper's own way to say absent."""
    rows, columns = node.key(ROWS), node.key(COLUMNS)
    if expect != "bands" or not rows or not columns:
        return False
    values = (node.entries[rows], node.entries[columns])
    return all(isinstance(value, Array) and not value.items for value in values)


def _says(node: Object, *, present: bool) -> bool:
    """Does the object state presence (or absence) by a boolean of its own?"""
    entries = node.entries
    return any(entries.get(name) is present for name in _SAYS_PRESENT) or any(
        entries.get(name) is (not present) for name in _SAYS_ABSENT
    )


def _check_consistent(node: Object, targets: Node) -> None:
    empty = targets is None or (isinstance(targets, Array) and targets.complete)
    empty = empty and not (isinstance(targets, Array) and targets.items)
    if _says(node, present=empty):
        raise Unreadable("the reply contradicts itself on whether there is a target")


def _merged(claims: list[Claim], text: str) -> list[Claim]:
    """Join neighbours that are clearly parts of one list: entries, or boxes, one a line."""
    runs: list[list[Claim]] = []
    for claim in claims:
        last = runs[-1][-1] if runs else None
        part = claim.kind == "entry" or (claim.kind == "bare" and _is_flat_list(claim.targets))
        alike = last and part and last.kind == claim.kind and not last.is_empty
        if last and alike and _GAP.fullmatch(text, last.end, claim.start):
            runs[-1].append(claim)
        else:
            runs.append([claim])
    return [_joined(run) if len(run) > 1 else run[0] for run in runs]


def _is_flat_list(node: Node) -> bool:
    return isinstance(node, Array) and bool(node.items) and is_flat(node)


def _joined(run: list[Claim]) -> Claim:
    kind: Literal["entries", "bare"] = "entries" if run[0].kind == "entry" else "bare"
    targets = Array([claim.targets for claim in run])
    return Claim(kind, targets, (), run[0].start, run[-1].end, run[-1].complete)


def _stands_alone(claim: Claim, text: str) -> bool:
    """Is a bare list the whole reply, or on lines or in a fence or tag of its own?"""
    before = text[max(0, claim.start - _NEARBY) : claim.start]
    before = before if claim.start <= _NEARBY else "." + before
    return bool(_ALONE_BEFORE.search(before) and _ALONE_AFTER.match(text, claim.end))


def _chosen(claims: list[Claim], found: list[Document | Broken]) -> Claim | None:
    """The last complete answer, or the last one that was cut off."""
    complete = [claim for claim in claims if claim.complete]
    if not complete:
        return claims[-1] if claims else None
    chosen = complete[-1]
    if chosen.is_empty and any(item.start >= chosen.end and _is_unread(item) for item in found):
        raise Unreadable("the reply says that nothing is there and then begins another answer")
    return chosen


def _is_unread(item: Document | Broken) -> bool:
    if isinstance(item, Broken):
        return bool(item.keys & _ANSWER_KEYS)
    return not item.node.complete
