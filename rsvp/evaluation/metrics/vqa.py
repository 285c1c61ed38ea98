"""Question answering: what a reply says, and each benchmark's way of counting.

Accuracy by kind (V*); averaged over rotations (HR-Bench); yes and no as a detector of objects
(POPE); pairs of which both are right (MMVP); questions, figures and question pairs
(HallusionBench); questions that are right in every rotation (MMBench). A question without a reply
is wrong.

Sources: POPE's ``evaluate.py`` (Y. Li et al., 2023), HallusionBench's ``utils.py`` (T. Guan et al.,
2024), MMBench's CircularEval (Y. Liu et al., 2023). HallusionBench, MMVP and MMBench officially ask
a language model whether a free reply is right; here a rule reads it, see `read_choice` and
`read_yes_no`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rsvp.datasets.vqa import NO, YES, Question
from rsvp.errors import BadInput
from rsvp.evaluation.stats import Interval, mean_interval, ratio_interval
from rsvp.parsing.answers import LETTERS, choose, chosen_letter

Scores = dict[str, Interval]

_UNDECIDED = re.compile(r"\W*(?:yes|no)\W+(?:and|or)\W+(?:yes|no)\b")


@dataclass(frozen=True, slots=True)
class MarkedReply:
    """A question with what the reply was taken to say."""

    question: Question
    given: str | None  # a letter, "yes" or "no"; None where the reply says none of these
    right: bool
    answered: bool = True  # there is a reply


def mark(
    read: Callable[[str, Question], str | None],
    question: Question,
    reply: str,
    *,
    undecided_is_right: bool = False,
) -> MarkedReply:
    """Read a reply and compare it; a blank one is wrong. BadInput where the answer is secret.

    Args:
        read: the answer that a reply gives; None where it gives none.
        undecided_is_right: whether a reply that gives none is right.
    """
    if question.answer is None:
        raise BadInput(f"{question.id}: this split's answers are secret, it cannot be scored here")
    if not reply.strip():
        return MarkedReply(question, None, right=False, answered=False)
    given = read(reply, question)
    return MarkedReply(question, given, given == question.answer if given else undecided_is_right)


def read_choice(reply: str, question: Question) -> str | None:
    return chosen_letter(reply, question.options)


def read_words(reply: str, question: Question) -> str | None:
    """The letter of the choice that a reply means, its own words first: choices may be letters."""
    place = choose(reply, question.options)
    return None if place is None else LETTERS[place]


def read_pope(reply: str, _: Question) -> str:
    """POPE's rule: of the words before the first full stop, "No", "not" or "no" mean no."""
    words = reply.partition(".")[0].replace(",", "").split(" ")
    return NO if {"No", "not", "no"} & set(words) else YES


def read_yes_no(reply: str, _: Question) -> str | None:
    """Yes or no as the first word says it, else as the only one of the two that is said.

    "Yes and no" is neither.
    """
    if _UNDECIDED.match(reply.lower()):
        return None
    words: list[str] = re.findall(r"[a-z]+", reply.lower())
    if words and words[0] in (YES, NO):
        return words[0]
    said = {YES, NO} & set(words)
    return said.pop() if len(said) == 1 else None


def accuracy(marked: Sequence[MarkedReply]) -> Scores:
    return {"accuracy": mean_interval([float(one.right) for one in marked])}


def rotation_accuracy(marked: Sequence[MarkedReply]) -> Scores:
    """HR-Bench: the accuracy of each rotation, averaged over the rotations."""
    sizes = Counter(one.question.group for one in marked)
    # Weights make the mean over questions that over rotations; they are 1 in the official files.
    weights = {group: len(marked) / (len(sizes) * size) for group, size in sizes.items()}
    return {"accuracy": mean_interval([one.right * weights[one.question.group] for one in marked])}


def detection_scores(marked: Sequence[MarkedReply]) -> Scores:
    """POPE: "yes" detects an object; where there is nothing to divide by a score is 0."""
    yes = [float(one.given == YES) for one in marked]
    true = [float(one.question.answer == YES) for one in marked]
    both = [a * b for a, b in zip(yes, true, strict=True)]
    either = [a + b for a, b in zip(yes, true, strict=True)]
    return {
        **accuracy(marked),
        "precision": ratio_interval(both, yes, empty=0.0),
        "recall": ratio_interval(both, true, empty=0.0),
        "f1": ratio_interval([2 * b for b in both], either, empty=0.0),
        "yes_ratio": mean_interval(yes),
    }


def pair_accuracy(marked: Sequence[MarkedReply]) -> Scores:
    """MMVP: a pair is right when both its questions are."""
    return {"pair_accuracy": _all_right(marked, 0), **accuracy(marked)}


def circular_accuracy(marked: Sequence[MarkedReply]) -> Scores:
    """MMBench: a question counts when every rotation of it is right."""
    return {"circular_accuracy": _all_right(marked, 0), **accuracy(marked)}


def consistency_scores(marked: Sequence[MarkedReply]) -> Scores:
    """HallusionBench: questions (aacc), figures (facc) and question pairs (qacc) all right."""
    seen = [one for one in marked if one.question.group[0]]
    figures = {"facc": _all_right(seen, 0)} if seen else {}
    return {"aacc": accuracy(marked)["accuracy"], **figures, "qacc": _all_right(marked, 1)}


def _all_right(marked: Sequence[MarkedReply], key: int) -> Interval:
    """The share of groups in which everything is right."""
    groups: dict[str, bool] = {}
    for one in marked:
        name = one.question.group[key]
        groups[name] = groups.get(name, True) and one.right
    return mean_interval([float(right) for right in groups.values()])
