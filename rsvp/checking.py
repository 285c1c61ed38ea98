"""One question about masks: what the MLLM is shown of them, and its verdicts in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rsvp import prompting
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.drawing.checks import enlarged_target, marked_targets
from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import as_written
from rsvp.images import shrink
from rsvp.masks import mask_to_box
from rsvp.parsing import ParsedVerdicts, RawTarget, parse_better, parse_verdicts
from rsvp.parsing.verdicts import ACCEPT, CORRECT, REJECT
from rsvp.prompt_config import PromptConfig
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import View
from rsvp.strategies.base import (
    STRING,
    CoordinateMap,
    Schema,
    array,
    number_type,
    record,
    size_variables,
)
from rsvp.types import Image, Proposal, Reply, RgbArray, Target
from rsvp.views import frame_variables, sent_view

SMALL = 0.35  # of the image's longer side: targets whose box is shorter are enlarged


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on a target.

    Attributes:
        number: of the target among those that were shown, from 1.
        verdict: "accept", "correct" or "reject".
        correction: where a corrected target is.
    """

    number: int
    verdict: str
    reason: str
    correction: Proposal | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What one reply says; `warnings` are about what was left out."""

    decisions: tuple[Decision, ...]
    missing: tuple[Proposal, ...]
    warnings: tuple[str, ...] = ()


class MaskChecker:
    """Asks about the masks of one image and query.

    Each question is a conversation of its own that begins alike: servers keep what they read of it.

    Args:
        query: as the model is asked it.
        dialogue: whose model and budget are used.
    """

    def __init__(self, image: Image, query: str, dialogue: Dialogue, config: PromptConfig) -> None:
        self.image, self.dialogue, self.config = image, dialogue, config
        self.profile = config.profile
        self.view = sent_view(image, query, _PlainImage(), config, dialogue.mllm)
        self.variables = {**frame_variables(self.view, config.frame), "query": query}

    def ask(self, targets: Sequence[Target], asked: Sequence[int]) -> Checked:
        """Show targets, numbered from 1, and ask for verdicts on those of the numbers `asked`.

        Raises:
            UnparsableReply, BudgetExceeded, MLLMFailed: see `Dialogue.ask`.
        """
        dialogue = self.dialogue.branch(self.profile, "system.verify")
        request = self._request(targets, asked)
        again = f"{self.profile}/reask.verify"

        def read(reply: Reply) -> Checked:
            frame = replace(self.config.frame, resized=reply.resized)
            numbers = range(1, len(targets) + 1)
            parsed = parse_verdicts(reply.text, numbers, y_first=frame.y_first)
            regions = [v.region for v in parsed.verdicts if v.region] + list(parsed.missing)
            groups = [g for raw in regions for g in (raw.box, *raw.points, *raw.negative) if g]
            try:
                size = (self.image.height, self.image.width)
                place = CoordinateMap(as_written(groups, frame), self.view, size)
                return _placed(parsed, place, targets)
            except BadInput as error:
                raise UnparsableReply(str(error), reply.text) from error

        def reask(problem: str) -> ChatRequest:
            if dialogue.single_turn or not prompting.exists(again):
                return request
            text = prompting.render(again, **self.variables, problem=problem)
            return ChatRequest((text,), (again,), request.schema)

        return dialogue.ask(request, read, reask)

    def is_better(self, new: Target, old: Target) -> bool:
        """Whether a candidate is preferred to what stands, in both orders; a tie keeps the old one.

        Raises:
            UnparsableReply, BudgetExceeded, MLLMFailed: see `Dialogue.ask`.
        """
        name = f"{self.profile}/compare"
        if not prompting.exists(name):
            return False
        boxes = [box for t in (old, new) if (box := mask_to_box(t.mask))]
        text = prompting.render(name, **self.variables)
        schema = record({"reason": STRING, "better": {"type": "integer", "enum": [0, 1, 2]}})
        for place, pair in ((2, (old, new)), (1, (new, old))):  # the place of the new one
            numbered = enumerate(pair, start=1)
            pictures = [enlarged_target(self.image.rgb, t, n, boxes) for n, t in numbered]
            asked = ChatRequest((self.view.rgb, text, *pictures), (name,), schema)
            dialogue = self.dialogue.branch(self.profile, "system.verify")
            if dialogue.ask(asked, lambda r: parse_better(r.text), lambda _: asked) != place:  # noqa: B023
                return False
        return True

    def _request(self, targets: Sequence[Target], asked: Sequence[int]) -> ChatRequest:
        """The question: the image, and what does not change between rounds, come first."""
        name = f"{self.profile}/verify"
        about = f"{self.profile}/verify.{'masks' if asked else 'none'}"
        text = prompting.render(name, **self.variables)
        marked = marked_targets(self.view.rgb, targets)
        if not prompting.exists(about):  # the embedded reasoner sees one picture
            return ChatRequest((marked, text), (name,), self._schema())
        pictures = (marked, *self._enlarged(targets, asked)) if targets else ()
        after = prompting.render(about, **self.variables, numbers=_listed(asked))
        return ChatRequest((self.view.rgb, text, *pictures, after), (name, about), self._schema())

    def _enlarged(self, targets: Sequence[Target], asked: Sequence[int]) -> Iterator[RgbArray]:
        """The small ones of the targets that are asked about."""
        longest = max(self.image.height, self.image.width)
        for number in asked:
            target = targets[number - 1]
            box = mask_to_box(target.mask) or target.box
            if max(box.width, box.height) < SMALL * longest:
                yield enlarged_target(self.image.rgb, target, number)

    def _schema(self) -> Mapping[str, object]:
        frame = self.config.frame
        box = array(number_type(fractions=frame.kind == "0-1"))
        verdict: dict[str, Schema] = {
            "target": {"type": "integer"},
            "verdict": {"type": "string", "enum": [ACCEPT, CORRECT, REJECT]},
            "reason": STRING,
            frame.box_key: {**box, "type": ["array", "null"]},
        }
        missing = array(record({"label": STRING, frame.box_key: box}))
        return record({"verdicts": array(record(verdict)), "missing": missing})


class _PlainImage:
    """Makes the view without anything drawn on it."""

    def view(
        self, image: Image, query: str = "", *, max_side: int, cache: EmbeddingCache | None = None
    ) -> View:
        del query, cache
        rgb = shrink(image.rgb, max_side)
        return View(rgb, size_variables(rgb))


def _placed(
    parsed: ParsedVerdicts, place: CoordinateMap[View], targets: Sequence[Target]
) -> Checked:
    """The verdicts with regions in pixels of the image; BadInput where one cannot be used."""
    decisions = [
        Decision(
            one.target,
            one.verdict,
            one.reason,
            _proposal(one.region, place, targets[one.target - 1]) if one.region else None,
        )
        for one in parsed.verdicts
    ]
    missing = tuple(_proposal(raw, place) for raw in parsed.missing)
    return Checked(tuple(decisions), missing, parsed.warnings)


def _proposal(raw: RawTarget, place: CoordinateMap[View], before: Target | None = None) -> Proposal:
    """Where a target is; a correction without a place, or without a label, keeps the old one."""
    box = place.box(raw.box) if raw.box else None
    points = tuple(place.point(pair) for pair in raw.points)
    if box is None and not points and before is not None:
        box = before.box
    label = raw.label or (before.label if before else "")
    numbers = raw.box or tuple(n for pair in raw.points for n in pair)
    return Proposal(label, box, points, raw=numbers)


def _listed(numbers: Sequence[int]) -> str:
    *others, last = [str(number) for number in numbers] or [""]
    return f"targets {', '.join(others)} and {last}" if others else f"target {last}"
