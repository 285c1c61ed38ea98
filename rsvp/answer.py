"""Questions about an image: look again at what matters, enlarged, then answer.

The MLLM sees the image and the question and says what it wants to see more closely, or answers at
once. What it names is segmented as in `rsvp segment`, and shown again as a new turn. Source:
Y. Wei et al., Segmentation before Answering (SegAnswer), without its training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rsvp import looks, prompting
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.errors import BadInput, BudgetExceeded, UnparsableReply
from rsvp.images import shrink
from rsvp.masks import mask_to_box
from rsvp.parsing.answers import LETTERS, ParsedAnswer, choose, parse_answer
from rsvp.prompt_config import PromptConfig
from rsvp.reasoning import ReasoningOutput, not_asked
from rsvp.request import Request
from rsvp.strategies.base import STRING, Schema, array, record
from rsvp.types import (
    BoolMask,
    Box,
    Look,
    Reasoning,
    Reply,
    RgbArray,
    Segmentation,
    Step,
    Target,
)

ZOOMS = ("none", "box", "mask", "sparse")
DEFAULT_ZOOM, DEFAULT_BACKGROUND = "mask", "mean"
DEFAULT_LOOKS = 2
NO_CHOICE = "the answer {!r} is none of the choices"
ASKED_AGAIN = "the MLLM first answered {!r}, which is none of the choices, and was asked to choose"

Segment = Callable[[Request, Dialogue], Segmentation]


@dataclass(frozen=True, slots=True)
class Zoom:
    """How a closer look is shown.

    Attributes:
        mode: "none" (no looks), "box" (the enlarged window), "mask" (in it nothing but the masks),
            "sparse" (only the patches that the masks touch, at their places in the whole image).
        background: what takes the place of the rest, one of `rsvp.looks.BACKGROUNDS`.
    """

    mode: str = DEFAULT_ZOOM
    background: str = DEFAULT_BACKGROUND

    @classmethod
    def parse(cls, text: str) -> Zoom:
        """Read ``box`` or ``mask:white``; BadInput lists what is known."""
        mode, colon, background = text.partition(":")
        if mode not in ZOOMS or (colon and (mode != "mask" or background not in looks.BACKGROUNDS)):
            known = f"{', '.join(ZOOMS)} or mask:{'|'.join(looks.BACKGROUNDS)}"
            raise BadInput(f"zoom is {known}, found {text!r}")
        return cls(mode, background or DEFAULT_BACKGROUND)


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question about an image. Made by `make_answer_request`, which checks everything.

    Attributes:
        request: the image, the question as its query, and regions or hints of the user's own.
        choices: what the answer is chosen from; none for a free answer.
        looks: how many closer looks the MLLM may ask for, at most.
        blind: ask without showing the image.
    """

    request: Request
    choices: tuple[str, ...] = ()
    zoom: Zoom = field(default_factory=Zoom)
    looks: int = DEFAULT_LOOKS
    blind: bool = False


@dataclass(frozen=True, slots=True)
class AnswerOutput:
    """What the dialogue gave.

    Attributes:
        output: the steps (why each look was asked for, with the boxes that it found), the reason,
            the last reply, the first picture, and what it all cost.
        answer: as the model wrote it, or the chosen one's own words.
        choice: index of the chosen one; None without choices, or where the answer is none of them.
        warnings: about the looks.
    """

    output: ReasoningOutput
    answer: str = ""
    choice: int | None = None
    looks: tuple[Look, ...] = ()
    warnings: tuple[str, ...] = ()


def make_answer_request(
    request: Request,
    choices: Sequence[str] | None = None,
    *,
    zoom: str | Zoom = DEFAULT_ZOOM,
    looks: int = DEFAULT_LOOKS,
    blind: bool = False,
) -> AnswerRequest:
    """Check a question; BadInput where it, the choices, the zoom or the looks cannot be used."""
    if not request.query.strip():
        raise BadInput("the question is empty")
    given = tuple(str(choice).strip() for choice in choices or ())
    if choices is not None and (not all(given) or not 2 <= len(set(given)) <= len(LETTERS)):
        raise BadInput(f"choices are 2 to {len(LETTERS)} different texts, found {list(given)}")
    if len(set(given)) < len(given):
        raise BadInput(f"two choices are the same: {list(given)}")
    if looks < 0:
        raise BadInput(f"looks is 0 or more, found {looks}")
    shown = Zoom.parse(zoom) if isinstance(zoom, str) else zoom
    if request.prompts and shown.mode == "none":
        raise BadInput("boxes and points are what is looked at: take zoom box or mask")
    return AnswerRequest(request, given, shown, looks, blind)


def question_variables(question: str, choices: Sequence[str] = ()) -> dict[str, str]:
    """The prompts' variables of a question.

    The compact profile has `question` and `choices`; the full one has both, the choices with
    letters, as the data of its `query`.
    """
    lettered = [f"({letter}) {text}" for letter, text in zip(LETTERS, choices, strict=False)]
    return {
        "question": question,
        "choices": prompting.choice_list(choices),
        "query": "\n".join((question, *lettered)),
    }


def answer_prompt_names(profile: str) -> tuple[str, ...]:
    """The names of all prompts that a question may be asked with."""
    names = ("system.answer", "look", "look.again", "answer", "reask.look", "reask.answer")
    seen = (f"seen.{what}" for what in ("box", "mask", "sparse", "nothing", "large"))
    return prompting.existing(profile, *names, *seen)


def answer_question(
    asked: AnswerRequest, dialogue: Dialogue, config: PromptConfig, segment: Segment
) -> AnswerOutput:
    """Ask, look where the MLLM wants to, and ask again until it answers.

    Args:
        segment: segments a request; what it asks the MLLM, it asks in the dialogue.

    Raises:
        UnparsableReply, BudgetExceeded: see `Dialogue.ask`.
    """
    question, unknown = config.read_query(asked.request.query)
    if unknown or not question:
        return AnswerOutput(not_asked(asked.request.query, unknown, dialogue))
    return _Conversation(asked, question, dialogue, config, segment).run()


class _Conversation:
    """The turns of one question."""

    def __init__(
        self,
        asked: AnswerRequest,
        question: str,
        dialogue: Dialogue,
        config: PromptConfig,
        segment: Segment,
    ) -> None:
        self.asked, self.dialogue, self.config, self.segment = asked, dialogue, config, segment
        self.profile, self.single_turn = config.family.profile, config.family.single_turn
        self.variables = question_variables(question, asked.choices)
        image = asked.request.image
        self.side = config.family.view_side(image.height, image.width)
        self.view = None if asked.blind else shrink(image.rgb, self.side)
        self.sparse: tuple[RgbArray, BoolMask] | None = None  # what the last look shows, and where
        self.looks: list[Look] = []
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        self.replies: list[Reply] = []

    def run(self) -> AnswerOutput:
        """The whole dialogue."""
        asked, choices = self.asked, self.asked.choices
        most = 0 if asked.zoom.mode == "none" or asked.blind else asked.looks
        first = () if self.view is None else (self.view,)
        if most and asked.request.prompts:
            found = self.segment(asked.request, self.dialogue).targets
            names = ", ".join(dict.fromkeys(t.label for t in found))
            parsed = self._after(self._look(names, found), 0, before=first)
        else:
            parsed = self._ask("look" if most else "answer", first)
        while parsed.look:
            found = tuple(target for name in parsed.look for target in self._find(name))
            self.steps.append(Step(parsed.reason, tuple(t.box for t in found)))
            parsed = self._after(self._look(", ".join(parsed.look), found), most - len(self.looks))
        choice = choose(parsed.answer, choices) if choices else None
        if choices and choice is None and parsed.understood:
            self.warnings.append(NO_CHOICE.format(parsed.answer))
        answer = parsed.answer if choice is None else choices[choice]
        return AnswerOutput(
            self._output(parsed), answer, choice, tuple(self.looks), tuple(self.warnings)
        )

    def _output(self, parsed: ParsedAnswer) -> ReasoningOutput:
        last, familiar = self.replies[-1], self.replies[0].familiarity
        understood = parsed.understood and (familiar is None or familiar >= 0)
        reasoning = Reasoning(tuple(self.steps), (), parsed.reason, last.text, understood)
        return ReasoningOutput(
            self.asked.request.query,
            reasoning,
            self.dialogue.budget.usage,
            self.dialogue.prompt_sha256,
            familiarity=familiar,
            finish_reason=last.finish_reason,
            shown=self.view,
        )

    def _find(self, name: str) -> tuple[Target, ...]:
        """The targets that a name stands for; a reply that cannot be read finds none."""
        part, where = replace(self.asked.request, query=name), f"looking for {name!r}"
        try:
            found = self.segment(part, self.dialogue.branch(self.config.profile))
        except UnparsableReply as error:
            self.warnings.append(f"{where}: {error}")
            return ()
        self.warnings += [f"{where}: {warning}" for warning in found.warnings]
        if not found.targets:
            self.warnings.append(f"{where}: nothing was found")
        return found.targets

    def _look(self, query: str, found: Sequence[Target]) -> Look:
        """Make the picture of a look at some targets, if they have pixels, and keep it."""
        rgb, mode = self.asked.request.image.rgb, self.asked.zoom.mode
        bounds = Box(0, 0, rgb.shape[1], rgb.shape[0])
        boxes = [box for t in found if (box := mask_to_box(t.mask))]
        look, self.sparse = Look(query, tuple(found)), None
        if boxes and mode == "sparse":
            kept = np.logical_or.reduce([t.mask for t in found])
            whole, cells, picture = looks.sparse_picture(
                rgb, kept, self.side, self.config.family.multiple
            )
            self.sparse = (whole, cells)
            window = looks.look_window(boxes, bounds, padding=0, square=False)
            look = replace(look, box=window, picture=picture)
        elif boxes:
            window = looks.look_window(boxes, bounds)
            kept = np.logical_or.reduce([t.mask for t in found]) if mode == "mask" else None
            in_view = min(1.0, self.side / max(rgb.shape[:2]))
            if kept is not None or (
                looks.look_scale(window, self.side) >= looks.LEAST_GAIN * in_view
            ):
                picture = looks.look_picture(
                    rgb, window, self.side, kept, self.asked.zoom.background
                )
                look = replace(look, box=window, picture=picture)
        self.looks.append(look)
        return look

    def _after(self, look: Look, left: int, before: tuple[RgbArray, ...] = ()) -> ParsedAnswer:
        """Show a look, or say why there is nothing to show, and ask again.

        Args:
            left: how many more looks the MLLM may ask for.
            before: what it was not shown yet.
        """
        seen = self.asked.zoom.mode
        if look.picture is None:
            seen = "large" if any(t.packed.area for t in look.targets) else "nothing"
        shown = self.sparse[0] if self.sparse else look.picture
        images = (*before, *(() if shown is None else (shown,)))
        if self.single_turn:  # it sees one picture in a turn
            shown = self.view if shown is None else shown
            images = () if shown is None else (shown,)
        again = left > 0 and prompting.exists(f"{self.profile}/look.again")
        observed = {"number": len(self.looks), "things": look.query, "looks_left": _times(left)}
        return self._ask("look.again" if again else "answer", images, f"seen.{seen}", observed)

    def _ask(
        self,
        what: str,
        images: tuple[RgbArray, ...],
        seen: str = "",
        observed: dict[str, Any] | None = None,
    ) -> ParsedAnswer:
        """Ask one question; `what` and `seen` are names of prompts."""
        variables = {**self.variables, **(observed or {})}
        names = prompting.existing(self.profile, seen, what)
        may_look, others = what != "answer", list[ParsedAnswer]()

        def reask(problem: str) -> ChatRequest:
            form = "look" if may_look else "answer"
            name = f"{self.profile}/reask.{form}"
            if not prompting.exists(name):  # the model gets the simpler question
                name = f"{self.profile}/answer"
            text = prompting.render(name, **variables, problem=problem)
            held = _schema(may_look, self.asked.choices)
            return ChatRequest((*(images if self.single_turn else ()), text), (name,), held)

        def read(reply: Reply) -> ParsedAnswer:
            self.replies.append(reply)
            parsed = self._read(reply.text, may_look)
            choices = self.asked.choices if parsed.answer else ()
            if choices and choose(parsed.answer, choices) is None:
                others.append(parsed)
                raise UnparsableReply(NO_CHOICE.format(parsed.answer[:60]), reply.text)
            return parsed

        text = "\n\n".join(prompting.render(name, **variables) for name in names)
        try:
            kept = self.sparse and self.sparse[1]
            first = ChatRequest((*images, text), names, _schema(may_look), kept)
            parsed = self.dialogue.ask(first, read, reask)
        except (UnparsableReply, BudgetExceeded):
            if not others:
                raise
            return others[-1]  # better than nothing
        if others and not parsed.look:
            self.warnings.append(ASKED_AGAIN.format(others[0].answer[:60]))
        return parsed

    def _read(self, text: str, may_look: bool) -> ParsedAnswer:
        said = self.asked.choices and choose(text, self.asked.choices) is not None
        parsed = parse_answer(text, prose=bool(said) or not (may_look or self.asked.choices))
        if parsed.look and not may_look:
            raise UnparsableReply("there are no more looks: give the answer", text)
        return parsed


def _schema(may_look: bool, choices: Sequence[str] = ()) -> Schema:
    """Of a reply; with choices, its answer is the letter or the words of one."""
    answer: Schema = {"type": ["string", "null"]} if may_look else dict(STRING)
    if choices:
        letters = [f"({letter})" for letter in LETTERS[: len(choices)]]
        answer["enum"] = [*dict.fromkeys((*letters, *choices)), *([None] if may_look else [])]
    look = {"look": array(STRING)} if may_look else {}
    return record({"reason": STRING, **look, "answer": answer})


def _times(left: int) -> str:
    return "once" if left == 1 else f"{left} times"
