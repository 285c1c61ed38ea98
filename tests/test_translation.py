from __future__ import annotations

import pytest

from rsvp.lexicon import ReadQuery
from rsvp.translation import Translator

PHRASES = {
    "der": "", "die": "", "Hund": "dog", "Bälle": "ball", "roter Ball": "red ball",
    "rote": "red", "links von": "left of", "Schraubenzieher": "screwdriver",
}  # fmt: skip


@pytest.fixture(scope="module")
def german() -> Translator:
    rules = [(r"alles ausser (.+)", "everything except {0}")]
    return Translator(PHRASES, rules, endings=["e", "en", "er"], digraphs={"ae": "a"})


@pytest.fixture(scope="module")
def chinese() -> Translator:
    phrases = {
        "狗": "dog",
        "红色": "red",
        "的": "",
        "马": "horse",
        "勺子": "spoon",
        "t恤": "t-shirt",
    }
    return Translator(phrases, [("(.+)左边的(.+)", "{1} left of {0}")], spaced=False)


@pytest.mark.parametrize(
    ("typed", "english"),
    [
        ("Der HUND!", "dog"),
        ("die roten Hunde", "red dog"),  # endings
        ("Balle, baelle", "ball ball"),  # without the accent
        ("der rote Ball", "red ball"),
        ("die Hunde links von der Bälle", "dog left of ball"),  # the longest phrase
        ("Alles außer der Hund", "everything except dog"),
        ("Schraubenziehr", "screwdriver"),
        ("", ""),
    ],
)
def test_words_become_english(german: Translator, typed: str, english: str) -> None:
    assert german.read(typed) == ReadQuery(english)


def test_unknown_words_are_reported_as_typed(german: Translator) -> None:
    assert german.read("der Hund, das Nilpferd") == ReadQuery("dog", ("das", "Nilpferd"))


@pytest.mark.parametrize(
    ("typed", "english", "unknown"),
    [
        ("红色的狗", "red dog", ()),
        ("勺子左边的狗", "dog left of spoon", ()),
        ("T恤", "t-shirt", ()),
        ("斑马", "", ("斑马",)),  # not a horse
        ("红色的冰箱", "red", ("冰箱",)),
    ],
)
def test_without_spaces_the_longest_phrase_is_read(
    chinese: Translator, typed: str, english: str, unknown: tuple[str, ...]
) -> None:
    assert chinese.read(typed) == ReadQuery(english, unknown)
