"""Finds the answer in a reply among prose, thinking blocks, drafts, remarks and fences.

`find` scans the text once for JSON documents, selects those that can be an answer, and chooses as a
careful reader would: text in a thinking block is no answer; an example or a remark is none beside
an answer; a correction replaces what it corrects; answers to different targets belong together;
answers that contradict each other are not trusted. Where no document is an answer, tags of model
families are read, then lists that stand alone, then prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from rsvp.parsing import choice, keys, markup, prose, selection
from rsvp.parsing.choice import AnswerCandidate
from rsvp.parsing.keys import COLUMNS, ROWS, TARGETS, Expect, is_entry
from rsvp.parsing.lenient_json import Array, Broken, Document, Node, Object, Reader
from rsvp.parsing.values import Unreadable, is_flat, is_number_list

_CALLS = ("arguments", "parameters", "args", "input", "function", "function_call", "tool_calls")
_WRAPPERS = (
    *("answer", "final_answer", "output", "result", "response", "final", "tool_call"),
    *_CALLS,
)
# Tools that only look at a part of the image; their region is no answer.
_LOOKING = re.compile(r"zoom|crop|look|magnif|inspect|examine|view|search|segment_phrase")
# Other names of the list, accepted only in a complete document: "targets" may still have followed.
_LISTS = (
    *("objects", "detections", "instances", "results", "predictions", "regions", "annotations"),
    *("boxes", "bboxes", "bounding_boxes", "points", "marks", "candidates", "items", "tool_calls"),
)
_SAYS_PRESENT = ("present", "is_present", "found", "exists")
_SAYS_ABSENT = ("no_target", "absent", "not_found")
_MAX_WRAPPERS = 6
_DOCUMENT_UNITS, _CANDIDATE_UNITS = 3, 4  # what keeping and judging them costs, in JSON tokens

_THINK = r"(?:think|thinking|thought|reasoning)"
_CLOSE = re.compile(rf"</{_THINK}>|◁/think▷", re.IGNORECASE)
_LANDMARK = re.compile(
    rf"\[|\{{(?=\s*+(?:[\"'“”‘’„}}/\#]|\w|\Z))|</?{_THINK}>|◁/?think▷", re.IGNORECASE
)
# The part of a reply that a model marks as its answer.
_MARKED = re.compile(
    r"<answer>(?P<tag>.*?)</answer>|<\|begin_of_box\|>(?P<token>.*?)<\|end_of_box\|>"
    r"|\\boxed\s{0,3}\{(?:\\text\w{0,3}\{)?(?P<boxed>[^{}]*)\}",
    re.DOTALL | re.IGNORECASE,
)
_MARK_BEGINS = re.compile(r"<answer>|<\|begin_of_box\|>|\\boxed", re.IGNORECASE)
# What may be between two parts of one list, and beside a bare list on its own.
_GAP = re.compile(r"[\s,;]*+(?:(?:[0-9]{1,3}[.)]|[-*•]|and)\s*+)?")
_ALONE_BEFORE = re.compile(r"(?:\A|[\n>]|```(?:json|python)?)[ \t]*\Z")
_ALONE_AFTER = re.compile(r"[ \t]*[.,]?[ \t]*(?:\r?\n|<|```|\Z)")
_NEARBY = 40
_ONLY_CLOSING = re.compile(r"(?:\s|```|</?\w{1,12}>|<\|\w{1,20}\|>)*+\Z")
_SPECIAL_TOKEN = re.compile(
    r"<\|(?!/?ref|/?det|object_ref|box_)\w{1,20}\|>|<｜[^<>]{1,40}｜>|</?s>"
)


def find(text: str, expect: Expect) -> AnswerCandidate:
    """Find the answer.

    Raises:
        Unreadable: there is none, or one that contradicts itself or another one.
        OutOfBudgetError: the text costs too much to read.
    """
    scan = Scan(text)
    answers = _merged(scan.answers(expect), text)
    answers = [answer for answer in answers if scan.trusts(answer)]
    marked = scan.marked
    keyed = [answer for answer in answers if answer.kind != "bare"]
    if keyed:
        inside = [a for a in keyed if marked and marked[0] <= a.start and a.end <= marked[1]]
        return _chosen(inside or keyed, scan)
    broken = any(isinstance(item, Broken) and item.keys & keys.ANSWER for item in scan.found)
    if not broken:
        if found := scan.tagged(expect):
            return found
        answers = [answer for answer in answers if _stands_alone(answer, text)]
        if answers:
            return _chosen(answers, scan)
        if found := scan.prose(expect):
            return found
    if not text.strip():
        raise Unreadable("the reply is empty")
    raise Unreadable(f"the reply {'is not valid JSON' if broken else 'has no JSON answer'}")


def find_object(text: str, fits: Callable[[Node], Object | None], what: str) -> Object:
    """The one object that is the answer, chosen as `find` does.

    Args:
        fits: a value as the object with the answer; None where it is something else.
        what: the answer, for messages, e.g. `a "path"`.
    """
    scan = Scan(text)
    found = [
        AnswerCandidate("whole", node, (node,), item.start, item.end, node.complete)
        for item in scan.found
        if isinstance(item, Document) and (node := _unwrapped(item.node, fits))
    ]
    found = [one for one in found if scan.trusts(one)]
    if scan.marked:
        first, last = scan.marked
        found = [one for one in found if first <= one.start and one.end <= last] or found
    if not found:
        raise Unreadable("the reply is empty" if not text.strip() else f"the reply has no {what}")
    complete = [one for one in found if one.complete]
    chosen = choice.resolved(complete, text, scan.visible_from) if complete else found[-1]
    if not isinstance(chosen.targets, Object):
        raise Unreadable("the reply holds several answers")
    return chosen.targets


def _unwrapped(node: Node, fits: Callable[[Node], Object | None]) -> Object | None:
    """What fits in a list of one, or in what stands around answers, as in `{"result": …}`."""
    for _ in range(_MAX_WRAPPERS):
        if (found := fits(node)) is not None:
            return found
        if isinstance(node, Array) and len(node.items) == 1:
            node = node.items[0]
        elif isinstance(node, Object):
            node = node.first(_WRAPPERS)
    return None


class Scan:
    """The documents of a text, in order, without those in closed thinking blocks.

    Attributes:
        marked: where the content of the last `<answer>`, `\\boxed{}` or GLM box is, or None.
        visible_from: where the last closed thinking block ends.
        thinking_from: where an unclosed thinking block begins, or None.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Document | Broken] = []
        self.visible_from = 0
        self.thinking_from: int | None = None
        self._reader = Reader(text)
        position = 0
        while landmark := _LANDMARK.search(text, position):
            is_document = landmark[0] in "[{"
            position = self._read(landmark.start()) if is_document else self._tag(landmark)
        self._broken = [
            item for item in self.found if isinstance(item, Broken) and item.keys & keys.REPLY
        ]
        self.marked = self._marked()
        self._broken_until = max((item.end for item in self._broken), default=0)

    @property
    def left(self) -> int:
        """What is left of the budget."""
        return self._reader.left

    def _read(self, start: int) -> int:
        """Read the document at `start`; returns where to continue."""
        found = self._reader.read(start)
        if isinstance(found, Broken):
            self.found += [found, *found.inside]
            return found.end
        # The reader stops at a closing tag outside of strings, so that one before the end is
        # in a string: of an answer that was cut off, or of a stray bracket in a thinking block.
        quoted = not found.node.complete and _CLOSE.search(self.text, start, found.end)
        if quoted and not found.keys & keys.REPLY:
            return start + 1
        self._reader.spend(_DOCUMENT_UNITS)
        if isinstance(found.node, Object) and not found.keys.isdisjoint(_WRAPPERS):
            self._open_strings(found.node)
        self.found.append(found)
        return found.end

    def _open_strings(self, node: Node) -> None:
        """Replace JSON in strings under a wrapper's key, as in `"arguments": "{…}"`."""
        for _ in range(_MAX_WRAPPERS):
            if isinstance(node, Array) and len(node.items) == 1:
                node = node.items[0]
            name = node.key(_WRAPPERS) if isinstance(node, Object) else None
            if name is None or not isinstance(node, Object):
                return
            value = node.entries[name]
            if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
                inner = Reader(value, self._reader.left)
                found = inner.read(len(value) - len(value.lstrip()))
                self._reader.left = inner.left - _DOCUMENT_UNITS
                if isinstance(found, Document) and found.node.complete:
                    node.entries[name] = found.node
            node = node.entries[name]

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

    def answers(self, expect: Expect) -> list[AnswerCandidate]:
        """The documents that can be an answer."""
        documents = (item for item in self.found if isinstance(item, Document))
        answers = (_answer(item.node, expect, item.start, item.end) for item in documents)
        found = [answer for answer in answers if answer]
        self._reader.spend(_CANDIDATE_UNITS * len(found))
        return found

    def trusts(self, answer: AnswerCandidate) -> bool:
        """Whether an answer is outside of thinking, and not a readable part of a broken one."""
        if self.thinking_from is not None and answer.start >= self.thinking_from:
            # A model that forgot the closing tag ends with its answer.
            last = _ONLY_CLOSING.match(self.text, answer.end) is not None
            return answer.kind == "whole" and answer.complete and last and not answer.is_empty
        if answer.named or not self._broken or answer.start <= self._broken[0].start:
            return True
        # It may follow broken JSON, but not be a part of it.
        marked = self.marked is not None and self._broken_until <= self.marked[0] <= answer.start
        return marked or (answer.kind == "whole" and self._broken_until <= answer.start)

    def _marked(self) -> tuple[int, int] | None:
        end = len(self.text) if self.thinking_from is None else self.thinking_from
        found = None
        position = self.visible_from
        while begin := _MARK_BEGINS.search(self.text, position, end):
            match = _MARKED.match(self.text, begin.start(), end)
            if match is None:
                break
            found, position = match, match.end()
        return found.span(found.lastgroup or 0) if found else None

    def tagged(self, expect: Expect) -> AnswerCandidate | None:
        """The answer in tags of a model family: in the marked part, or anywhere."""
        spans = [self.marked] if self.marked else []
        for start, end in (*spans, (self.visible_from, self.thinking_from or len(self.text))):
            if entries := markup.read(self.text[start:end], expect):
                return AnswerCandidate("entries", Array(entries), (), start, end, complete=True)
        return None

    def prose(self, expect: Expect) -> AnswerCandidate | None:
        """The answer in plain words: in the marked part, or else as the whole text."""
        for item in self.found:
            if item.keys or (isinstance(item, Document) and isinstance(item.node, Object)):
                return None
        start, end = self.marked or (self.visible_from, self.thinking_from or len(self.text))
        if end - start > prose.MAX_TEXT:
            return None
        text = _SPECIAL_TOKEN.sub("", self.text[start:end])
        targets = prose.read(text, expect, marked=self.marked is not None)
        if targets is None:
            return None
        return AnswerCandidate("entries", targets, (), start, end, complete=True)


def _answer(node: Array | Object, expect: Expect, start: int, end: int) -> AnswerCandidate | None:
    """The answer in a document, if any."""
    whole = AnswerCandidate("whole", None, (), start, end, node.complete)
    if isinstance(node, Array):
        return _list_answer(node, expect, whole)
    named = node.key(TARGETS)
    listed = node.complete and _list_name(node, expect)
    if named and not (isinstance(node.entries[named], str) and (listed or is_entry(node, expect))):
        _check_consistent(node, node.entries[named])
        return replace(whole, targets=node.entries[named], context=(node,), named=True)
    if listed and (targets := selection.chosen(node, listed)) is not None:
        return replace(whole, targets=targets, context=(node,))
    tool = node.first(("name", "tool", "action"))
    if isinstance(tool, str) and node.key(_CALLS) and _LOOKING.search(tool[:100].lower()):
        return None
    inside = node.first(_WRAPPERS)
    if isinstance(inside, Array | Object):
        inner = _answer(inside, expect, start, end)
        if inner and (node.complete or inner.kind == "whole"):
            kind = "whole" if inner.kind == "bare" or not node.key(_CALLS) else inner.kind
            context = (*inner.context, node)
            return replace(inner, kind=kind, context=context, complete=node.complete)
    return _keyed_answer(node, expect, whole, listed) if node.complete else None


def _list_name(node: Object, expect: Expect) -> str:
    """The key of a list of entries that is not called targets."""
    for name in _LISTS:
        value = node.entries.get(name)
        if isinstance(value, Array) and all(
            isinstance(item, Object) and is_entry(item, expect) for item in value.items
        ):
            return name if value.items or not node.key(selection.LABEL) else ""
    return ""


def _keyed_answer(
    node: Object, expect: Expect, whole: AnswerCandidate, listed: str | Literal[False]
) -> AnswerCandidate | None:
    """The answer in an object that has no "targets" key."""
    whole = replace(whole, context=(node,))
    if listed == "candidates" and len(node.entries[listed].items) > 1:  # type: ignore[union-attr]
        raise Unreadable("the reply lists candidates without a choice")
    if listed:
        return replace(whole, targets=node.entries[listed])
    if _says(node, present=False) or _no_region(node, expect):
        return replace(whole, absent=True)
    if is_entry(node, expect):
        return replace(whole, kind="entry", targets=node)
    targets = keys.labelled(node, expect)
    return replace(whole, targets=targets) if targets else None


def _list_answer(node: Array, expect: Expect, whole: AnswerCandidate) -> AnswerCandidate | None:
    """The answer in a list at top level."""
    first = node.items[0] if node.items else None
    if len(node.items) == 1 and isinstance(first, Object) and first.key((*TARGETS, *_CALLS)):
        return _answer(first, expect, whole.start, whole.end)
    if any(isinstance(item, Object) and is_entry(item, expect) for item in node.items):
        return replace(whole, kind="entries", targets=node)
    if not node.items or is_flat(node) or all(isinstance(item, Array) for item in node.items):
        return replace(whole, kind="bare", targets=node)
    return None


def _no_region(node: Object, expect: Expect) -> bool:
    """Whether it is `{"rows": [], "columns": []}`, which means absent in the paper, or no mark."""
    names = {"bands": (ROWS, COLUMNS), "marks": (keys.SURE_MARKS,)}.get(expect, ())
    found = [node.first(name) for name in names]
    return bool(found) and all(isinstance(value, Array) and not value.items for value in found)


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
        part = answer.kind == "entry" or (answer.kind == "bare" and is_number_list(answer.targets))
        alike = last and part and last.kind == answer.kind and not last.is_empty
        if last and alike and _GAP.fullmatch(text, last.end, answer.start):
            runs[-1].append(answer)
        else:
            runs.append([answer])
    return [choice.joined(run, run[0].kind) if len(run) > 1 else run[0] for run in runs]


def _stands_alone(answer: AnswerCandidate, text: str) -> bool:
    """Whether a bare list is the whole reply, or alone on its lines or in a fence or tag."""
    before = text[max(0, answer.start - _NEARBY) : answer.start]
    before = before if answer.start <= _NEARBY else "." + before
    return bool(_ALONE_BEFORE.search(before) and _ALONE_AFTER.match(text, answer.end))


def _chosen(answers: list[AnswerCandidate], scan: Scan) -> AnswerCandidate:
    """The answer that counts: of the complete ones, or the last one that was cut off."""
    complete = [answer for answer in answers if answer.complete]
    if not complete:
        return answers[-1]
    named = [answer for answer in complete if answer.named]
    last = answers[-1]
    if not named and last.named:
        raise Unreadable("the reply was cut off inside its answer")
    chosen = choice.resolved(named or complete, scan.text, scan.visible_from)
    later = [answer for answer in complete if not answer.named and answer.start >= chosen.end]
    if named and later and choice.corrects(scan.text, chosen, later[-1]):
        raise Unreadable("the reply corrects its answer without the key of the answer")
    if not named and not chosen.is_empty and prose.denies(scan.text[chosen.end :]):
        raise Unreadable("the reply gives a place and then says that there is no target")
    if chosen.is_empty and any(i.start >= chosen.end and _is_unread(i) for i in scan.found):
        raise Unreadable("the reply says that there is no target and then begins another answer")
    return chosen


def _is_unread(item: Document | Broken) -> bool:
    if isinstance(item, Broken):
        return bool(item.keys & keys.ANSWER)
    return not item.node.complete
