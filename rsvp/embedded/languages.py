"""The languages in which the scenes can be asked about: their words, and how queries are worded.

`world/languages/` has a file for each, written by hand, and `cldr.json` with the names and keywords
of Unicode's CLDR. The reasoner reads English alone: `translator` turns a query into it, and
`ForeignWording` asks in the language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from rsvp.embedded import vocabulary
from rsvp.embedded.drafts import Rng, choice
from rsvp.embedded.vocabulary import FOLDER, plural
from rsvp.embedded.wording import Wording
from rsvp.translation import Translator

ENGLISH = "en"
TRANSLATED = ("de", "es", "zh")
LANGUAGES = (ENGLISH, *TRANSLATED)
TABLES = FOLDER / "languages"
NO_NOUN = frozenset({"keyword", "use", "use without with"})  # forms that name no thing


@dataclass(frozen=True, slots=True)
class GermanNoun:
    """Formats as "nom", "acc", "dat", "ein" (accusative), "which", "rel", "relacc" or "pl".

    After a case may come an adjective without its ending: "acc größt".
    """

    text: str  # article, noun and plural; behind a slash its accusative and dative

    def __format__(self, spec: str) -> str:
        singular, _, several = self.text.partition("; ")
        article, _, noun = singular.partition(" ")
        noun, _, oblique = noun.partition("/")
        case, _, adjective = spec.partition(" ")
        if case == "pl":
            return several or noun
        gender = ("der", "die", "das").index(article)
        accusative = ("den", "die", "das")[gender]
        if case in ("rel", "relacc"):
            return article if case == "rel" else accusative
        word = {
            "nom": article, "acc": accusative, "dat": ("dem", "der", "dem")[gender],
            "ein": ("einen", "eine", "ein")[gender],
            "which": ("welcher", "welche", "welches")[gender],
        }[case]  # fmt: skip
        ending = "en" if case == "dat" or (case == "acc" and gender == 0) else "e"
        noun = oblique or noun if case in ("acc", "dat", "ein") and gender == 0 else noun
        return " ".join(filter(None, (word, adjective and adjective + ending, noun)))


@dataclass(frozen=True, slots=True)
class SpanishNoun:
    """Formats as "the", "un", "bare", "o" (the ending o or a), "pl" or "every".

    Behind "the" may come an adjective, "the tercer/tercera"; "after" puts it behind the noun.
    """

    text: str  # article, noun and plural

    def __format__(self, spec: str) -> str:
        singular, _, several = self.text.partition("; ")
        article, _, noun = singular.partition(" ")
        feminine = article == "la"
        case, _, adjective = spec.partition(" ")
        masculine_form, _, feminine_form = adjective.partition("/")
        adjective = feminine_form or masculine_form if feminine else masculine_form
        if case == "o":
            return "a" if feminine else "o"
        if case == "pl":
            return several or noun
        if case == "every":
            return f"tod{'a' if feminine else 'o'}s l{'a' if feminine else 'o'}s {several or noun}"
        if case == "un":
            article = "una" if feminine else "un"
        stressed = noun.startswith(("águila", "hacha")) and (case != "the" or not adjective)
        if feminine and stressed:
            article = "un" if case == "un" else "el"
        if case == "bare":
            return noun
        order = (article, noun, adjective) if case == "after" else (article, adjective, noun)
        return " ".join(filter(None, order))


NOUNS: Mapping[str, type] = {"de": GermanNoun, "es": SpanishNoun, "zh": str}
_CONTRACTIONS = {
    "de": ((r"\bvon dem\b", "vom"), (r"\bzu dem\b", "zum")),
    "es": ((r"\bde el\b", "del"), (r"\ba el\b", "al")),
    "zh": (),
}


def tables(language: str) -> Mapping[str, Any]:
    return vocabulary.tables(f"languages/{language}.toml")


@cache
def translator(language: str) -> Translator:
    table = tables(language)
    phrases = _listed(table["words"])
    for name, text in {**table["names"], **table["groups"]}.items():
        for phrase in _forms(text):
            phrases.setdefault(phrase, name)
    for use, text in {**table["uses"], **table["uses_without_with"]}.items():
        phrases.setdefault(text, use)
    for phrase, name in _of_cldr(language).items():
        if table["spaced"] or len(phrase) > 1:  # a character alone is a part of many words
            phrases.setdefault(phrase, name)
    numbers = _listed(table["numbers"])
    many = {form: plural(name) for name, text in table["names"].items() for form in _forms(text)}
    several = {
        f"{number} {form}" if table["spaced"] else number + form: f"{english} {name}"
        for number, english in numbers.items()
        for form, name in many.items()
    }
    return Translator(
        {**phrases, **numbers, **several},
        [(pattern, english) for pattern, english in table["rules"]],
        endings=table["endings"],
        digraphs=table["digraphs"],
        spaced=table["spaced"],
    )


def _listed(lines: str) -> dict[str, str]:
    """``puppy: Welpe, Hündchen`` as phrase -> English."""
    found: dict[str, str] = {}
    for line in filter(None, lines.splitlines()):
        english, _, phrases = line.partition(":")
        found |= {phrase.strip(): english.strip() for phrase in phrases.split(",")}
    return found


@cache
def _topics(language: str) -> Mapping[str, str]:
    """English -> the first phrase for it."""
    found: dict[str, str] = {}
    for phrase, english in _listed(tables(language)["words"]).items():
        found.setdefault(english, phrase)
    return found


def _forms(text: str) -> list[str]:
    """A noun's forms, without its article."""
    singular, _, several = text.partition("; ")
    noun = singular.partition(" ")[2] or singular
    return [form for form in (*noun.split("/"), several) if form]


@cache
def _of_cldr(language: str) -> Mapping[str, str]:
    """CLDR's names, and its keywords that fit one name alone -> the name."""
    entries = json.loads((TABLES / "cldr.json").read_text(encoding="utf-8"))[language]
    names = {entry[0]: name for name, entry in entries.items()}
    fitting: dict[str, list[str]] = {}
    for name, (_, *keywords) in entries.items():
        for keyword in keywords:
            fitting.setdefault(keyword, []).append(name)
    return {**{k: found[0] for k, found in fitting.items() if len(found) == 1}, **names}


@dataclass(frozen=True, slots=True)
class ForeignWording(Wording):
    """Words queries in one of `TRANSLATED`, in few fixed phrases."""

    def text(self, form: str, rng: Rng, *nouns: str) -> str:
        """A query in one of the language's phrases; empty where it lacks a word for it."""
        table = tables(self.language)
        said = [self._say(form, noun) for noun in nouns]
        if None in said:
            return ""
        text = choice(table["phrases"][form], rng).format(*said)
        for pattern, contracted in _CONTRACTIONS[self.language]:
            text = re.sub(pattern, contracted, text)
        return str(text)

    def _say(self, form: str, noun: str) -> Any:
        table = tables(self.language)
        if form == "keyword":
            return _topics(self.language).get(noun)
        if form in NO_NOUN:
            return table["uses" if form == "use" else "uses_without_with"].get(noun)
        if noun in table["values"]:
            return table["values"][noun]
        found = table["groups"].get(noun) or table["names"].get(noun)
        return found and NOUNS[self.language](found)
