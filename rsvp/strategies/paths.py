"""The objects of a reasoning path: which mentions are the same one, and what contradicts itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rsvp.masks import box_iou
from rsvp.parsing.mentions import plain_label, written_number
from rsvp.types import Mention, Proposal

SAME_BOX = 0.7  # IoU of two boxes with the same label, from which on they are of one object
EQUAL_BOX = 0.95  # IoU of two boxes that are one place, whatever the labels
SAME_POINT = 0.02  # of the image's longer side: points of one object at most so far apart
_MAX_LABEL = 40  # characters of a label in a warning


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """An object where a step or the answer names it.

    Attributes:
        id: by which the model calls it, if it does; with marks, the number of its one mark.
        proposal: its place; None where it has no usable one.
    """

    label: str
    id: int | None = None
    proposal: Proposal | None = None


@dataclass(slots=True)
class ObjectList:
    """The objects of one path, each once, in the order in which they are first named.

    An object is the same where it has the same id, or the same label and place; without a place,
    where only one object has this label.

    Args:
        side: the image's longer side, pixels.

    Attributes:
        warnings: what the path contradicts itself in, a line each, with the step.
    """

    side: int
    proposals: list[Proposal] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _ids: list[int | None] = field(default_factory=list)
    _labels: list[str] = field(default_factory=list)

    def add(self, where: str, text: str, named: Sequence[PlacedObject]) -> tuple[Mention, ...]:
        """The objects of one step.

        Args:
            where: "step 2" or "the answer", which warnings begin with.
        """
        found: list[Mention] = []
        for one in named:
            number = self._number(where, one)
            label = one.label or ("" if number is None else self.proposals[number - 1].label)
            mention = Mention(label, number)
            if mention not in found:
                found.append(mention)
            written = None if one.id is None else written_number(text, one.label)
            if written not in (None, one.id):
                self._warn(where, f"the text calls {_quoted(label)} {written}, its object {one.id}")
        lost = [_quoted(mention.label) for mention in found if mention.number is None]
        if lost:
            self._warn(where, f"no usable place for {', '.join(lost)}: not grounded")
        return tuple(found)

    def _number(self, where: str, one: PlacedObject) -> int | None:
        if one.id is not None and one.id in self._ids:
            number = self._ids.index(one.id) + 1
            known = self.proposals[number - 1]
            moved = one.proposal is not None and not self._same_place(known, one.proposal)
            named = not one.label or plain_label(one.label) == self._labels[number - 1]
            pair = f"{_quoted(one.label)} and {_quoted(known.label)}"
            if moved and not named:
                self._warn(where, f"the number {one.id} is given to {pair}")
                return self._by_place(where, one)
            if moved:
                self._warn(where, f"object {number} ({_quoted(one.label)}) is in another place")
            elif not named:
                self._warn(where, f"object {number} is called {pair}")
            return number
        return self._by_place(where, one)

    def _by_place(self, where: str, one: PlacedObject) -> int | None:
        label, place = plain_label(one.label), one.proposal
        alike = [number for number, known in enumerate(self._labels, 1) if known == label]
        if place is None:
            return alike[0] if label and len(alike) == 1 else None
        for number in alike:
            if self._same_place(self.proposals[number - 1], place):
                return number
        for number, known in enumerate(self.proposals, 1):
            if self._same_place(known, place, EQUAL_BOX):
                pair = f"{_quoted(one.label)} and {_quoted(known.label)} (object {number})"
                self._warn(where, f"{pair} are in the same place")
                break
        self.proposals.append(place)
        self._labels.append(label)
        self._ids.append(None if one.id in self._ids else one.id)
        return len(self.proposals)

    def _same_place(self, a: Proposal, b: Proposal, least: float = SAME_BOX) -> bool:
        if a.box is not None and b.box is not None:
            return box_iou(a.box, b.box) >= least
        ends = [(p, q) for p in a.points for q in b.points if p.positive and q.positive]
        return any(math.dist((p.x, p.y), (q.x, q.y)) <= SAME_POINT * self.side for p, q in ends)

    def _warn(self, where: str, what: str) -> None:
        self.warnings.append(f"{where}: {what}")


def unmentioned(steps: Sequence[Sequence[Mention]], answer: Sequence[Mention]) -> Iterator[str]:
    """Warnings about objects of the answer that no step mentions."""
    known = {one.number for step in steps for one in step}
    for one in answer:
        if one.number is not None and one.number not in known:
            yield f"the answer: no step mentions object {one.number} ({_quoted(one.label)})"


def _quoted(label: str) -> str:
    return repr(label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1] + "…")
