"""Chooses between several answers in one reply, by the words before each of them.

An example, a remark or a quoted query is no answer beside one; a correction replaces what stands
before it; answers to different targets that only headings separate belong together. All other
answers that differ contradict each other, so that the model is asked again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rsvp.parsing import keys
from rsvp.parsing.lenient_json import Array, Node, Object
from rsvp.parsing.values import Unreadable

_LEAD = 200
_EXAMPLE = re.compile(
    r"\b(?:for example|for instance|for reference|e\.g|such as|hypothetical\w*|placeholder)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|had|would|were|suppose|otherwise|could have|when)\b", re.IGNORECASE
)
_REMARK = re.compile(
    r"\b(?:example|schema|template|prompt|query|question|instructions?|whereas|unlike|differs?|not"
    r"|reject\w*|ignor\w*|considered|user|human|assistant|q:)",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:wait|correct\w*|actually|reflection|revis\w+|final\w*|mistake|sorry|updated?|rather"
    r"|instead|scratch|in fact|check\w*|look\w* again|closer|oops|hmm+|answer|therefore|so|thus)\b",
    re.IGNORECASE,
)
# Headings between the parts of one answer.
_HEADING = re.compile(
    r"targets?|objects?|item|box|bounding|mask|instance|first|second|third|fourth|fifth|next|another"
    r"|also|and|then|the|a|one|two|three|four|left|right|top|bottom|upper|lower|middle|cent(?:er|re)"
    r"|front|back|side|number|no|of|json|here|is|for|in|on"
)
_WORD = re.compile(r"[^\W\d_]+")
_TAG = re.compile(r"</?\w{1,20}>|```\w{0,20}")
_MAX_HEADING = 100


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


def corrects(text: str, chosen: AnswerCandidate, later: AnswerCandidate) -> bool:
    """Whether the words before a later answer say that it corrects the chosen one."""
    lead = _lead(text, later, chosen.end)
    return bool(_CORRECTION.search(lead)) and not (_CONDITION.search(lead) or _EXAMPLE.search(lead))


def resolved(answers: list[AnswerCandidate], text: str, after: int) -> AnswerCandidate:
    """One answer of several that are complete.

    Args:
        after: where the text begins that the user was meant to see.

    Raises:
        Unreadable: there are only examples, or the answers differ.
    """
    leads: list[str] = []
    for answer in answers:
        leads.append(_lead(text, answer, after))
        after = answer.end
    found = [pair for pair in zip(answers, leads, strict=True) if not _EXAMPLE.search(pair[1])]
    if len(answers) > 1:
        found = [(answer, lead) for answer, lead in found if not keys.is_form(answer.targets)]
    if not found:
        raise Unreadable("the reply holds only an example of an answer")
    if len(found) > 1:
        found = [pair for pair in found if not _is_remark(pair[1])] or found
    kept: list[AnswerCandidate] = []
    for answer, lead in found:
        if kept and _CORRECTION.search(lead) and not _REMARK.search(lead):
            kept = []
        elif kept and not _equal(answer, kept[-1]) and not _is_heading(lead, answer):
            raise Unreadable("the reply holds several answers that differ")
        if not kept or answer.is_empty or not _equal(answer, kept[-1]):
            kept.append(answer)
    return kept[0] if len(kept) == 1 else _united(kept)


def _lead(text: str, answer: AnswerCandidate, after: int) -> str:
    """The words right before an answer."""
    return text[max(after, answer.start - _LEAD) : answer.start]


def _is_remark(lead: str) -> bool:
    if _CONDITION.search(lead):
        return True
    return bool(_REMARK.search(lead)) and not _CORRECTION.search(lead)


def _equal(one: AnswerCandidate, other: AnswerCandidate) -> bool:
    return one.targets == other.targets and one.is_empty == other.is_empty


def _is_heading(lead: str, answer: AnswerCandidate) -> bool:
    """Whether the words only say that another part follows."""
    words = {word.lower() for word in _WORD.findall(_TAG.sub(" ", lead))}
    own = {word for label in keys.labels(answer.targets) for word in _WORD.findall(label)}
    return len(lead) <= _MAX_HEADING and all(
        word in own or _HEADING.fullmatch(word) for word in words
    )


def _united(answers: list[AnswerCandidate]) -> AnswerCandidate:
    """Several answers, one a target, as one; only where they do not contradict each other."""
    empty = [answer.is_empty for answer in answers]
    if all(empty):
        return answers[-1]
    if any(empty) or any(answer.kind == "bare" for answer in answers):
        raise Unreadable("the reply holds several answers that differ")
    if any(answer.kind == "whole" for answer in answers):
        labels: set[str] = set()
        for answer in answers:
            own = keys.labels(answer.targets)
            if not own or own & labels:
                raise Unreadable("the reply holds several answers that differ")
            labels |= own
    return joined(answers, answers[0].kind)


def joined(answers: list[AnswerCandidate], kind: str) -> AnswerCandidate:
    """The targets of several answers as one list."""
    targets: list[Node] = []
    for answer in answers:
        listed = answer.kind in ("whole", "entries") and isinstance(answer.targets, Array)
        targets += answer.targets.items if listed else [answer.targets]  # type: ignore[union-attr]
    return AnswerCandidate(
        "bare" if kind == "bare" else "entries",
        Array(targets),
        tuple(node for answer in answers for node in answer.context if answer.kind == "whole"),
        answers[0].start,
        answers[-1].end,
        answers[-1].complete,
        named=answers[0].named,
    )
