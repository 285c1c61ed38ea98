"""Reads replies to questions: what to look for or at, the answer, and the choice it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rsvp.errors import UnparsableReply
from rsvp.parsing.lenient_json import Array, Document, Node, Object, OutOfBudgetError
from rsvp.parsing.search import Scan
from rsvp.parsing.values import words

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_LOOK = ("look", "looks", "look_at", "zoom")
_ANSWER = ("answer", "final_answer", "choice")
_PHRASES = ("phrases", "noun_phrases", "look")
MAX_PHRASE = 60  # bytes of a phrase: a detector of concepts reads some 30 tokens
_REASON = ("reason", "reasoning", "thought", "explanation")
_LETTER = r"([A-Z])\b(?!')(?:(?<![AI])|(?! [a-z]))"  # "A man", "I see": no choice
_CHOICES = tuple(
    re.compile(pattern)
    for pattern in (
        # A lone "a" is an article that was cut off.
        r"^\W*(?!a$)([A-Za-z])\W*$|^\W*([A-Za-z])[).:\n](?!\s*(?:or|and)\b)",
        r"\\boxed\{(?:\\text\{)?\s*\(?([A-Za-z])\)?\s*\}",
        rf"\b(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*\**(?:\(([A-Za-z])\)|{_LETTER})",
    )
)
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_TAGS = ("<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The content of a reply to a question.

    Attributes:
        look: what it asks to be shown more closely; empty where it answers.
        answer: as the model wrote it; empty where it asks for a look.
        understood: False where the model says that it cannot read images of this kind.
    """

    reason: str
    look: tuple[str, ...] = ()
    answer: str = ""
    understood: bool = True


def parse_answer(text: str, *, prose: bool = False) -> ParsedAnswer:
    """Read a reply.

    Args:
        prose: a reply without JSON is an answer as a whole; else it is one in ``<answer>`` alone.

    Raises:
        UnparsableReply: it neither answers nor asks for a look.
    """
    try:
        scan = Scan(text)
    except OutOfBudgetError:
        raise UnparsableReply("the reply is too complicated to read", text) from None
    found = [d.node for d in scan.found if isinstance(d, Document) and isinstance(d.node, Object)]
    for node in reversed(found):
        look, answer = _names(node.first(_LOOK)), words(node.first(_ANSWER))
        unread = not answer and node.entries.get("understood") is False
        if look or answer or unread:
            look = () if answer or unread else look
            return ParsedAnswer(words(node.first(_REASON)), look, answer, not unread)
    said = text[scan.visible_from : scan.thinking_from].strip()
    inside = final_answer(said)
    if not found and said and (prose or inside != said) and inside:
        return ParsedAnswer("", answer=inside)
    raise UnparsableReply('the reply has neither an "answer" nor anything to "look" at', text)


def parse_phrases(text: str) -> tuple[str, ...]:
    """The noun phrases of a reply, each once; none where it says that there are none.

    Raises:
        UnparsableReply: it has no list of them, or no phrase in it has at most `MAX_PHRASE` bytes.
    """
    try:
        found = [one.node for one in Scan(text).found if isinstance(one, Document)]
    except OutOfBudgetError:
        raise UnparsableReply("the reply is too complicated to read", text) from None
    lists = [one.first(_PHRASES) if isinstance(one, Object) else one for one in found]
    node = next((one for one in reversed(lists) if isinstance(one, Array)), None)
    if node is None:
        raise UnparsableReply('the reply has no list of "phrases"', text)
    named = [one for one in _names(node) if re.search(r"\w", one)]
    short = tuple(one for one in named if len(one.encode("utf-8", "replace")) <= MAX_PHRASE)
    if named and not short:
        raise UnparsableReply("every phrase is too long: give one to four words each", text)
    return short


def choose(answer: str, choices: Sequence[str]) -> int | None:
    """The index of the choice that an answer means: by its words, else by its letter."""
    said = _plain(answer)
    same = [i for i, choice in enumerate(choices) if said and _plain(choice) == said]
    if len(same) == 1:
        return same[0]
    letter = chosen_letter(answer, choices)
    return None if letter is None else LETTERS.index(letter)


def chosen_letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a text chooses, by its letter or else by the words of one choice.

    A letter counts where it stands alone, in front ("B.", "(B) red"), in ``\\boxed{}``, after "the
    answer is", or as the only one in brackets. An article is none: "A man …" chooses nothing.
    """
    text = _blanks_narrowed(final_answer(text))
    allowed = LETTERS[: len(choices)]
    for pattern in _CHOICES:
        if letters := _letters(pattern, text, allowed):
            return letters[-1]  # the last word of one who changes his mind
    mentioned = set(_letters(_BRACKETED, text, allowed))
    if len(mentioned) == 1:
        return mentioned.pop()
    return _by_words(text, choices)


def final_answer(text: str) -> str:
    """What the last ``<answer>`` holds; the whole text where there is none."""
    opening, closing = _TAGS
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(end, 0))
    return text if start < 0 else text[start + len(opening) : end].strip()


def _names(node: Node) -> tuple[str, ...]:
    """What to look at: a text, or a list of texts or of objects with a label."""
    items = node.items if isinstance(node, Array) else [node]
    texts = (words(i.first(("label", "name", "object")) if isinstance(i, Object) else i)
             for i in items)  # fmt: skip
    return tuple(dict.fromkeys(text for text in texts if text))


def _blanks_narrowed(text: str) -> str:
    """Runs of blanks as one: a model that repeats itself for long must not stall the patterns."""
    return re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text.strip())


def _letters(pattern: re.Pattern[str], text: str, allowed: str) -> list[str]:
    """The allowed letters that a pattern finds, in the order of the text."""
    found = ["".join(match.groups("")).upper() for match in pattern.finditer(text)]
    return [letter for letter in found if letter in allowed]


def _by_words(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the only choice whose words the text has; longer ones win over shorter."""
    left, found = f" {_plain(text)} ", []
    for place in sorted(range(len(choices)), key=lambda place: -len(choices[place])):
        words = f" {_plain(choices[place])} "
        if words.strip() and words in left:
            found.append(LETTERS[place])
            left = left.replace(words, "  ")
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
