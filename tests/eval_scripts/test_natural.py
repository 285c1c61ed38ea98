"""The questions in ordinary wording: their file, how an answer is judged, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scripted

from eval import natural
from eval.natural import Answer, Question
from rsvp.errors import BadInput
from rsvp.pipeline import Pipeline

DOOR = scripted.answer((0, 0, 178, 275))  # object 3 of scene 1, in thousandths of the picture
NOTHING = scripted.answer()


def question_file(folder, *questions, scene=1):
    file = folder / "Q.json"
    scenes = [{"scene": scene, "questions": list(questions)}]
    file.write_text(json.dumps({"seed": 90211, "size": 320, "scenes": scenes}))
    return file


def question(text="the door", targets=(3,), kind="name", **more):
    return {"text": text, "targets": list(targets), "kind": kind, **more}


def test_the_shipped_questions_fit_their_scenes():
    questions = natural.read_questions(natural.QUESTIONS)
    asked = [q for entry, _ in natural.rendered(questions) for q in entry.questions]
    assert len(questions.scenes) == 30
    assert len({(q.text.casefold()) for q in asked}) == len(asked) == 300
    for one in asked:
        assert bool(one.targets) == (one.kind not in ("absent", "unknown"))
        assert (one.unknown is not None) == (one.kind == "unknown")
        assert (one.unknown or "").casefold() in one.text.casefold()


@pytest.mark.parametrize(
    ("unknown", "answer", "iou", "outcome"),
    [
        (None, (("dog",), (), True), 0.5, "right"),
        (None, (("dog",), ("unsure",), True), 0.9, "right"),
        (None, ((), (), True), 1.0, "right"),
        (None, (("dog",), (), True), 0.49, "silently wrong"),
        (None, (("dog",), ("unsure",), True), 0.0, "warned"),
        (None, ((), (), True), 0.0, "silently none"),
        (None, ((), (), False), 0.0, "warned"),
        ("walrus", ((), ("does not know 'Walrus'",), True), 1.0, "right"),
        ("walrus", ((), (), False), 1.0, "right"),
        ("walrus", ((), (), True), 1.0, "silently none"),
        ("walrus", ((), ("unsure",), True), 1.0, "warned"),
        ("walrus", (("dog",), (), True), 0.0, "silently wrong"),
        ("walrus", (("dog",), ("does not know 'walrus'",), True), 0.0, "warned"),
    ],
)
def test_judging(unknown, answer, iou, outcome):
    asked = Question(text="the walrus", targets=[], kind="name", unknown=unknown)
    mask = np.zeros((2, 2), np.bool_)
    assert natural.judge(asked, Answer(mask, *answer), iou) == outcome


def test_the_command(tmp_path, capsys, monkeypatch):
    replies = (DOOR, NOTHING, DOOR, NOTHING, "no JSON", "no JSON", "no JSON")
    monkeypatch.setattr(Pipeline, "from_preset", lambda _, **__: scripted.pipeline(*replies))
    file = question_file(
        tmp_path,
        question(),
        question("the banana", (), "absent"),
        question("the submarine", (), "unknown", unknown="submarine"),
        question(),
        question(),
    )
    out = tmp_path / "out.jsonl"
    assert natural.main(["--questions", str(file), "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    found = [line["outcome"] for line in lines]
    assert found == ["right", "right", "silently wrong", "silently none", "warned"]
    assert lines[0]["iou"] > 0.7
    head, *rows, doubted = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["n", "right"]
    assert [row.split()[:3] for row in rows] == [
        ["all", "5", "0.400"],
        ["name", "3", "0.333"],
        ["absent", "1", "1.000"],
        ["unknown", "1", "0.000"],
    ]
    assert rows[0].split()[-3:] == ["0.200"] * 3
    assert doubted == "right in spite of a warning: 0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": (5,)}, r"scene 1, 'the door': targets \[5\] of 5 objects"),
        ({"targets": (-1,)}, r"targets \[-1\] of 5 objects"),
    ],
)
def test_a_target_that_the_scene_lacks(tmp_path, change, message):
    questions = natural.read_questions(question_file(tmp_path, question(**change)))
    with pytest.raises(BadInput, match=message):
        list(natural.rendered(questions))


def test_a_broken_file_is_one_line(tmp_path, capsys):
    file = question_file(tmp_path, {"text": "the door"})
    assert natural.main(["--questions", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: 'scenes.0.questions.0.targets' is missing")
    with pytest.raises(BadInput, match="scenes count from 0, found -1"):
        list(natural.rendered(natural.read_questions(question_file(tmp_path, scene=-1))))
