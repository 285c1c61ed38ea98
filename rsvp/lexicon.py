"""Reads queries for a small model that knows few words: removes what says nothing, corrects typing
errors, and finds the words that the model cannot know.

The words that it learned stand in `words.txt` beside its weights. Other English words, those of
`english.txt.gz` there, are reported as unknown. What is no English word at all is a typing error
where one of the known words is one letter away.
"""

from __future__ import annotations

import gzip
import re
import string
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rsvp.platform.files import atomic_write, read_bytes, write_text

WORDS_FILE, ENGLISH_FILE = "words.txt", "english.txt.gz"  # in the folder of the weights
SHORTEST_TYPO = 3  # letters; one letter changed makes a shorter word into any other
QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "…": " ", "–": " ", "—": " "})

# What a request may begin with, after which comes what it is about.
_REQUESTS = re.compile(
    r"""^(?:
    (?:hi|hey|hello|ok|okay|so|well|now|and|then|also|just|only|quickly)\b
    | (?:please|pls|plz|kindly|thanks|thank\syou)\b
    | (?:can|could|would|will|may|might)\s(?:you|we|i|u)\b
    | i\s(?:would|want|wanted|need|wish)\s(?:like\s)?(?:you|u)\sto\b
    | i'd\slike\syou\sto\b
    | i\s(?:would\slike|want|wish|need)\sto\s(?:see|find|locate|segment|know\swhere)\b
    | i'd\slike\sto\s(?:see|find|locate|segment|know\swhere)\b
    | i\s(?:need|want|would\slike|wish\sfor)\b(?=\s\S)
    | (?:i\sam|i'm|im|we\sare|we're)\s(?:looking|searching)\sfor\b
    | i\s(?:cannot|can't|cant|can\snot|could\snot|couldn't)\sfind\b
    | (?:do|can|could)\syou\s(?:see|find|spot)\b
    | (?:help\s(?:me|us)|let\s(?:me|us)|let's|go|try\sto|do|be\sso\skind\sto)\b
    | (?:tell|show|give|get|bring|fetch|hand)\s(?:me|us)\b
    | (?:cut|crop|mask|mark|point|pick|single)\sout\b (?:\sof\b)?
    | point\s(?:to|at)\b
    | (?:find|locate|segment|show|mask|outline|highlight|select|mark|detect|identify|isolate|extract
        |annotate|label|choose|pick|search|spot|trace|crop|see|circle|indicate)\b
      (?:\s(?:me|us|for|of|out))*\b(?=\s\S)
    | (?:look|search)\sfor\b
    | (?:(?:a|an|the)\s)?(?:mask|outline|segmentation|pixels|position|location|contour|shape
        |picture|image)\s(?:of|for)\b
    | (?:the\s)?(?:pixels|area|region)\s(?:of|that\sbelong\sto|belonging\sto)\b
    | which\spixels\s(?:belong\sto|are|show)\b
    | where(?:'s|\sis|\sare|s|\sdo\si\ssee|\scan\si\s(?:find|see))\b
    | (?:is|are|was|were)\sthere\b(?:\sany\b)?
    | there(?:'s|\sis|\sare|\smust\sbe|\sshould\sbe)\b
    | for\b
    )\s*""",
    re.VERBOSE,
)
_ENDINGS = re.compile(
    r"""\s*\b(?:
    please | pls | plz | thanks | thank\syou(?:\svery\smuch)? | thx | kindly
    | (?:for|to)\s(?:me|us)
    | (?<!to\s)(?:segment|mark|show|find|locate|highlight|outline)\s(?:it|them)
    | (?:in|on|from|of|within)\s(?:the|this|that)\s
      (?:picture|image|photo|photograph|scene|drawing|view)
    | here | somewhere | anywhere | if\syou\scan | if\spossible | right\snow | now
    )$""",
    re.VERBOSE,
)
_WHERE = re.compile(r"^where\s(.+)\s(?:is|are)$")  # the dog
_ARTICLES = frozenset({"the", "a", "an"})
_MISTYPED_THE = frozenset({"teh", "hte"})  # lists of English words hold them
# Words that say nothing about the thing, and are typed often enough to be mistyped.
_REQUEST_WORDS = frozenset({
    "the", "please", "segment", "find", "show", "where", "mark", "locate", "highlight", "outline",
    "select", "detect", "picture", "image", "photo",
})  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|\d+")
_INFLECTIONS = (
    ("'s", ""), ("s'", "s"), ("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""),
    ("ed", "e"), ("ing", ""), ("ing", "e"), ("er", ""), ("ly", ""),
)  # fmt: skip
_ENDINGS_OF_WORDS = ("s", "es", "ed", "d", "ing", "'s")


class ReadQuery(NamedTuple):
    """A query as the reasoner is asked it.

    Attributes:
        text: lower case, without articles, requests, politeness and punctuation; typing errors in
            it are corrected.
        unknown: the English words of the query that the reasoner does not know, as typed.
    """

    text: str
    unknown: tuple[str, ...] = ()


def normalize(text: str, hyphenated: Collection[str] = ()) -> str:
    """A query without what says nothing about the thing; empty only where it has no word at all.

    Args:
        hyphenated: words that keep their hyphens.
    """
    plain = unicodedata.normalize("NFKC", text).translate(QUOTES).lower()
    words = _WORD.findall(plain.replace("i'm", "i am").replace("what's", "what is"))
    text = " ".join(word if word in hyphenated else word.replace("-", " ") for word in words)
    while True:
        text = _WHERE.sub(r"\1", text)
        shorter = _ENDINGS.sub("", _REQUESTS.sub("", text)).strip()
        if shorter == text or not shorter:
            break
        text = shorter
    kept = [word for word in text.split() if word not in _ARTICLES]
    return " ".join(kept) or text


class Lexicon:
    """The words that a model knows.

    Args:
        words: the most frequent ones first.
        english: words that are no typing errors.
    """

    def __init__(self, words: Sequence[str], english: Iterable[str] = ()) -> None:
        self.words = tuple(words)
        self.rank = {word: rank for rank, word in enumerate(words)}
        self.english = frozenset(english)
        self._hyphenated = frozenset(word for word in words if "-" in word)

    @classmethod
    def load(cls, folder: Path) -> Lexicon | None:
        """The lexicon in a folder of weights, if there is one."""
        words, english = folder / WORDS_FILE, folder / ENGLISH_FILE
        if not words.exists():
            return None
        packed = read_bytes(english) if english.exists() else b""
        return cls(read_bytes(words).decode().split(), gzip.decompress(packed).decode().split())

    def save(self, folder: Path) -> None:
        """Write the lexicon into a folder of weights."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / WORDS_FILE, "\n".join(self.words) + "\n")
        packed = gzip.compress("\n".join(sorted(self._mistakable())).encode(), mtime=0)
        atomic_write(folder / ENGLISH_FILE, packed)

    def _mistakable(self) -> Iterator[str]:
        """The English words that would be read as typing errors if they were not in the list."""
        known = _REQUEST_WORDS.union(self.words)
        for word in self.english:
            if self.known_form(word) is None and any(w in known for w in one_letter_away(word)):
                yield word

    def read(self, query: str) -> ReadQuery:
        """Normalise a query, correct its typing errors, and find its unknown words."""
        found: list[str] = []
        unknown: list[str] = []
        typed = normalize(query, self._hyphenated).split()
        text = " ".join(map(self._request_word, typed))
        for word in normalize(text, self._hyphenated).split():
            known = self.known_form(word)
            if known is None:
                unknown.append(word)
            else:
                found += known
        return ReadQuery(" ".join(found), tuple(dict.fromkeys(unknown)))

    def _request_word(self, word: str) -> str:
        """The request word that a mistyped word stands for, else the word itself."""
        if word in _MISTYPED_THE:
            return "the"
        if word in self.rank or word in self.english or len(word) < SHORTEST_TYPO:
            return word
        return next((w for w in one_letter_away(word) if w in _REQUEST_WORDS), word)

    def known_form(self, word: str) -> list[str] | None:
        """The known words that a word stands for: mostly itself; None where it is unknown."""
        if word in self.rank or word.isdecimal():
            return [word]
        if other := next((w for w in inflected(word) if w in self.rank), None):
            return [other]
        if len(word) < SHORTEST_TYPO:
            return []
        for i in range(3, len(word) - 2):
            if word[:i] in self.rank and word[i:] in self.rank:
                return [word[:i], word[i:]]
        if word in self.english:
            return None
        near = [w for w in one_letter_away(word) if w in self.rank]
        return [min(near, key=self.rank.__getitem__)] if near else None


def inflected(word: str) -> Iterator[str]:
    """Other forms of a word, some of which are no words."""
    for ending, base in _INFLECTIONS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2:
            yield stem + base
            if stem[-1] == stem[-2]:
                yield stem[:-1]
    for ending in _ENDINGS_OF_WORDS if len(word) > 2 else ():
        yield word + ending
        yield word + word[-1] + ending
        if len(word) > 3:
            yield word.removesuffix("e") + ending


def one_letter_away(word: str) -> Iterator[str]:
    """The word with one letter missing, changed, added, or exchanged with the next."""
    letters = string.ascii_lowercase
    for i in range(len(word) + 1):
        start, end = word[:i], word[i:]
        yield from (start + letter + end for letter in letters)
        if end:
            yield start + end[1:]
            yield from (start + letter + end[1:] for letter in letters)
        if len(end) > 1:
            yield start + end[1] + end[0] + end[2:]
