"""What `rsvp trace` finds: the steps of a reasoning path, and the objects that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsvp.types import BoolMask, Box, Mention, Segmentation, Target


@dataclass(frozen=True, slots=True)
class PathObject:
    """An object that a reasoning path names, where it names it.

    Attributes:
        label: what it is called there.
        number: of the target, from 1, the same wherever it returns; None where it is not grounded.
        target: its mask; None where the MLLM gave no usable place, or a hint rules it out.
    """

    label: str
    number: int | None = None
    target: Target | None = None

    @property
    def box(self) -> Box | None:
        return self.target.box if self.target else None

    @property
    def score(self) -> float | None:
        return self.target.score if self.target else None

    @property
    def presence(self) -> float | None:
        return self.target.presence if self.target else None

    @property
    def mask(self) -> BoolMask | None:
        """(H, W) bool."""
        return self.target.mask if self.target else None


@dataclass(frozen=True, slots=True)
class PathStep:
    """One step of a reasoning path, with the objects that it rests on."""

    text: str
    objects: tuple[PathObject, ...] = ()


@dataclass(frozen=True)
class TracedQuestion(Segmentation):
    """A question answered by a reasoning path; its targets are all objects, each once.

    Target k, from 0, is the object with the number k + 1.
    """

    @property
    def question(self) -> str:
        return self.query

    @property
    def answer(self) -> str:
        return self.reasoning.answer or ""

    @property
    def path(self) -> tuple[PathStep, ...]:
        """The steps; empty texts and objects are kept."""
        return tuple(PathStep(s.text, self._objects(s.objects)) for s in self.reasoning.steps)

    @property
    def answer_objects(self) -> tuple[PathObject, ...]:
        return self._objects(self.reasoning.answer_objects)

    @property
    def no_target(self) -> bool:
        """Whether the answer is that there is no such object."""
        return self.reasoning.no_target

    @property
    def not_grounded(self) -> int:
        """How many objects, of different labels, have no mask."""
        named = [one for step in self.path for one in step.objects]
        return len({o.label for o in (*named, *self.answer_objects) if o.target is None})

    def _objects(self, mentions: Sequence[Mention]) -> tuple[PathObject, ...]:
        return tuple(
            PathObject(m.label, m.number, None if m.number is None else self.targets[m.number - 1])
            for m in mentions
        )
