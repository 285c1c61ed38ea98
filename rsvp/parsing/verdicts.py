"""Reads replies about masks: a verdict on each target, what is missing, which of two is better."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rsvp.parsing import keys
from rsvp.parsing.lenient_json import Array, Node, Object
from rsvp.parsing.reply import MAX_TARGETS, EntryReader, RawTarget, is_cut, label_of, read_reply
from rsvp.parsing.search import find_object
from rsvp.parsing.values import Unreadable, preview, whole

ACCEPT, CORRECT, REJECT = "accept", "correct", "reject"
_VERDICTS = ("verdicts", "verdict_list", "judgements", "judgments", "results")
_MISSING = ("missing", "missed", "missing_targets", "add")
_NUMBER = ("target", "number", "id", "mark", "index", "object")
_VERDICT = ("verdict", "decision", "judgement", "judgment", "action", "status")
_BETTER = ("better", "best", "picture", "choice", "answer")
_WORDS = {
    **dict.fromkeys(("accept", "accepted", "keep", "ok", "okay", "right", "yes", "true"), ACCEPT),
    **dict.fromkeys(("correct", "fix", "adjust", "refine", "move", "revise"), CORRECT),
    **dict.fromkeys(("reject", "rejected", "remove", "delete", "wrong", "no", "false"), REJECT),
}
_DIGITS = re.compile(r"\D{0,20}([0-9]{1,4})\D{0,20}")


@dataclass(frozen=True, slots=True)
class RawVerdict:
    """A verdict as the model wrote it.

    Attributes:
        target: the number on the target's tag.
        verdict: "accept", "correct" or "reject".
        region: of a correction: its label, and the right box or points in the model's own frame,
            of which one may be missing.
    """

    target: int
    verdict: str
    reason: str = ""
    region: RawTarget | None = None


@dataclass(frozen=True, slots=True)
class ParsedVerdicts:
    """The content of a reply; `warnings` say what was left out."""

    verdicts: tuple[RawVerdict, ...]
    missing: tuple[RawTarget, ...]
    warnings: tuple[str, ...] = ()


def parse_verdicts(text: str, numbers: Collection[int], *, y_first: bool = False) -> ParsedVerdicts:
    """Read a reply.

    Args:
        numbers: of the targets that were asked about. Others are left out with a warning.
        y_first: see `rsvp.parsing.parse_reply`.

    Raises:
        UnparsableReply: it holds no verdict on any of them, two on one, or one that is none.
    """
    return read_reply(text, lambda bare: _VerdictReader(numbers, y_first).read(bare))


def parse_better(text: str) -> int:
    """Which of two pictures a reply prefers: 1, 2, or 0 for none.

    Raises:
        UnparsableReply: it does not say.
    """

    def read(bare: str) -> int:
        node = find_object(
            bare,
            lambda n: n if isinstance(n, Object) and n.key(_BETTER) else None,
            'JSON with "better"',
        )
        found = _whole(node.first(_BETTER))
        if found not in (0, 1, 2):
            raise Unreadable(f'"better" is 1, 2 or 0, found {preview(node.first(_BETTER))}')
        return found

    return read_reply(text, read)


class _VerdictReader:
    def __init__(self, numbers: Collection[int], y_first: bool) -> None:
        self._numbers = numbers
        self._readers = [EntryReader("box", y_first), EntryReader("points", y_first)]
        self._warnings: list[str] = []

    def read(self, text: str) -> ParsedVerdicts:
        """The verdicts in a text; Unreadable where they cannot be used."""
        node = find_object(text, _verdicts_of, 'JSON "verdicts"')
        found: dict[int, RawVerdict] = {}
        for item in _items(node.first(_VERDICTS)):
            one = self._verdict(item)
            if one.target not in self._numbers:
                self._warnings.append(f"there is no target {one.target} to judge")
            elif found.setdefault(one.target, one).verdict != one.verdict:
                raise Unreadable(f"there are two verdicts on target {one.target}")
        if self._numbers and not found:
            raise Unreadable(f"there is no verdict on target {min(self._numbers)}")
        missing = tuple(self._missing(node.first(_MISSING)))
        return ParsedVerdicts(tuple(found.values()), missing, tuple(self._warnings))

    def _verdict(self, item: Object) -> RawVerdict:
        target = _whole(item.first(_NUMBER))
        if target is None:
            raise Unreadable(f"{preview(item)} does not say which target it is about")
        where = f"target {target}"
        word = item.first(_VERDICT)
        word = {True: "yes", False: "no"}.get(word, word) if isinstance(word, bool) else word
        verdict = _WORDS.get(word.strip(" .!").lower()) if isinstance(word, str) else None
        if verdict is None:
            raise Unreadable(
                f'{where}: "verdict" is accept, correct or reject, found {preview(word)}'
            )
        reason = item.first(keys.REASON)
        region = self._region(item, where) if verdict == CORRECT else None
        return RawVerdict(target, verdict, reason if isinstance(reason, str) else "", region)

    def _region(self, item: Object, where: str) -> RawTarget:
        """The label and region of a correction, of which one may be missing."""
        # A target's number is neither its label nor a place.
        rest = {name: value for name, value in item.entries.items() if name not in _NUMBER}
        node = Object(rest)
        found = self._entries(node, where)
        if len(found) > 1:
            raise Unreadable(f"{where} has several boxes: give the one of this target")
        label = label_of(node)
        if not found and not label:
            raise Unreadable(f'{where} is to be corrected and has no box: give it, or "accept"')
        return found[0] if found else RawTarget(label)

    def _missing(self, node: Node) -> Iterator[RawTarget]:
        items = node.items if isinstance(node, Array) else [node]
        if len(items) > MAX_TARGETS:
            raise Unreadable(f"more than {MAX_TARGETS} targets are missing")
        for item in items:
            if item is None or item == "" or isinstance(item, bool) or is_cut(item):
                continue
            found = self._entries(item, "a missing target") if isinstance(item, Object) else []
            if not found:
                self._warnings.append(f"no place was given for what is missing: {preview(item)}")
            yield from found

    def _entries(self, node: Object, where: str) -> list[RawTarget]:
        for reader in self._readers:
            if keys.has_region(node, reader.expect):
                try:
                    return reader.entry(node)
                except Unreadable as error:
                    raise Unreadable(f"{where}: {error}") from None
        return []


def _verdicts_of(node: Node) -> Object | None:
    """An object with verdicts; a list of them, or a single one, is taken as such."""
    if isinstance(node, Object) and node.key((*_VERDICTS, *_MISSING)):
        return node
    listed: list[Node] = node.items if isinstance(node, Array) else [node]
    judged = all(isinstance(i, Object) and i.key(_VERDICT) and i.key(_NUMBER) for i in listed)
    return Object({_VERDICTS[0]: Array(listed)}, not is_cut(node)) if listed and judged else None


def _items(node: Node) -> Iterator[Object]:
    """The entries of a list, or of an object whose keys are the targets' numbers."""
    if isinstance(node, Object) and not node.key(_VERDICT):
        for name, value in node.entries.items():
            own = value.entries if isinstance(value, Object) else {"verdict": value}
            yield Object({"target": name, **own})
        return
    for item in node.items if isinstance(node, Array) else [node]:
        if isinstance(item, Object) and item.complete:
            yield item


def _whole(node: Node) -> int | None:
    """A whole number, also in words such as `target 2`; None for anything else."""
    if isinstance(node, Array) and len(node.items) == 1:
        node = node.items[0]
    if isinstance(node, str) and (written := _DIGITS.fullmatch(node.strip())):
        return int(written[1])
    return whole(node)
