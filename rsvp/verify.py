"""After stage 2: the MLLM looks at the masks and accepts, corrects or rejects each.

A round shows the image with the targets' outlines and numbers, small targets once more enlarged;
the MLLM gives a verdict on each and says once what is missing. Corrections and what was missing go
through the segmenter, which encodes the image once. The next round asks about what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from rsvp import prompting
from rsvp.checking import Decision, MaskChecker
from rsvp.dialogue import Dialogue
from rsvp.errors import BadInput, MLLMFailed, UnparsableReply
from rsvp.masks import box_iou, mask_iou, mask_to_box
from rsvp.parsing.verdicts import ACCEPT, REJECT
from rsvp.prompt_config import PromptConfig
from rsvp.request import Request
from rsvp.types import Proposal, Reasoning, RoundCost, Target, Verdict

ADD = "add"
MAX_TARGETS = 12  # that one question is about; the embedded reasoner knows no higher numbers
SAME_MASK = 0.9  # IoU of two masks of one object that differ in nothing that matters
SAME_OBJECT = 0.8  # IoU of the masks of two targets that are one object
FOUND = 0.5  # IoU with a target from which on nothing is missing there

Segment = Callable[[Sequence[Proposal]], Mapping[int, Target]]
"""The targets by the index of their proposal; those that a hint rules out are missing."""


@dataclass(frozen=True, slots=True)
class ClearCases:
    """What decides a target without a call; see docs/verify.md for how these were measured.

    Attributes:
        presence: of the label in the box, at least, where the segmenter reads labels.
        score: the predicted IoU, at least.
        agreement: IoU of the proposal's box with the mask's own, at least.
    """

    presence: float = 0.9
    score: float = 0.9
    agreement: float = 0.8

    def accepts(self, target: Target) -> bool:
        """Whether everything says that the mask is what its label and box mean."""
        box = mask_to_box(target.mask)
        return (
            box is not None
            and target.presence is not None
            and target.presence >= self.presence
            and target.score >= self.score
            and box_iou(box, target.box) >= self.agreement
        )


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How masks are verified.

    Attributes:
        rounds: at most; 0 for none.
        clear: which cases are decided without a call; None asks about all.
        batch: targets that one call judges, at most.
    """

    rounds: int = 0
    clear: ClearCases | None = ClearCases()
    batch: int = MAX_TARGETS

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise BadInput(f"verify is a number of rounds, 0 or more, found {self.rounds}")
        if self.batch < 1:
            raise BadInput(f"a call judges at least 1 target, found {self.batch}")

    @classmethod
    def of(cls, verify: int | VerifyOptions) -> VerifyOptions:
        """The options, from a number of rounds or from themselves."""
        return cls(verify) if isinstance(verify, int) else verify


@dataclass(frozen=True, slots=True)
class Verified:
    """What verification leaves.

    Attributes:
        targets: what stands, by number; see `Verdict.target`.
        rounds: that were made.
    """

    targets: dict[int, Target]
    rounds: int = 0
    verdicts: tuple[Verdict, ...] = ()
    costs: tuple[RoundCost, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class _Held:
    """A target that stands.

    Attributes:
        open: nothing was decided about it yet, or it changed since.
        earlier: what stood in its place before.
    """

    number: int
    target: Target
    open: bool = True
    earlier: list[Target] = field(default_factory=list)


def verify_prompt_names(profile: str) -> tuple[str, ...]:
    """The names of all prompts that masks are verified with."""
    names = ("system.verify", "verify", "verify.masks", "verify.none", "reask.verify", "compare")
    return prompting.existing(profile, *names)


def verify_reasoning(
    request: Request,
    reasoning: Reasoning,
    found: dict[int, Target],
    *,
    dialogue: Dialogue,
    config: PromptConfig,
    segment: Segment,
    options: VerifyOptions,
) -> Verified:
    """Ask about the targets until a round changes nothing, or the rounds or the budget end.

    Whatever the MLLM replies, this raises nothing but errors of the segmenter: what cannot be
    decided stays as it was, with a warning. Of a reasoning path, only the answer's objects are
    verified, and what is missing is not added.

    Args:
        found: the targets by the index of their proposal.
        dialogue: whose budget is spent; the questions are asked in conversations of their own.
    """
    is_path = reasoning.answer is not None
    answers = [one.number - 1 for one in reasoning.answer_objects if one.number]
    checked = {i: target for i, target in found.items() if not is_path or i in answers}
    query, unknown = config.read_query(request.query)
    if unknown or not query or not options.rounds or (is_path and not checked):
        return Verified(found)
    checker = MaskChecker(request.image, query, dialogue, config)
    verified = _Verifier(checked, checker, segment, options, may_add=not is_path).run()
    stand = verified.targets
    kept = {i: stand.get(i, t) for i, t in found.items() if i not in checked or i in stand}
    return replace(verified, targets={**kept, **stand})


class _Verifier:
    """The rounds of one request."""

    def __init__(
        self,
        targets: Mapping[int, Target],
        checker: MaskChecker,
        segment: Segment,
        options: VerifyOptions,
        *,
        may_add: bool,
    ) -> None:
        self.checker, self.segment, self.options = checker, segment, options
        self.may_add = may_add
        self.held = [_Held(number, target) for number, target in targets.items()]
        self.next_number = max(targets, default=-1) + 1
        self.rejected: list[_Held] = []
        self.verdicts: list[Verdict] = []
        self.costs: list[RoundCost] = []
        self.warnings: list[str] = []
        self.round = 0

    def run(self) -> Verified:
        """All rounds."""
        budget, go_on = self.checker.dialogue.budget, True
        while go_on and self.round < self.options.rounds:
            self.round += 1
            usage, calls, seconds = budget.usage, budget.calls, budget.seconds
            go_on = self._round() and any(one.open for one in self.held)
            spent = replace(budget.usage - usage, calls=budget.calls - calls)
            usd, took = budget.limits.cost(spent), budget.seconds - seconds
            self.costs.append(RoundCost(self.round, **asdict(spent), seconds=took, usd=usd))
        return Verified(
            {one.number: one.target for one in self.held},
            self.round,
            tuple(self.verdicts),
            tuple(self.costs),
            tuple(self.warnings),
        )

    def _round(self) -> bool:
        """One round; whether the budget and the MLLM allow another one."""
        clear = self.options.clear
        for one in self.held if clear else ():
            if one.open and clear and clear.accepts(one.target):
                one.open = False
                self._judge(one, ACCEPT, "clear without asking: presence, score and box agree")
        asked, size = [one for one in self.held if one.open], self.options.batch
        if self.held and not asked:
            return False
        decisions: list[tuple[_Held, Decision]] = []
        missing: list[Proposal] = []
        go_on = True
        for at in range(0, max(1, len(asked)), size):
            batch = asked[at : at + size]
            try:
                decided, lacking = self._ask(batch)
            except UnparsableReply as error:
                self._warn(f"the targets stay as they are: {error}")
                for one in batch:
                    one.open = False
                continue
            except MLLMFailed as error:  # the budget, or the server: what was paid for is kept
                self._warn(f"ended early, the best result so far stands: {error}")
                go_on = False
                break
            decisions += decided
            missing += lacking
        self._apply(decisions, missing if self.may_add else [])
        return go_on

    def _ask(
        self, batch: Sequence[_Held]
    ) -> tuple[list[tuple[_Held, Decision]], Sequence[Proposal]]:
        """The decisions about some targets, and what is missing."""
        # What was decided before is shown too, or it would seem to be missing.
        others = [one for one in self.held if not one.open][: self.options.batch - len(batch)]
        shown = sorted((*batch, *others), key=lambda one: one.number)
        asked = [number for number, one in enumerate(shown, start=1) if one in batch]
        found = self.checker.ask([one.target for one in shown], asked)
        for warning in found.warnings:
            self._warn(warning)
        decisions = {d.number: d for d in found.decisions if d.number in asked}
        for number in asked:
            if number not in decisions:
                self._warn(f"no verdict on target {shown[number - 1].number}: it stays as it is")
                shown[number - 1].open = False
        return [(shown[number - 1], one) for number, one in decisions.items()], found.missing

    def _apply(
        self, decisions: Sequence[tuple[_Held, Decision]], missing: Sequence[Proposal]
    ) -> None:
        """Reject, correct and add; one decoder batch."""
        corrected = [(one, d, d.correction) for one, d in decisions if d.correction is not None]
        proposals = [*(correction for *_, correction in corrected), *missing]
        made = self.segment(proposals) if proposals else {}
        found = [made.get(index) for index in range(len(proposals))]
        for one, decision in decisions:
            one.open = False
            self._judge(one, decision.verdict, decision.reason)
            if decision.verdict == REJECT:
                self._reject(one)
        for (one, *_), new in zip(corrected, found, strict=False):
            self._correct(one, new)
        for new in found[len(corrected) :]:
            self._add(new)
        self._drop_duplicates()
        if not self.held and self.rejected:
            self._keep_one()

    def _correct(self, one: _Held, new: Target | None) -> None:
        """Take a correction, unless it changes nothing, cannot be used, or goes in a circle."""
        where = f"the correction of target {one.number}"
        if new is None or not new.packed.area:
            why = "is against the hint" if new is None else "has no pixels"
            self._warn(f"{where} {why}: it stays as it is")
            return
        relabelled = new.label != one.target.label
        if mask_iou(new.mask, one.target.mask) >= SAME_MASK and not relabelled:
            return
        if not relabelled and _certainty(new) < _certainty(one.target):
            self._warn(f"{where} is less certain to the segmenter: it stays as it is")
            return
        circle = any(mask_iou(new.mask, t.mask) >= SAME_MASK for t in one.earlier)
        if circle:
            self._warn(f"{where} goes back to what stood before")
            try:
                if not self.checker.is_better(new, one.target):
                    return
            except MLLMFailed as error:
                self._warn(f"two candidates could not be compared: {error}")
                return
        one.earlier.append(one.target)
        one.target, one.open = new, not circle

    def _add(self, new: Target | None) -> None:
        if new is None or not new.packed.area:
            self._warn("what is missing is against the hint or has no pixels: left out")
        elif any(mask_iou(new.mask, one.target.mask) >= FOUND for one in self.held):
            self._warn(f"what is missing ({new.label}) is a target already: left out")
        elif any(mask_iou(new.mask, one.target.mask) >= SAME_OBJECT for one in self.rejected):
            self._warn(f"what is missing ({new.label}) was rejected: left out")
        else:
            one = _Held(self.next_number, new)
            self.next_number += 1
            self.held.append(one)
            self._judge(one, ADD, "it was missing")

    def _drop_duplicates(self) -> None:
        """Where a target was corrected to what another one shows, reject it."""
        for one in [held for held in self.held if held.open]:
            others = [other for other in self.held if other is not one]
            same = [o for o in others if mask_iou(o.target.mask, one.target.mask) >= SAME_OBJECT]
            if same:
                self._judge(one, REJECT, f"it is the same as target {same[0].number}")
                self._reject(one)

    def _keep_one(self) -> None:
        """All were rejected: where a target is known to be in the image, the best one stays."""
        if not self.checker.config.target_exists:
            self._warn("all targets were rejected")
            return
        best = max(self.rejected, key=lambda one: one.target.score)
        best.open = False
        self.held.append(best)
        self._warn(f"all targets were rejected; target {best.number} stays, as the target exists")

    def _reject(self, one: _Held) -> None:
        self.held = [other for other in self.held if other is not one]
        self.rejected.append(one)

    def _judge(self, one: _Held, verdict: str, reason: str) -> None:
        self.verdicts.append(Verdict(self.round, one.number, verdict, reason, one.target.label))

    def _warn(self, text: str) -> None:
        self.warnings.append(f"verification, round {self.round}: {text}")


def _certainty(target: Target) -> float:
    """How sure a segmenter that reads labels is of a mask and its label; others cannot tell."""
    return 0.0 if target.presence is None else target.presence * target.score
