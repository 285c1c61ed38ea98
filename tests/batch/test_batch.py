"""`rsvp batch` with a chat server on loopback, and with scripted parts."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, Server, completion, refusal
from PIL import Image as Pil
from pycocotools.coco import COCO
from scripted import Recorder, Script

from rsvp.batch.items import BatchItem, read_items
from rsvp.batch.runner import Batch
from rsvp.batch.work import BatchRecord
from rsvp.cli.main import main
from rsvp.evaluation import pending
from rsvp.pipeline import Pipeline
from rsvp.reasoning import ReasoningOutput
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Image

SIZE = (32, 24)  # width, height
BOXES = {"cup": [100, 100, 400, 600], "pan": [500, 200, 900, 800]}  # 0 to 1000
MODELS = ["--mllm", "openai:m", "--segmenter", "box", "--option", "max_retries=0"]


def reply(query: str) -> str:
    targets = [{"label": word, "box": BOXES[word]} for word in BOXES if word in query]
    return json.dumps({"targets": targets, "reason": "it fits"})


def answer(request: dict[str, Any]) -> Answer:
    """The boxes of the query's words; some queries fail."""
    parts = request["messages"][1]["content"]
    query = re.findall(r"cup|pan|lid|gibberish|error", parts[-1]["text"].split("Query")[-1])
    time.sleep(random.Random(len(str(request))).uniform(0, 0.02))
    if "error" in query:
        return refusal(400, "no such thing")
    return completion("?" if "gibberish" in query else reply(" ".join(query)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    running.answers = [answer]
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    yield running
    running.http.shutdown()
    running.http.server_close()


def write_images(folder: Path, n: int) -> Path:
    """n images, every other one in a folder below."""
    (folder / "sub").mkdir(parents=True)
    for i in range(n):
        Pil.new("RGB", SIZE, (i % 256, 90, i // 256)).save(
            folder / ("sub" * (i % 2)) / f"{i:03d}.png"
        )
    return folder


def lines_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("timings", None)
    return lines


def run(*words: object) -> int:
    return main(["batch", *map(str, words), *MODELS])


def test_a_folder_becomes_records_and_the_exit_code_tells(tmp_path, server, capsys) -> None:
    data, out = write_images(tmp_path / "in", 6), tmp_path / "out"
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    words = ["--input", data, "--query", "the cup", "--query", "the lid", "--out", out, "--json"]
    assert run(*words) == 2
    lines = lines_of(out)
    assert [line["id"] for line in lines[:3]] == ["000.png#1", "000.png#2", "002.png#1"]
    assert [len(line.get("targets", "-")) for line in lines] == [1, 0] * 3 + [1, 1] + [1, 0] * 3
    assert lines[6]["error"]["type"] == "BadInput"
    assert "broken.jpg" in lines[6]["error"]["message"]
    result = Pipeline.from_preset("embedded", mllm="openai:m", segmenter="box").segment(
        data / "000.png", "the cup"
    )
    assert lines[0]["targets"] == result.to_dict()["targets"]
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["n"], found["failed"], found["no_target"], found["tokens"]) == (14, 2, 6, 120)
    assert said.err.count("\n") == 1
    assert "2 of 14 queries failed: " in said.err


def test_a_failed_mllm_is_exit_code_3_and_asked_again_alone(tmp_path, server, capsys) -> None:
    data, out = write_images(tmp_path / "in", 5), tmp_path / "out"
    server.answers = [refusal(500, "the GPU fell off"), completion("?"), answer]
    words = ["--input", data, "--query", "cup", "--out", out, "--concurrency", "1"]
    more = ["--option", "max_retries=0"]
    assert run(*words, *more) == 3
    assert sum("error" in line for line in lines_of(out)) == 1  # the second is asked again
    before = len(server.requests)
    assert run(*words, "--resume") == 3
    assert len(server.requests) == before
    assert run(*words, "--retry-failed") == 0
    assert len(server.requests) == before + 1
    assert [line["id"] for line in lines_of(out)] == [
        item.id for item in read_items(str(data), ["x"])
    ]


@pytest.mark.parametrize("kept", [0, 3.5])
def test_a_resumed_batch_is_as_one_that_never_stopped(tmp_path, server, kept) -> None:
    data = write_images(tmp_path / "in", 8)
    whole, part = tmp_path / "whole", tmp_path / "part"
    words = ["--input", data, "--query", "cup and pan", "--format", "coco,coco-rle,yolo"]
    assert run(*words, "--out", whole) == 0
    assert run(*words, "--out", part) == 0
    for path in (part / "coco.json", part / "categories.json", part / "yolo" / "data.yaml"):
        path.unlink()
    torn = (part / "results.jsonl").read_bytes().splitlines(keepends=True)[::-1]
    (part / "results.jsonl").write_bytes(
        b"".join(torn[: int(kept)]) + torn[-1][: 100 * int(kept % 1 > 0)]
    )
    assert run(*words, "--out", part, "--resume") == 0
    assert lines_of(part) == lines_of(whole)
    for name in ("coco.json", "coco-rle.json", "categories.json", "yolo/labels/sub/001.txt"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--query", "pan"], "'000.png' was asked {'query': 'cup'}, now it is {'query': 'pan'}"),
        (["--query", "cup", "--no-cot"], "its pipeline.prompts.full/boxes.direct is None"),
    ],
)
def test_another_batch_is_not_resumed(tmp_path, server, change, said, capsys) -> None:
    data, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    assert run("--input", data, "--query", "cup", "--out", out) == 0
    assert run("--input", data, "--out", out, "--resume", *change) == 2
    assert said in capsys.readouterr().err


def test_more_images_are_added_and_categories_keep_their_numbers(tmp_path, server) -> None:
    data, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    lines = [{"image": "000.png", "query": "pan"}, {"image": "sub/001.png", "query": "cup"}]
    file = data / "list.jsonl"
    words = ["--input", file, "--out", out, "--format", "coco,yolo"]
    file.write_text(json.dumps(lines[0]))
    assert run(*words) == 0
    file.write_text("\n".join(map(json.dumps, reversed(lines))))
    assert run(*words, "--resume") == 0
    coco = json.loads((out / "coco.json").read_text())
    assert [one["name"] for one in coco["categories"]] == ["pan", "cup"]
    assert (out / "yolo/labels/sub/001.txt").read_text().startswith("1 ")
    assert len(server.requests) == 2


def test_coco_has_the_masks_of_all_queries(tmp_path, server) -> None:
    data, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    words = ["--input", data, "--query", "cup", "--query", "lid", "--query", "pan"]
    assert run(*words, "--out", out, "--format", "coco,coco-rle") == 0
    for name in ("coco.json", "coco-rle.json"):
        coco = COCO(str(out / name))
        assert [one["file_name"] for one in coco.dataset["images"]] == [
            "000.png", "002.png", "sub/001.png"
        ]  # fmt: skip
        for image in coco.getImgIds():
            masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(image))]
            assert [int(mask.sum()) for mask in masks] == [10 * 12, 13 * 14]


def test_each_image_has_files_of_its_own(tmp_path, server) -> None:
    data, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    formats = "labelme,index,overlay,png,yolo"
    words = ["--input", data, "--query", "cup pan", "--out", out, "--format", formats]
    assert run(*words) == 0
    labelme = out / "labelme" / "sub" / "001.json"
    found = json.loads(labelme.read_text())
    assert (labelme.parent / found["imagePath"]).resolve() == (data / "sub" / "001.png").resolve()
    assert [shape["label"] for shape in found["shapes"]] == ["cup", "pan"]
    assert set(np.unique(np.array(Pil.open(out / "index" / "sub" / "001.png")))) == {0, 1, 2}
    assert {p.name for p in (out / "png" / "000").iterdir()} == {"000.png", "001.png"}
    assert (out / "overlay" / "000.png").is_file()
    assert (out / "yolo" / "images" / "sub" / "001.png").is_file()


@pytest.mark.parametrize("name", ["json", "prompt", "nonsense"])
def test_formats_of_one_result_alone_are_refused(tmp_path, name, capsys) -> None:
    data = write_images(tmp_path / "in", 1)
    assert run("--input", data, "--query", "x", "--out", tmp_path / "o", "--format", name) == 2
    assert not (tmp_path / "o").exists()


def test_a_changed_image_is_no_part_of_the_data_set(tmp_path, server, capsys) -> None:
    data, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    words = ["--input", data, "--query", "cup", "--out", out]
    assert run(*words) == 0
    Pil.new("RGB", SIZE, "red").save(data / "000.png")
    assert run(*words, "--resume", "--format", "yolo") == 2
    assert "000.png has changed since it was segmented" in capsys.readouterr().err


def test_a_refused_key_ends_the_batch(tmp_path, server, capsys) -> None:
    data, out = write_images(tmp_path / "in", 5), tmp_path / "out"
    server.answers = [answer, refusal(401, "no access")]
    assert run("--input", data, "--query", "cup", "--out", out, "--concurrency", "1") == 3
    assert len(lines_of(out)) == 1


def test_a_log_gets_lines_with_the_time_left(tmp_path, server, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pending, "EVERY", 0.0)
    data = write_images(tmp_path / "in", 3)
    words = ["--input", data, "--query", "cup", "--query", "error", "--out", tmp_path / "out"]
    assert run(*words) == 3
    last = capsys.readouterr().err.splitlines()[-2]
    assert re.fullmatch(
        r"batch: 6 of 6, queries/s \d+\.\d+, 30 tokens, 3 failed, 0:00:00 left", last
    )
    assert run(*words[:-1], tmp_path / "quiet", "--quiet") == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_spent_budget_ends_the_batch_and_resume_goes_on(tmp_path, server, capsys) -> None:
    data, out = write_images(tmp_path / "in", 5), tmp_path / "out"
    words = ["--input", data, "--query", "cup", "--out", out, "--concurrency", "1"]
    assert run(*words, "--run-budget", "calls=3") == 3
    assert len(lines_of(out)) == len(server.requests) == 3
    assert run(*words, "--resume") == 0
    assert len(lines_of(out)) == len(server.requests) == 5


# ------------------------------------------------------------ Python


class SlowScript(Script):
    """A remote MLLM that knows `BOXES`."""

    def __init__(self) -> None:
        super().__init__("", remote=True)

    def reply(self, messages, *, schema=None):
        time.sleep(random.Random(len(self.asked)).uniform(0, 0.03))
        self.lines = [reply(messages[-1].parts[-1].split("Query")[-1])]
        return super().reply(messages, schema=schema)


def scripted(segmenter: Recorder, mllm: Script | None = None) -> Pipeline:
    return Pipeline(mllm or Script(reply("cup"), remote=True), BoxesStrategy(), segmenter)


@pytest.mark.parametrize("concurrency", [0, 1, None])
def test_an_image_is_encoded_once_for_all_its_queries(tmp_path, concurrency) -> None:
    data, segmenter = write_images(tmp_path / "in", 30), Recorder()
    items = read_items(str(data), ["cup", "pan"])
    random.Random(1).shuffle(items)
    batch = Batch(
        items, scripted(segmenter, SlowScript()), tmp_path / "out", concurrency=concurrency
    )
    assert batch.run().failed == 0
    assert len(segmenter.encoded) == len(set(segmenter.encoded)) == 30


def test_iterating_gives_records_as_they_are_written(tmp_path) -> None:
    items = read_items(str(write_images(tmp_path / "in", 9)), ["cup"])
    batch = Batch(items, scripted(Recorder()), tmp_path / "out")
    seen = set()
    for record in batch:
        seen.add(record.id)
        assert len((tmp_path / "out" / "results.jsonl").read_bytes().splitlines()) == len(seen)
        if len(seen) == 4:
            break
    resumed = Batch(items, scripted(Recorder()), tmp_path / "out", resume=True)
    assert {one.id for one in resumed} == {item.id for item in items} - seen


ASKED: dict[str, dict[str, Any]] = {
    "boxes": {"boxes": [[1, 2, 9, 8], [4, 4, 20, 20]], "labels": ["one", "two"]},
    "point": {"points": [[5, 6], [9, 9, 0]]},
    "hints": {"query": "cup", "within": [0, 0, 20, 20], "exclude": [[1, 1]]},
}


def answered(data: Path, out: Path, asked: dict[str, Any]) -> BatchRecord:
    line = json.dumps({"image": str(data / "000.png"), **asked})
    (record,) = Batch(read_items("-", stdin=line.encode()), scripted(Recorder()), out)
    return record


@pytest.mark.parametrize("name", ASKED)
def test_boxes_points_and_hints_are_those_of_the_pipeline(tmp_path, name) -> None:
    data = write_images(tmp_path / "in", 1)
    found = answered(data, tmp_path / "out", ASKED[name]).to_dict()
    expected = scripted(Recorder()).segment(data / "000.png", **ASKED[name]).to_dict()
    for key in ("targets", "warnings", "query", "reason", "models", "image"):
        assert found[key] == expected[key]


class OwnTask:
    """A task that leaves some items whole to stage 2."""

    name, one_stage = "own", False

    def check(self, pipeline: Pipeline) -> None:
        """Nothing to refuse."""

    def described(self, pipeline: Pipeline) -> dict[str, Any]:
        return {}

    def reason(self, pipeline: Pipeline, item: BatchItem, image: Image) -> ReasoningOutput | None:
        return None if item.boxes else pipeline.reason(image, item.query)


@pytest.mark.parametrize("name", ["boxes", "query"])
def test_a_task_says_nothing_of_stage_2(tmp_path, name) -> None:
    asked, data = ASKED.get(name, {"query": "cup"}), write_images(tmp_path / "in", 1)
    line = json.dumps({"image": str(data / "000.png"), **asked})
    items = read_items("-", stdin=line.encode())
    (record,) = Batch(items, scripted(Recorder()), tmp_path / "out", task=OwnTask())
    assert record.error is None
    assert not record.no_target


def test_a_box_outside_the_image_is_a_failure(tmp_path) -> None:
    data = write_images(tmp_path / "in", 1)
    record = answered(data, tmp_path / "out", {"boxes": [[900, 900, 999, 999]]})
    assert record.error is not None
    assert "lies outside the image" in record.error.message


def test_broken_images_among_others_end_nothing(tmp_path) -> None:
    data = write_images(tmp_path / "in", 6)
    os.mkfifo(data / "pipe.png")
    (data / "empty.jpg").touch()
    (data / "folder.png").mkdir()
    items = [*read_items(str(data), ["cup"]), *read_items("-", ["cup"], stdin=b"missing.png")]
    batch = Batch(items, scripted(Recorder()), tmp_path / "out", formats=["coco"])
    assert {r.id: r.error.type for r in batch if r.error} == dict.fromkeys(
        ("pipe.png", "empty.jpg", "missing.png"), "BadInput"
    )
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == 6


def test_questions_are_answered_as_by_the_pipeline(tmp_path, server) -> None:
    data, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    server.answers = [completion(json.dumps({"reason": "r", "look": [], "answer": "the cup"}))]
    lines = [
        {"image": f"sub/{i:03d}.png", "question": "which?", "choices": ["the pan", "the cup"]}
        for i in (1,)
    ]
    (data / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert (
        run("--input", data / "list.jsonl", "--task", "answer", "--zoom", "box", "--out", out) == 0
    )
    (line,) = lines_of(out)
    assert (line["answer"], line["choice"], line["zoom"]) == ("the cup", 1, "box")
    assert json.loads((out / "config.json").read_text())["run"]["pipeline"]["zoom"] == "box"
    assert (
        run(
            "--input",
            data / "list.jsonl",
            "--task",
            "answer",
            "--zoom",
            "mask",
            "--out",
            out,
            "--resume",
        )
        == 2
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "paint"], "the task is segment, answer, trace"),
        (["--zoom", "box"], "--zoom and --looks are of --task answer"),
        (["--task", "answer", "--zoom", "wide"], "zoom is"),
    ],
)
def test_tasks_that_cannot_be_done(tmp_path, server, words, said, capsys) -> None:
    data = write_images(tmp_path / "in", 1)
    assert run("--input", data, "--query", "x", "--out", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err


def test_paths_are_traced_as_by_the_pipeline(tmp_path, server) -> None:
    data, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    things = [{"label": word, "box": BOXES[word]} for word in BOXES]
    path = {"steps": [{"text": "a cup and a pan", "objects": things}], "answer": "the cup"}
    server.answers = [completion(json.dumps({**path, "targets": things[:1], "reason": "r"}))]
    words = ["--input", data, "--query", "which?", "--task", "trace", "--format", "coco-rle"]
    assert run(*words, "--out", out) == 0
    (line,) = lines_of(out)
    pipeline = Pipeline.from_preset("embedded", mllm="openai:m", segmenter="box")
    expected = pipeline.trace(data / "000.png", "which?").to_dict()
    assert (line["path"], line["answer_objects"]) == (expected["path"], expected["answer_objects"])
    coco = json.loads((out / "coco-rle.json").read_text())
    assert [one["name"] for one in coco["categories"]] == ["cup", "pan"]
    assert len(coco["annotations"]) == 2


@pytest.mark.slow
def test_ray_gives_the_same_records(tmp_path, server) -> None:
    pytest.importorskip("ray")
    data = write_images(tmp_path / "in", 4)
    (data / "broken.jpg").touch()
    hinted = {"image": "000.png", "id": "hinted", "query": "cup", "within": [0, 0, 8, 8]}
    lines = [{"image": str(p), "query": "cup"} for p in sorted(data.rglob("*.*g"))]
    (data / "list.jsonl").write_text("\n".join(map(json.dumps, [*lines, hinted])))
    words = ["--input", data / "list.jsonl", "--format", "coco"]
    shares = ["--engine", "ray", "--reasoner-cpus", "0.5", "--segmenter-cpus", "0.5"]
    assert run(*words, "--out", tmp_path / "local") == 2
    assert run(*words, "--out", tmp_path / "ray", *shares) == 2
    assert sum("error" in line for line in lines_of(tmp_path / "ray")) == 1
    for line in (one := lines_of(tmp_path / "local")):
        line["image"]["path"] = os.path.abspath(line["image"]["path"])
    assert lines_of(tmp_path / "ray") == one
    assert (tmp_path / "ray/coco.json").read_bytes() == (tmp_path / "local/coco.json").read_bytes()
