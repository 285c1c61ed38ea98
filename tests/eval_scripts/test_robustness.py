"""The spellings of a question, and their table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scripted

from eval import robustness
from rsvp.pipeline import Pipeline


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("plain", "where is the t-shirt?"),
        ("capital", "Where is the t-shirt?"),
        ("upper case", "WHERE IS THE T-SHIRT?"),
        ("please", "where is the t-shirt, please?"),
        ("polite", "Could you please help me: where is the t-shirt?"),
        ("spaces", "where  is  the  t-shirt"),
    ],
)
def test_spellings(name, spelled):
    rng = np.random.default_rng(0)
    assert robustness.SPELLINGS[name]("where is the t-shirt?", rng) == spelled


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("show me the dog", "Could you show me the dog for me?"),
        ("the biggest dog", "Could you find the biggest dog for me?"),
        ("what would you eat?", "Could you please help me: what would you eat?"),
        ("I want to sit", "Could you please help me: I want to sit"),
    ],
)
def test_a_polite_frame_fits_the_grammar(text, said):
    assert robustness.polite(text) == said


@pytest.mark.parametrize("text", ["the dog behind a chair", "an ox", "aa", "where is the axe?"])
def test_a_typo_changes_one_word(text):
    words = text.split(" ")
    for seed in range(50):
        rng = np.random.default_rng(seed)
        typed = robustness.typo(text, rng).split(" ")
        changed = [(a, b) for a, b in zip(words, typed, strict=True) if a != b]
        assert len(changed) == 1
        ((before, after),) = changed
        assert after
        assert abs(len(before) - len(after)) <= 1
        assert len(before) >= 4 or max(map(len, words)) < 4
    assert robustness.typo("", np.random.default_rng(0)) == ""


def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(Pipeline, "from_preset", lambda _: scripted.pipeline(scripted.answer()))
    assert robustness.main(["--limit", "2"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["gIoU", "-", "plain"]
    assert [row[:12].strip() for row in rows] == list(robustness.SPELLINGS)
    assert [row.count("[") for row in rows] == [1] + [2] * 6
    assert robustness.main(["--limit", "2", "--json"]) == 0
    assert [len(ious) for ious in json.loads(capsys.readouterr().out).values()] == [2] * 7


def test_a_limit_of_no_scenes_is_refused(capsys):
    assert robustness.main(["--limit", "0"]) == 2
    assert capsys.readouterr().err == "error: the limit is at least 1 scene, found 0\n"
