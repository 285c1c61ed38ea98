"""How queries are worded: in few fixed phrases, or as people ask.

A phrase has places for what it names: ``{}`` for a noun, ``{a}`` for the first one with its
indefinite article, ``{s}`` for its plural.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from rsvp.embedded import descriptions
from rsvp.embedded.vocabulary import categories, plural

Rng = np.random.Generator
Phrases = Mapping[str, Sequence[str]]
T = TypeVar("T")

PLAIN: Phrases = {
    "name": (
        "the {}", "{}", "find the {}", "where is the {}?", "segment the {}", "show me the {}",
        "which pixels belong to the {}?",
    ),
    "keyword": (
        "something to do with {}", "the thing that goes with {}", "which one has to do with {}?",
        "find something for {}",
    ),
    "use": (
        "what would you {} with?", "something to {} with", "what would you use to {}?",
        "I want to {}",
    ),
    "use without with": (
        "something to {}", "what would you {}?", "what can I {}?", "something that one can {}",
    ),
    "group": ("the {}", "which one is {a}?", "find the {}", "show me {a}", "is there {a}?"),
    "all": ("every {}", "all the {s}", "all {s}", "each {} in the picture", "find every {}"),
    "hidden": ("the partly hidden {}", "the {} that is partly covered", "which {} is half hidden?"),
    "behind": (
        "the {} behind the {}", "the {} that the {} covers", "the {} partly hidden by the {}",
    ),
    "attribute": ("the {} {}", "find the {} {}", "which is the {} {}?"),
    "nearest": ("the {} nearest to the {}", "which {} is closest to the {}?"),
    "ordinal": ("the {} {} from the {}", "find the {} {} from the {}"),
    "absent ordinal": ("the {} {} from the {}",),
    "beside": ("the {} {} the {}",),
    "between": ("the {} between the {} and the {}",),
    # Kinds that only natural wording has.
    "described": ("the {}", "{}", "the {}", "which one is the {}?"),
    "described by a question": ("{}",),
    "several": ("the {} and the {}", "both the {} and the {}", "the {} as well as the {}"),
    "three": ("the {}, the {} and the {}", "{}, {} and {}", "the {} and the {} and the {}"),
    "except": ("every {0} except the {1}", "all {s} but the {1}", "the {s} other than the {1}"),
    "complement": ("the thing that is not {a}", "what is no {}?"),
    "complements": ("everything that is not {a}", "all that is no {}"),
    "both": ("both {s}", "the two {s}"),
    "side of two": ("the {} {}", "the {} of the two {s1}"),
    "other": ("the {} that is not the {}", "the {}, not the {}", "the other {}, not the {}"),
    "comparative": ("the {0} of the two {s1}", "the {0} one of the two {s1}", "which {1} is {0}?"),
    "comparative of two": ("the {} of the {} and the {}", "which is {}, the {} or the {}?"),
    "colour": ("the {} {}", "which {1} is {0}?", "the {1} that is {0}"),
    "counted": ("the {0} {s1}", "all {0} {s1}"),
    "extreme": ("the {} {}", "the {1} that is {0}"),
    "position": ("the {} {}", "what is {1}?"),
}  # fmt: skip

NATURAL: Phrases = {
    **PLAIN,
    "name": (
        "the {}", "{}", "{a}", "the {}", "I want the {}", "I need the {}", "is there {a}?",
        "do you see {a}?", "there is {a} somewhere", "which one is the {}?", "a picture of {a}",
        "the {} only", "just the {}", "this {}", "my {}", "where did the {} go?",
    ),
    "keyword": (
        *PLAIN["keyword"], "what is related to {}?", "what belongs to {}?", "something for {}",
        "what reminds you of {}?", "{} thing",
    ),
    "use": (
        *PLAIN["use"], "what do you {} with?", "what can I use to {}?", "I need to {}",
        "what does one {} with?", "thing to {} with", "which of these helps to {}?", "I have to {}",
        "what do I need to {}?", "what is used to {}?", "the thing you {} with", "to {}",
        "I would like to {}", "how do I {}?", "with what would someone {}?",
    ),
    "use without with": (
        *PLAIN["use without with"], "what do people {}?", "something you can {}", "thing to {}",
        "what could somebody {}?", "I would like something to {}", "which of these can you {}?",
    ),
    "group": (*PLAIN["group"], "{a}", "some {}", "any {}", "do you see {a}?", "the only {}"),
    "all": (
        *PLAIN["all"], "the {s}", "every single {}", "all of the {s}", "each {}", "the {s} here",
        "all these {s}", "mark every {}", "how many {s} are there?", "count the {s}",
    ),
    "hidden": (
        *PLAIN["hidden"], "the {} that is half hidden", "the covered {}", "the {} behind something",
        "the {} that you only see in part", "the {} with something in front of it",
        "the {} that something covers", "the half visible {}", "which {} is behind something?",
        "the partially occluded {}", "the overlapped {}",
    ),
    "behind": (
        *PLAIN["behind"], "what is behind the {1}?", "the {} hidden by the {}",
        "the {} covered by the {}", "the {1} stands in front of which {0}?",
        "the {} underneath the {}", "the {} in back of the {}", "the {1} hides this {0}",
    ),
    "attribute": (*PLAIN["attribute"], "the {0} of all {s1}", "the {1} that is {0}"),
    "nearest": (
        *PLAIN["nearest"], "the {} next to the {}", "the {} beside the {}", "the {} near the {}",
        "the {} close to the {}", "what is next to the {1}?", "the {} by the {}",
        "the {} right next to the {}", "what is closest to the {1}?", "the {1}'s neighbour",
        "the {} in the vicinity of the {}",
    ),
    "ordinal": (
        *PLAIN["ordinal"], "the {} {} counted from the {}", "the {} {} when you start at the {}",
        "counting from the {2}, the {0} {1}", "from the {2} the {0} {1}",
    ),
    "absent ordinal": ("the {} {} from the {}", "the {} {} counted from the {}"),
    "beside": (
        *PLAIN["beside"], "the {} that is {} the {}", "which {} is {} the {}?",
        "the {} standing {} the {}", "what is {1} the {2}?", "whatever is {1} the {2}",
        "the {} you see {} the {}",
    ),
    "between": (
        *PLAIN["between"], "what is between the {1} and the {2}?",
        "the {} in between the {} and the {}",
        "what lies in the middle of the {1} and the {2}?", "the {} amid the {} and the {}",
    ),
    "several": (
        *PLAIN["several"], "{a} and {}", "the {} plus the {}", "the {} together with the {}",
        "I need the {} and the {}", "the {}, the {}",
    ),
    "except": (
        *PLAIN["except"], "everything that is {a} apart from the {}", "each {} besides the {}",
        "all the {s} without the {1}", "the {s}, but not the {1}", "every {} that is not the {}",
    ),
    "complement": (
        *PLAIN["complement"], "what is not {a}?", "the one which isn't {a}", "anything but {a}",
        "which one is not {a}?", "the only thing that is not {a}", "not {a}",
    ),
    "complements": (
        *PLAIN["complements"], "the things that are not {s}", "all things that aren't {s}",
        "everything which is no {}", "what is not {a}?", "everything but the {s}",
    ),
    "both": (*PLAIN["both"], "both of the {s}", "the pair of {s}"),
    "side of two": (
        *PLAIN["side of two"], "the {1} on the {0}", "which of the two {s1} is further {0}?",
        "the {1} that is further {0}", "the {} one of the {s1}",
    ),
    "other": (
        *PLAIN["other"], "the {} which is not the {}", "{a} other than the {}",
        "the {} besides the {}", "not the {1}, the other {0}", "the {} but not the {}",
    ),
    "comparative": (
        *PLAIN["comparative"], "the {} {}", "of the two {s1} the {0}", "the {0} of the {s1}",
        "out of both {s1} the {0} one", "which of the two {s1} is {0}?",
    ),
    "comparative of two": (
        *PLAIN["comparative of two"], "what is {}, the {} or the {}?",
        "the {1} or the {2}, which one is {0}?", "the {} one out of {} and {}",
    ),
    "colour": (*PLAIN["colour"], "what is {0}?", "something {0}", "the {1} in {0}", "{0} {1}"),
    "counted": (*PLAIN["counted"], "{0} {s1}", "these {0} {s1}", "the group of {0} {s1}"),
    "extreme": (*PLAIN["extreme"], "which {1} is {0}?", "what is {0}?", "the {0} one of all {s1}"),
    "position": (
        *PLAIN["position"], "the {0} that is {1}", "whatever is {1}", "what is right {1}?",
        "the thing {1}", "which {0} is {1}?", "what do you see {1}?",
    ),
}  # fmt: skip

# Requests that say nothing about the thing; most of them are removed again before the model reads.
REQUESTS = (
    "{}", "{}", "{}", "find {}", "segment {}", "show me {}", "where is {}", "please find {}",
    "could you show me {}", "I am looking for {}", "can you find {}", "highlight {}", "select {}",
    "mark {}", "cut out {}", "outline {}", "point to {}", "give me {}", "I would like to see {}",
    "tell me where {} is", "locate {}", "look for {}", "help me find {}", "get me {}",
    "I cannot find {}", "let me see {}", "pick {}", "choose {}", "search for {}", "spot {}",
)  # fmt: skip

# What a natural query may say instead of a word that is no name of a thing.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "object": ("object", "thing", "one", "item", "thing"),
    "largest": ("largest", "biggest", "greatest", "tallest"),
    "biggest": ("biggest", "largest", "hugest"),
    "smallest": ("smallest", "tiniest", "littlest"),
    "bigger": ("bigger", "larger", "taller"),
    "smaller": ("smaller", "littler", "tinier"),
    "left of": (
        "left of", "to the left of", "on the left of", "on the left side of", "left to",
        "on the left hand side of",
    ),
    "right of": (
        "right of", "to the right of", "on the right of", "on the right side of", "right to",
        "on the right hand side of",
    ),
    "above": ("above", "over", "higher than", "on top of", "further up than"),
    "below": ("below", "under", "beneath", "underneath", "lower than", "further down than"),
    "left": ("left", "left side", "left edge", "left hand side"),
    "right": ("right", "right side", "right edge", "right hand side"),
    "top": ("top", "upper edge", "top edge"),
    "bottom": ("bottom", "lower edge", "bottom edge"),
    "leftmost": ("leftmost", "furthest left", "most left", "furthest to the left", "far left"),
    "rightmost": ("rightmost", "furthest right", "most right", "furthest to the right"),
    "topmost": ("topmost", "highest", "uppermost", "furthest up"),
    "bottommost": ("bottommost", "lowest", "lowermost", "furthest down"),
    "left one": ("left", "left hand", "left"),
    "right one": ("right", "right hand", "right"),
    "upper": ("upper", "higher", "top"),
    "lower": ("lower", "bottom", "lower"),
    "fruit": ("fruit", "piece of fruit"),
    "vegetable": ("vegetable", "veggie"),
    "dessert": ("dessert", "sweet", "sweet treat"),
    "drink": ("drink", "beverage", "something to drink"),
    "kitchen tool": ("kitchen tool", "kitchen utensil", "eating utensil"),
    "sea animal": ("sea animal", "sea creature", "marine animal", "animal that lives in water"),
    "bug": ("bug", "creepy crawly", "tiny creature"),
    "plant": ("plant",),
    "vehicle": ("vehicle", "means of transport", "thing to travel with"),
    "piece of sports equipment": ("piece of sports equipment", "sports item", "sports thing"),
    "toy": ("toy", "plaything"),
    "piece of clothing": ("piece of clothing", "garment", "clothing item", "thing to wear"),
    "musical instrument": ("musical instrument", "instrument"),
    "workshop tool": ("workshop tool",),
    "electronic device": ("electronic device", "gadget", "piece of electronics"),
    "household item": ("household item",),
    "writing or office item": ("writing or office item", "office item", "piece of stationery"),
    "clock": ("clock", "timepiece"),
    "medical item": ("medical item", "medical thing"),
}  # fmt: skip

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
            return _fill(_choice(PLAIN[form], rng), nouns)
        phrase = _choice(NATURAL[form], rng)
        if form == "described by a question":
            return phrase.format(*nouns)
        plural_noun = {"{s}" in phrase: 0, "{s1}" in phrase: 1}.get(True)
        said = [self.say(noun, rng, for_plural=i == plural_noun) for i, noun in enumerate(nouns)]
        text = _fill(phrase, said)
        return text if text.endswith("?") else _choice(REQUESTS, rng).format(text)

    def say(self, noun: str, rng: Rng, *, for_plural: bool = False) -> str:
        """What stands for a noun: a name, a group or any other word."""
        if noun in SYNONYMS:
            return _choice(SYNONYMS[noun], rng)
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
        return _choice(texts, rng) if texts else noun


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


def _choice(options: Sequence[T], rng: Rng) -> T:
    return options[int(rng.integers(len(options)))]
