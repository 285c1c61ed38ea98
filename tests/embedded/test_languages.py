from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.natural import read_questions
from rsvp.embedded.languages import (
    TRANSLATED,
    ForeignWording,
    GermanNoun,
    SpanishNoun,
    tables,
    translator,
)
from rsvp.embedded.queries import KINDS
from rsvp.embedded.scenes import main, scenes
from rsvp.embedded.vocabulary import categories, groups, uses

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_language_has_every_word_and_form(language: str) -> None:
    table = tables(language)
    assert {c.name for c in categories()} == set(table["names"])
    assert {*groups(), "object"} == set(table["groups"])
    assert set(uses()) == set(table["uses"])
    assert set(uses("uses_without_with")) == set(table["uses_without_with"])
    assert set(table["phrases"]) == set(tables("de")["phrases"])


@pytest.mark.parametrize("language", TRANSLATED)
def test_generated_queries_are_translated(language: str) -> None:
    wording = ForeignWording(language=language)
    for scene in scenes(2 * len(KINDS), 5, size=96, count=3, wording=wording):
        for query in scene.queries:
            assert query.language == language
            read = translator(language).read(query.text)
            assert read.text
            assert not read.unknown, query.text


@pytest.mark.parametrize("language", TRANSLATED)
def test_ordinary_questions_are_translated(language: str) -> None:
    entries = read_questions(DATA / f"natural_{language}.json").scenes
    for question in (q for entry in entries for q in entry.questions):
        read = translator(language).read(question.text)
        assert read.unknown == (() if question.unknown is None else (question.unknown,))
        assert read.text or question.unknown


@pytest.mark.parametrize(
    ("language", "query", "english"),
    [
        ("de", "Wo ist das Spielzeug links vom Flugzeug?", "toy left of airplane"),
        ("de", "den größten Bären", "largest teddy bear"),
        ("de", "die beiden Hasen", "the two rabbits"),
        ("es", "la trompeta más grande", "largest trumpet"),
        ("es", "todo menos los pepinos", "every object except cucumber"),
        ("es", "¿Con qué puedo cortar el pan?", "what would you use to cut the bread"),
        ("zh", "飞机左边的玩具", "toy left of airplane"),
        ("zh", "从左边数第二个小号", "second trumpet from left"),
        ("zh", "香蕉和苹果之间的东西", "object between banana and red apple"),
    ],
)
def test_queries_become_english(language: str, query: str, english: str) -> None:
    assert translator(language).read(query).text == english


@pytest.mark.parametrize(
    ("language", "query", "unknown"),
    [
        ("de", "Zeig mir den Kühlschrank", "Kühlschrank"),
        ("es", "¿Dónde está el paraguas?", "paraguas"),
        ("zh", "有斑马吗？", "斑马"),
    ],
)
def test_unknown_words_are_named(language: str, query: str, unknown: str) -> None:
    assert translator(language).read(query).unknown == (unknown,)


def test_nouns_are_inflected() -> None:
    dog, rabbit = GermanNoun("der Hund; Hunde"), GermanNoun("der Hase/Hasen; Hasen")
    assert f"{dog:nom größt} {dog:acc größt} {dog:dat} {dog:ein}" == (
        "der größte Hund den größten Hund dem Hund einen Hund"
    )
    assert f"{rabbit:nom}, {rabbit:relacc} {dog:nom} verdeckt" == "der Hase, den der Hund verdeckt"
    assert f"{rabbit:acc}, alle {rabbit:pl}" == "den Hasen, alle Hasen"
    eagle = SpanishNoun("la águila; águilas")
    assert f"{eagle:the} {eagle:the primer/primera} {eagle:un}" == (
        "el águila la primera águila un águila"
    )
    assert f"{eagle:every} {eagle:after más pequeño/más pequeña}" == (
        "todas las águilas el águila más pequeña"
    )


def test_scenes_take_the_languages_in_turn(tmp_path: Path) -> None:
    options = ["--n", "4", "--seed", "3", "--size", "96", "--kinds", "name", "--out", str(tmp_path)]
    assert main([*options, "--language", "de,en"]) == 0
    entries = json.loads((tmp_path / "scenes.json").read_text())["scenes"]
    assert [e["queries"][0].get("language") for e in entries] == ["de", None, "de", None]


@pytest.mark.parametrize(
    "options", [["--language", "fr"], ["--language", "de", "--wording", "natural"]]
)
def test_what_no_language_has_is_refused(options: list[str], tmp_path: Path) -> None:
    assert main(["--n", "1", "--seed", "3", "--out", str(tmp_path), *options]) == 2
