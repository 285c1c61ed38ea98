"""Turns queries of other languages into English with tables, for a model that only reads English.

Patterns of whole queries come first, then the longest known phrases, then single words, whatever
their endings. A word that no table has is reported as unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rsvp.lexicon import ReadQuery, one_letter_away

SHORTEST_STEM = 3  # letters that stay when an ending is removed
SHORTEST_TYPO = 7  # letters of a word that is corrected

_TOKEN = re.compile(r"\w+(?:[-']\w+)*")
_SPACED = re.compile(r"[^\u2e80-\u9fff]+")  # what is no Chinese character


class Rule(NamedTuple):
    """A pattern of whole queries, folded, and the English with its groups: ``{0} left of {1}``."""

    pattern: re.Pattern[str]
    english: str


class Translator:
    """Translates queries of one language into English.

    Args:
        phrases: phrase -> English, which is empty where the phrase says nothing.
        rules: tried in this order; their groups are translated by themselves.
        endings: of inflected words.
        digraphs: how letters are typed where the keyboard lacks them -> these letters, unaccented.
        spaced: whether spaces separate the words.
    """

    def __init__(
        self,
        phrases: Mapping[str, str],
        rules: Sequence[tuple[str, str]] = (),
        *,
        endings: Sequence[str] = (),
        digraphs: Mapping[str, str] | None = None,
        spaced: bool = True,
    ) -> None:
        self.digraphs, self.spaced = dict(digraphs or {}), spaced
        self.endings = sorted(endings, key=len, reverse=True)
        self.exact: dict[tuple[str, ...], str] = {}
        self.stemmed: dict[tuple[str, ...], str] = {}
        for phrase, english in phrases.items():
            tokens = tuple(self.tokens(self.fold(phrase)))
            self.exact.setdefault(tokens, english)
            self.stemmed.setdefault(tuple(map(self.stem, tokens)), english)
        self.longest = max(map(len, self.exact), default=0)
        self.rules = [Rule(re.compile(self.fold(p)), english) for p, english in rules]

    def read(self, query: str) -> ReadQuery:
        """The query in English, and the words of it that no table has, as typed."""
        typed = unicodedata.normalize("NFKC", query)
        spelled = {self.fold(token): token for token in self.tokens(typed)}
        unknown: dict[str, None] = {}
        plain = " " if self.spaced else ""
        text = self._translate(plain.join(self.tokens(self.fold(typed))), unknown)
        return ReadQuery(text, tuple(spelled.get(word, word) for word in unknown))

    def fold(self, text: str) -> str:
        """Lower case without accents, so that it is the same however it is typed."""
        lower = unicodedata.normalize("NFKD", text.casefold())
        plain = "".join(c for c in lower if not unicodedata.combining(c))
        for typed, letter in self.digraphs.items():
            plain = plain.replace(typed, letter)
        return plain

    def stem(self, word: str) -> str:
        """A folded word without its ending."""
        for ending in self.endings:
            if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
                return word.removesuffix(ending)
        return word

    def tokens(self, text: str) -> list[str]:
        """The words of a text; without spaces between them, its characters."""
        if self.spaced:
            return _TOKEN.findall(text)
        parts = (part for word in _TOKEN.findall(text) for part in _characters(word))
        return list(parts)

    def _translate(self, text: str, unknown: dict[str, None]) -> str:
        for rule in self.rules:
            if found := rule.pattern.fullmatch(text):
                groups = (self._translate(group or "", unknown) for group in found.groups())
                return " ".join(rule.english.format(*groups).split())
        return " ".join(filter(None, self._words(self.tokens(text), unknown)))

    def _words(self, tokens: Sequence[str], unknown: dict[str, None]) -> Iterator[str]:
        """The English of each phrase; without spaces, unknown neighbours are one word."""
        parts = list(self._phrases(tokens))
        start = 0
        while start < len(parts):
            end = start
            while not self.spaced and end < len(parts) and self._strange(parts, end):
                end += 1
            text, english = parts[start]
            if end > start or english is None:
                unknown["".join(t for t, _ in parts[start:end]) or text] = None
            else:
                yield english
            start = max(end, start + 1)

    @staticmethod
    def _strange(parts: Sequence[tuple[str, str | None]], index: int) -> bool:
        """Whether a part is unknown, or a character alone beside an unknown one."""
        text, english = parts[index]
        beside = parts[max(0, index - 1) : index + 2]
        near = len(text) == 1 and any(e is None for _, e in beside)
        return english is None or (near and english != "")

    def _phrases(self, tokens: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        """The longest known phrases from the left, each with its English; None for no phrase."""
        plain = " " if self.spaced else ""
        start = 0
        while start < len(tokens):
            for end in range(min(len(tokens), start + self.longest), start, -1):
                english = self._phrase(tuple(tokens[start:end]))
                if english is not None:
                    break
            yield plain.join(tokens[start:end]), english
            start = end

    def _phrase(self, tokens: tuple[str, ...]) -> str | None:
        found = self.exact.get(tokens)
        if found is None and self.spaced:
            found = self.stemmed.get(tuple(map(self.stem, tokens)))
        if found is None and self.spaced and len(tokens) == 1 and len(tokens[0]) >= SHORTEST_TYPO:
            words = (w for w in one_letter_away(tokens[0]) if w[0] == tokens[0][0])
            near = (self.exact.get((word,)) for word in words)
            found = next(filter(None, near), None)
        return found


def _characters(word: str) -> list[str]:
    """A word's Chinese characters one by one; what is written in letters stays together."""
    letters = _SPACED.match(word)
    if letters:
        return [letters[0], *_characters(word[letters.end() :])]
    return [word[0], *_characters(word[1:])] if word else []
