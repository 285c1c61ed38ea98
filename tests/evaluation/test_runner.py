"""Runs from end to end on a handmade benchmark: numbers, failures, kills, resumption."""

import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import pytest
import staged
from rectangles import A, B, FakePipeline, filled, write_scenes

from rsvp.errors import (
    AccessDenied,
    BadInput,
    MissingExtra,
    MLLMFailed,
    ModelUnavailable,
    UnparsableReply,
)
from rsvp.evaluation.compare import compare
from rsvp.evaluation.export import export_run
from rsvp.evaluation.records import RecordsFile, read_records
from rsvp.evaluation.runner import evaluate
from rsvp.masks import encode_rle
from rsvp.platform.files import locked

# Right; one of two; rightly none; a failure; wrongly none; something where nothing is.
ANSWERS = {
    "query 0": [A],
    "query 1": [A],
    "query 2": [],
    "query 3": UnparsableReply("no answer in it", raw="gibberish"),
    "query 4": [],
    "query 5": [A],
}


@pytest.fixture
def scenes6(tmp_path):
    return write_scenes(tmp_path / "data", 6)


def run(data, out, pipeline=None, **options):
    return evaluate("scenes", data, pipeline or FakePipeline(ANSWERS), out, **options)


def records_in(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def untimed(records):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def same_but_for_seconds(a, b):
    return {**a, "seconds": 0} == {**b, "seconds": 0}


# ---------------------------------------------------------------- numbers


def test_every_number_of_the_summary_is_the_one_worked_by_hand(scenes6, tmp_path):
    summary = run(scenes6, tmp_path / "out").to_dict()
    assert (summary["n"], summary["failed"]) == (6, 1)
    # A is 64 pixels, B 192 of a box of 256.
    assert summary["giou"]["mean"] == pytest.approx((1 + 64 / 256 + 1 + 0 + 0 + 0) / 6)
    unions = 64 + 256 + 0 + 64 + 256 + 64
    assert summary["ciou"]["mean"] == pytest.approx((64 + 64) / unions)
    means = {kind: one["giou"]["mean"] for kind, one in summary["by_kind"].items()}
    assert means == pytest.approx({"name": 0.5, "all": 0.125, "absent": 0.5})
    assert summary["by_kind"]["all"]["ciou"]["mean"] == pytest.approx(64 / 512)
    assert summary["seen"]["giou"]["mean"] == pytest.approx(2 / 3)
    assert summary["unseen"]["n"] == 3
    assert summary["oracle"]["mean"] == pytest.approx((1 + 0.8 + 1 + 1 + 0.8 + 1) / 6)
    assert summary["box_recall"]["mean"] == pytest.approx((1 + 1 + 0 + 0) / (1 + 2 + 1 + 2))
    assert summary["box_to_mask"]["mean"] == pytest.approx((1 + 1.75 + 1 + 1.75) / 6)
    assert summary["absent_detected"]["mean"] == 0.5
    assert summary["false_absent"]["mean"] == 0.25  # the failure is no answer, so not a false one
    for part in (summary["giou"], summary["ciou"], summary["oracle"], summary["box_recall"]):
        assert set(part) == {"mean", "low", "high"}
        assert 0 <= part["low"] <= part["mean"] <= part["high"] <= 1
    assert summary["seconds"]["reason"] == {"mean": 0.5, "p95": 0.5}
    assert set(summary["seconds"]) == {"reason", "segment", "total", "oracle"}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


def test_a_record_says_all_about_its_sample(scenes6, tmp_path):
    run(scenes6, tmp_path / "out")
    record = records_in(tmp_path / "out")[1]
    assert record["seconds"].pop("total") > 0
    assert record["seconds"].pop("oracle") > 0
    assert record == {
        "schema_version": 1,
        "id": "001/0",
        "kind": "all",
        "tags": ["unseen"],
        "iou": 0.25,
        "intersection": 64,
        "union": 256,
        "absent": False,
        "no_target": False,
        "masks": [encode_rle(filled(A))],
        "scores": [0.9],
        "boxes": [[2.0, 2.0, 10.0, 10.0]],
        "labels": ["thing"],
        "raw_numbers": [[1.0, 2.0, 3.0, 4.0]],
        "true_boxes": 2,
        "matched_boxes": 1,
        "oracle": {
            "iou": 0.8,
            "intersection": 256,
            "union": 320,
            "objects": [1.0, 0.75],
            "path": [],
            "failure": None,
        },
        "steps": [],
        "reason": "because",
        "raw": "reply to query 1",
        "warnings": [],
        "rounds": 0,
        "verdicts": [],
        "round_costs": [],
        "agreement": None,
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "calls": 1},
        "prompt_sha256": "ab" * 32,
        "failure": None,
        "seconds": {"reason": 0.5, "segment": 0.25},
    }


def test_the_oracle_gets_the_true_boxes_and_can_be_left_out(scenes6, tmp_path):
    pipeline = FakePipeline(ANSWERS)
    run(scenes6, tmp_path / "with", pipeline)
    assert pipeline.given == ["query 0", "query 1", "query 3", "query 4"]  # not where all is absent
    pipeline = FakePipeline(ANSWERS)
    summary = run(scenes6, tmp_path / "without", pipeline, oracle=False)
    assert pipeline.given == []
    assert summary.oracle is None
    assert summary.box_to_mask is None
    assert summary.box_recall is not None
    assert all(r["oracle"] is None for r in records_in(tmp_path / "without"))


def test_the_limit_takes_the_first(scenes6, tmp_path):
    pipeline = FakePipeline(ANSWERS)
    summary = run(scenes6, tmp_path / "out", pipeline, limit=2)
    assert summary.n == 2
    assert pipeline.asked == ["query 0", "query 1"]
    assert summary.absent_detected is None  # no absent sample among them
    assert summary.to_dict()["absent_detected"] is None


def test_the_config_repeats_the_run(scenes6, tmp_path):
    run(scenes6, tmp_path / "out", settings={"preset": "embedded"})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["run"]["pipeline"]["mllm"] == "fake:reasoner"
    assert config["run"]["settings"] == {"preset": "embedded"}
    assert config["run"]["samples"] == 6
    assert len(config["run"]["data_sha256"]) == 64
    assert config["run"]["bootstrap"]["seed"] == 0
    assert config["environment"]["python"].startswith("3.")
    assert config["environment"]["packages"]["numpy"]
    assert config["environment"]["data"] == str(scenes6)


# ---------------------------------------------------------------- failures


def test_a_failed_sample_is_an_empty_prediction_with_its_cause(scenes6, tmp_path):
    run(scenes6, tmp_path / "out")
    record = records_in(tmp_path / "out")[3]
    assert record["failure"] == {"error": "UnparsableReply", "message": "no answer in it"}
    assert record["raw"] == "gibberish"
    assert (record["iou"], record["intersection"], record["union"]) == (0.0, 0, 64)
    assert record["masks"] == []
    assert record["no_target"] is None
    assert record["oracle"]["iou"] == 1.0  # the segmenter is not to blame


def test_a_failure_on_an_absent_sample_is_no_detection(scenes6, tmp_path):
    answers = {**ANSWERS, "query 2": RuntimeError("out of\nmemory")}
    summary = run(scenes6, tmp_path / "out", FakePipeline(answers))
    record = records_in(tmp_path / "out")[2]
    assert record["failure"] == {"error": "RuntimeError", "message": "out of memory"}
    assert record["iou"] == 1.0  # an empty prediction, as the protocol says
    assert summary.absent_detected.mean == 0.0


def test_a_segmenter_that_fails_on_the_true_boxes_scores_empty_in_the_oracle(scenes6, tmp_path):
    class Broken(FakePipeline):
        def segment(self, image, query="", boxes=None, points=None):
            if boxes is not None and len(boxes) == 2:
                raise RuntimeError("two are too many")
            return super().segment(image, query, boxes, points)

    summary = run(scenes6, tmp_path / "out", Broken(ANSWERS))
    assert summary.failed == 1
    record = records_in(tmp_path / "out")[1]
    assert record["failure"] is None
    assert record["oracle"]["failure"]["message"] == "two are too many"
    assert record["oracle"]["objects"] == [0.0, 0.0]
    assert summary.oracle.mean == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    "error",
    [ModelUnavailable("no weights"), MissingExtra("it", "quant"), AccessDenied("no such key")],
)
def test_a_missing_model_or_a_refused_key_ends_the_run(scenes6, tmp_path, error):
    with pytest.raises(type(error)):
        run(scenes6, tmp_path / "out", FakePipeline({**ANSWERS, "query 1": error}))
    assert [r["id"] for r in records_in(tmp_path / "out")] == ["000/0"]


def test_a_run_without_any_answer_is_an_error_with_its_cause(scenes6, tmp_path):
    answers = {f"query {i}": MLLMFailed("overloaded" if i else "odd") for i in range(6)}
    with pytest.raises(MLLMFailed, match="all 6 samples failed, 5 of them: overloaded"):
        run(scenes6, tmp_path / "out", FakePipeline(answers))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failed"] == 6
    assert run(scenes6, tmp_path / "out", retry_failed=True).failed == 1


def test_a_picture_that_does_not_fit_its_truth_is_malformed_data(scenes6, tmp_path):
    from PIL import Image as Pil

    Pil.new("RGB", (30, 24)).save(scenes6 / "001.png")
    with pytest.raises(BadInput, match=r"sample 001/0: .*001\.png is 30x24, its truth 32x24"):
        run(scenes6, tmp_path / "out")
    (scenes6 / "001.png").write_bytes(b"")
    with pytest.raises(BadInput, match=r"sample 001/0: .*001\.png is empty"):
        run(scenes6, tmp_path / "out2")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"limit": 0}, "at least 1 sample, found 0"), ({"limit": -3}, "found -3")],
)
def test_bad_options_are_refused_before_anything_is_written(scenes6, tmp_path, options, said):
    with pytest.raises(BadInput, match=said):
        run(scenes6, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_benchmark_is_named(scenes6, tmp_path):
    with pytest.raises(BadInput, match=r"'scene', did you mean 'scenes'\? Known: scenes"):
        evaluate("scene", scenes6, FakePipeline(), tmp_path / "out")


# ---------------------------------------------------------------- kills


def test_resumed_after_a_cut_at_any_byte_nothing_differs(scenes6, tmp_path):
    """A kill leaves a prefix of the file: of all its bytes, 25 places and every line's end."""
    whole = tmp_path / "whole"
    summary = run(scenes6, whole)
    data = (whole / "records.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    cuts = {0, *ends, *(e - 1 for e in ends), *random.Random(5).sample(range(len(data)), 25)}
    for cut in sorted(cuts):
        out = tmp_path / f"cut{cut}"
        out.mkdir()
        (out / "config.json").write_bytes((whole / "config.json").read_bytes())
        (out / "records.jsonl").write_bytes(data[:cut])
        pipeline = FakePipeline(ANSWERS)
        resumed = run(scenes6, out, pipeline, resume=True)
        assert untimed(records_in(out)) == untimed(records_in(whole))
        assert same_but_for_seconds(resumed.to_dict(), summary.to_dict())
        assert len(pipeline.asked) == 6 - sum(end <= cut for end in ends)


class Slow(FakePipeline):
    def segment(self, image, query="", boxes=None, points=None):
        time.sleep(0.01)
        return super().segment(image, query, boxes, points)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize(
    "pipeline",
    [lambda: Slow(ANSWERS), lambda: staged.pipeline(staged.Server(jittered, {3: "gibberish"}))],
    ids=["in turn", "overlapped"],
)
def test_killed_for_real_again_and_again(tmp_path, pipeline):
    data = write_scenes(tmp_path / "data", 40)
    summary = run(data, tmp_path / "whole", pipeline())
    out, rng = tmp_path / "out", random.Random(9)
    fork = multiprocessing.get_context("fork")
    written = []
    for _ in range(10):
        arguments = {"resume": True, "progress": False}
        process = fork.Process(target=run, args=(data, out, pipeline()), kwargs=arguments)
        process.start()
        time.sleep(rng.uniform(0.02, 0.15))
        process.kill()
        process.join()
        records = out / "records.jsonl"
        written.append(records.read_bytes().count(b"\n") if records.exists() else 0)
    assert written == sorted(written)  # nothing is ever lost
    resumed = run(data, out, pipeline(), resume=True)
    assert untimed(records_in(out)) == untimed(records_in(tmp_path / "whole"))
    assert same_but_for_seconds(resumed.to_dict(), summary.to_dict())


def jittered(number):
    """Seconds of a reply, so that samples are not done in their order."""
    return random.Random(number).uniform(0, 0.1)


def test_an_interrupt_keeps_what_is_done(scenes6, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(scenes6, tmp_path / "out", FakePipeline({**ANSWERS, "query 4": KeyboardInterrupt()}))
    assert len(records_in(tmp_path / "out")) == 4
    assert run(scenes6, tmp_path / "out", resume=True).n == 6


def test_resuming_a_finished_run_asks_nothing_and_changes_nothing(scenes6, tmp_path):
    out = tmp_path / "out"
    run(scenes6, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    pipeline = FakePipeline(ANSWERS)
    run(scenes6, out, pipeline, resume=True)
    assert pipeline.asked == []
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_new_folder_may_be_resumed_too(scenes6, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json.part").write_text("{")  # killed while the config was written
    assert run(scenes6, tmp_path / "out", resume=True).n == 6


def test_records_reach_the_disk_in_groups(scenes6, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with RecordsFile(tmp_path / "records.jsonl", sync_every=4) as stream:
        for i in range(10):
            stream.append({"id": str(i)})
            assert len(list(read_records(tmp_path / "records.jsonl"))) == i + 1  # seen at once
        assert len(synced) == 2
    assert len(synced) == 3


def test_text_that_utf8_cannot_hold_survives(tmp_path):
    record = {"id": "a", "raw": "café \udcff 猫 \\ \n"}
    with RecordsFile(tmp_path / "records.jsonl") as stream:
        stream.append(record)
    assert list(read_records(tmp_path / "records.jsonl")) == [record]


# ---------------------------------------------------------------- refusals


def test_a_folder_in_use_is_not_overwritten(scenes6, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty; use --resume"):
        run(scenes6, out)
    with pytest.raises(BadInput, match=r"holds no run to resume: config.json is missing"):
        run(scenes6, out, resume=True)
    assert [file.name for file in out.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"pipeline": FakePipeline(mllm="fake:other")},
            "its pipeline.mllm is 'fake:reasoner', now",
        ),
        ({"limit": 3}, "its samples is 6, now it is 3"),
        ({"oracle": False}, "its oracle is True, now it is False"),
        ({"settings": {"preset": "api"}}, "its settings.preset is None, now it is 'api'"),
    ],
)
def test_another_run_is_not_resumed(scenes6, tmp_path, options, said):
    run(scenes6, tmp_path / "out")
    with pytest.raises(BadInput, match=said):
        run(scenes6, tmp_path / "out", resume=True, **options)


def test_other_data_is_not_resumed(scenes6, tmp_path):
    run(scenes6, tmp_path / "out")
    text = (scenes6 / "scenes.json").read_text()
    (scenes6 / "scenes.json").write_text(text.replace("query 5", "query five"))
    with pytest.raises(BadInput, match="its data_sha256 is"):
        run(scenes6, tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [lines[0].replace("000/0", "x"), *lines[1:]], "'x' is not a sample"),
        (lambda lines: [lines[0], "{", *lines[2:]], "line 2 is not a record"),
        (lambda lines: ['{"id": "000/0"}', *lines[1:]], "record of '000/0' is not complete"),
    ],
)
def test_spoilt_records_are_named(scenes6, tmp_path, spoil, said):
    run(scenes6, tmp_path / "out")
    file: Path = tmp_path / "out" / "records.jsonl"
    file.write_text("\n".join(spoil(file.read_text().splitlines())) + "\n")
    with pytest.raises(BadInput, match=said):
        run(scenes6, tmp_path / "out", resume=True)


def test_a_second_record_of_a_sample_is_left_out(scenes6, tmp_path):
    """Two processes on one folder once wrote such files."""
    out = tmp_path / "out"
    summary = run(scenes6, out)
    whole = (out / "records.jsonl").read_bytes()
    first, rest = whole.split(b"\n", 1)
    second = first.replace(b'"iou":1.0', b'"iou":0.5')
    (out / "records.jsonl").write_bytes(b"\n".join([first, second, rest]))
    assert compare(out, out).overall.n == 6
    (exported,) = export_run(out, tmp_path / "exported")
    assert exported.read_bytes().count(b"\n") == 6
    assert run(scenes6, out, resume=True) == summary
    assert (out / "records.jsonl").read_bytes() == whole


def test_a_folder_in_which_another_run_is_at_work_is_refused(scenes6, tmp_path):
    with (
        locked(tmp_path / "out"),
        pytest.raises(BadInput, match=r"another rsvp is at work in .*out"),
    ):
        run(scenes6, tmp_path / "out", resume=True)
    assert list((tmp_path / "out").iterdir()) == []


# ---------------------------------------------------------------- the terminal


def test_nothing_is_printed_where_stderr_is_no_terminal(scenes6, tmp_path, capfd):
    run(scenes6, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_the_running_score_and_the_failures(scenes6, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    run(scenes6, tmp_path / "out")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "6/6" in shown.err
    assert "gIoU 0.375" in shown.err
    assert "1 failed" in shown.err


def test_the_box_of_b_is_not_its_mask():
    """The numbers above rest on it."""
    assert B.area == 256
