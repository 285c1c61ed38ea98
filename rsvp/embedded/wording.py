"""How queries are worded: in few fixed phrases, or as people ask.

`world/wording.toml` has the phrases. A phrase has places for what it names: ``{}`` for a noun,
``{a}`` for the first one with its indefinite article, ``{s}`` for its plural, ``{s1}`` for that of
the second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rsvp.embedded import descriptions
from rsvp.embedded.drafts import Rng, choice
from rsvp.embedded.vocabulary import categories, plural, tables

Phrases = Mapping[str, Sequence[str]]

TABLES: Mapping[str, Phrases] = tables("wording.toml")
PLAIN: Phrases = TABLES["plain"]
NATURAL: Phrases = {**PLAIN, **TABLES["natural"]}
REQUESTS: Sequence[str] = tables("wording.toml")["requests"]
SYNONYMS: Phrases = TABLES["synonyms"]  # of words that are no names of things
NOUN_SHARE, PHRASE_SHARE = 0.3, 0.3  # of the names in natural wording are such descriptions


@dataclass(frozen=True, slots=True)
class Wording:
    """A way to word queries.

    Attributes:
        natural: descriptions and synonyms stand for the names, in many phrases.
        unseen: whether it takes the descriptions that are never trained on, or the others.
        language: of the queries.
    """

    natural: bool = False
    unseen: bool = False
    language: str = "en"

    def text(self, form: str, rng: Rng, *nouns: str) -> str:
        """A query in one of the phrases of the form."""
        if not self.natural:
            return _fill(choice(PLAIN[form], rng), nouns)
        phrase = choice(NATURAL[form], rng)
        if form == "described by a question":
            return phrase.format(*nouns)
        plural_noun = {"{s}" in phrase: 0, "{s1}" in phrase: 1}.get(True)
        said = [self.say(noun, rng, for_plural=i == plural_noun) for i, noun in enumerate(nouns)]
        text = _fill(phrase, said)
        return text if text.endswith("?") else choice(REQUESTS, rng).format(text)

    def say(self, noun: str, rng: Rng, *, for_plural: bool = False) -> str:
        """What stands for a noun: a name, a group or any other word."""
        if noun in SYNONYMS:
            return choice(SYNONYMS[noun], rng)
        index = _indices().get(noun)
        if index is None:
            return noun
        draw = rng.random()
        if draw < NOUN_SHARE:
            texts = descriptions.of_category("nouns", unseen=self.unseen)[index]
        elif draw < NOUN_SHARE + PHRASE_SHARE and not for_plural:
            texts = descriptions.of_category("phrases", unseen=self.unseen)[index]
        else:
            texts = ()
        return choice(texts, rng) if texts else noun


PLAIN_WORDING = Wording()


@cache
def _indices() -> Mapping[str, int]:
    """Name -> its index in the vocabulary."""
    return {c.name: c.index for c in categories()}


def _fill(phrase: str, nouns: Sequence[str]) -> str:
    """A phrase with its nouns in place."""
    first = nouns[0]
    article = "an" if first[0] in "aeiou" else "a"
    last = plural(nouns[1]) if "{s1}" in phrase else ""
    return phrase.format(*nouns, a=f"{article} {first}", s=plural(first), s1=last)
