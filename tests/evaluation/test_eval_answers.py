"""Runs of questions from end to end: what is asked, counted, resumed, compared and reported."""

import json
import re

import numpy as np
import pytest
from PIL import Image as Pil
from rectangles import SIZE, A, B, filled, mask_of_b
from scripted import Recorder

from rsvp.answer import Zoom
from rsvp.cli.main import main
from rsvp.datasets.vqa import Question
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation.answers import AnswerWork
from rsvp.evaluation.benchmarks import find
from rsvp.evaluation.compare import compare
from rsvp.evaluation.engines.local import LocalEngine
from rsvp.evaluation.report.text import format_answers, format_comparison
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.score import score
from rsvp.masks import encode_rle
from rsvp.pipeline import Pipeline
from rsvp.result import Answer
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Image, ModelNames, Reasoning, Reply, Usage

CHOICES = ("B", "A", "C")  # letters, so that letter and words disagree


class Asked:
    """Looks at the cup in questions with "tag", and reads right what it is shown larger."""

    name, model = "script:asked", "qwen3-vl"

    def __init__(self, remote=False, failing=()):
        self.remote, self.failing = remote, set(failing)
        self.questions = []

    def reply(self, messages, *, schema=None):
        text = messages[-1].parts[-1]
        if "=== query" in text:
            box = [round(1000 * v / n, 2) for v, n in zip(A.xyxy, (32, 24) * 2, strict=True)]
            return self.said({"targets": [{"label": "cup", "box": box}], "reason": "r"})
        number = int(re.search(r"^question (\d+)", text, re.M)[1])
        self.questions.append(number)
        if number in self.failing:
            raise MLLMFailed("overloaded")
        seen = any("Observation 1: above" in p for p in messages[-1].parts if isinstance(p, str))
        if "look" in schema["properties"] and number % 2 == 0 and not seen:
            return self.said({"reason": "too small", "look": ["the cup"], "answer": None})
        return self.said({"reason": "r", "answer": "A" if number % 2 or seen else "B"})

    @staticmethod
    def said(value):
        return Reply(json.dumps(value), Usage(100, 10, 1))


def pipeline(**options):
    return Pipeline(Asked(**options), BoxesStrategy(), Recorder(), max_reasks=0)


def write_questions(folder, n):
    """n questions: the even ones need a look at the cup; the right answer is always "A"."""
    folder.mkdir(exist_ok=True)
    objects = [
        {"name": name, "box": list(box.xyxy), "mask": encode_rle(mask)}
        for name, box, mask in (("cup", A, filled(A)), ("pan", B, mask_of_b()))
    ]
    scenes = []
    for i in range(n):
        Pil.new("RGB", (SIZE[1], SIZE[0]), (i, 90, 90)).save(folder / f"{i:03d}.png")
        question = {
            "id": f"{i:03d}/0", "kind": ("tag", "count")[i % 2], "text": f"question {i}",
            "choices": CHOICES, "answer": 1, "targets": [0], "needs_look": i % 2 == 0,
        }  # fmt: skip
        scene = {"image": f"{i:03d}.png", "height": SIZE[0], "width": SIZE[1]}
        scenes.append({**scene, "objects": objects, "questions": [question]})
    document = {"version": 1, "task": "qa", "scenes": scenes}
    (folder / "scenes.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def data(tmp_path):
    return write_questions(tmp_path / "data", 6)


def run(data, out, pipe=None, **options):
    return evaluate("scenes", data, pipe or pipeline(), out, progress=False, **options)


def records_in(folder):
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def test_scores_looks_and_the_oracle_by_kind(data, tmp_path):
    found = run(data, tmp_path / "mask", zoom="mask").to_dict()
    assert (found["n"], found["failed"], found["unanswered"], found["unread"]) == (6, 0, 0, 0)
    assert found["accuracy"]["mean"] == found["oracle"]["mean"] == 1.0
    assert found["looked"]["mean"] == 0.5
    assert found["found"]["mean"] == 1.0
    assert found["needs_look"]["accuracy"]["mean"] == 1.0
    assert found["by_kind"]["tag"].keys() == {"n", "accuracy", "oracle"}
    assert found["usage"] == {"prompt_tokens": 200.0, "completion_tokens": 20.0, "calls": 2.0}
    assert json.loads((tmp_path / "mask" / "summary.json").read_text()) == found
    none = run(data, tmp_path / "none", zoom="none").to_dict()
    assert (none["accuracy"]["mean"], none["oracle"], none["looked"]["mean"]) == (0.5, None, 0.0)
    assert none["by_kind"]["tag"]["accuracy"]["mean"] == 0.0


def test_a_record_holds_the_answer_and_the_looks(data, tmp_path):
    run(data, tmp_path / "out", zoom="box")
    record = records_in(tmp_path / "out")[0]
    (look,) = record["looks"]
    assert (record["text"], record["choice"], record["right"]) == ("A", 1, True)
    assert (record["choices"], record["tags"]) == (list(CHOICES), ["needs_look"])
    assert (look["query"], look["size"]) == ("the cup", [48, 52])
    assert len(look["masks"]) == 1
    assert record["oracle"] == {"text": "A", "right": True, "failure": None}
    assert score("scenes", data, tmp_path / "out/records.jsonl").numbers["accuracy"].mean == 1.0


def test_a_failure_is_wrong_and_asked_again(data, tmp_path):
    out = tmp_path / "out"
    first = run(data, out, pipeline(failing=[1]), zoom="mask").to_dict()
    assert (first["failed"], first["unanswered"]) == (1, 1)
    assert first["accuracy"]["mean"] == pytest.approx(5 / 6)
    again = pipeline()
    assert run(data, out, again, zoom="mask", retry_failed=True).to_dict()["failed"] == 0
    assert set(again.mllm.questions) == {1}
    with pytest.raises(BadInput, match=r"its settings\.zoom is 'mask', now it is 'box'"):
        run(data, out, zoom="box", resume=True)


def test_a_server_is_asked_several_at_once_with_the_same_records(data, tmp_path):
    run(data, tmp_path / "one", pipeline(), zoom="mask")
    run(data, tmp_path / "many", pipeline(remote=True), zoom="mask")
    assert records_in(tmp_path / "one") == records_in(tmp_path / "many")


def test_two_runs_are_compared_by_their_accuracy(data, tmp_path):
    for zoom in ("none", "mask"):
        run(data, tmp_path / zoom, zoom=zoom)
    found = compare(tmp_path / "none", tmp_path / "mask")
    assert found.overall.giou.mean == pytest.approx(0.5)
    assert found.to_dict()["by_kind"]["tag"]["accuracy"]["mean"] == 1.0
    assert [flip.id for flip in found.gained] == ["000/0", "002/0", "004/0"]
    text = format_comparison(found)
    assert "accuracy, B - A" in text
    assert "3 answered by B only:" in text
    assert "IoU" not in text


def test_the_report_shows_the_looks(data, tmp_path):
    summary = run(data, tmp_path / "out", zoom="mask:white")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "looked at: the cup" in page
    assert "choices: B / A / C" in page
    assert page.count("data:image/jpeg") >= 6
    assert "IoU" not in page
    text = format_answers(summary)
    assert "calls a question" in text
    assert re.search(r"^tag +3 +1\.000", text, re.M)


def test_the_command_runs_and_refuses(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Pipeline, "from_preset", lambda *_, **__: pipeline())
    command = ["eval", "scenes", "--data", str(data), "--json", "--out"]
    assert main([*command, str(tmp_path / "a"), "--zoom", "mask", "--looks", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["mean"] == 1.0
    for options in (["--zoom", "sparse"], ["--zoom", "wide"], ["--engine", "ray"]):
        assert main([*command, str(tmp_path / "b"), *options]) == 2


class NoImage:
    """One question of HallusionBench about no figure."""

    has_true_looks = False

    def __getitem__(self, index):
        return Question("q", None, "question 1", answer="no", group=("", "q"))


def test_a_question_without_an_image_is_asked_without_one():
    asked = pipeline()
    work = AnswerWork(NoImage(), [0], find("hallusionbench"), Zoom("mask"), 2)
    seen, reply = [], asked.mllm.reply

    def recorded(messages, *, schema):
        seen.append(messages)
        return reply(messages, schema=schema)

    asked.mllm.reply = recorded
    (record,) = LocalEngine(asked, concurrency=0)(work)
    assert all(isinstance(part, str) for message in seen[0] for part in message.parts)
    assert "Answer yes or no." in seen[0][-1].parts[-1]
    assert record.right is True  # "A" is neither: without the figure that is right


@pytest.mark.parametrize(
    ("name", "choice", "answer", "written"),
    [("vstar", 1, "blue", "B"), ("scenes-qa", 1, "blue", "blue"), ("pope", None, "no", "no")],
)
def test_an_answer_is_written_as_its_benchmark_reads_it(name, choice, answer, written):
    names = ModelNames(None, None, "s", None)
    image = Image(np.zeros((2, 2, 3), np.uint8), "")
    found = Answer(image, "q", Reasoning((), (), ""), (), names, answer=answer, choice=choice)
    assert find(name).written(found) == written
