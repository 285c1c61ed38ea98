"""Verification, sampling and budgets in a run: its records, its config, and where it ends."""

from __future__ import annotations

import json
import threading
import time

import pytest
from rectangles import write_scenes
from scripted import Script, answer, pipeline

from rsvp import registry
from rsvp.cli.main import main
from rsvp.dialogue import Limits
from rsvp.errors import RunBudgetExceeded
from rsvp.evaluation.runner import evaluate
from rsvp.types import Reply, Usage

FOUND = answer((100, 100, 400, 400))
MOVED = json.dumps({
    "verdicts": [{"target": 1, "verdict": "correct", "reason": "r", "box": [500, 500, 900, 900]}],
    "missing": [],
})  # fmt: skip
ACCEPTED = MOVED.replace("correct", "accept")


class Checker(Script):
    """Names a target, corrects it, then accepts it, whichever sample is asked about."""

    def reply(self, messages, *, schema=None):
        self.asked.append(tuple(messages))
        last = [p for p in messages[-1].parts if isinstance(p, str)][-1]
        seen = sum("Decide now" in str(m[-1].parts[-1]) for m in self.asked)
        said = FOUND if "Decide now" not in last else MOVED if seen % 2 else ACCEPTED
        return Reply(said, Usage(100, 10, 1), seconds=0.5)


def rows(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("concurrency", [0, 1])
def test_a_record_says_what_each_round_decided_and_cost(tmp_path, concurrency) -> None:
    data = write_scenes(tmp_path / "data", 3)
    pipe = pipeline("", verify=2)
    pipe.mllm = Checker("")
    evaluate("scenes", data, pipe, tmp_path / "out", progress=False, concurrency=concurrency)
    for row in rows(tmp_path / "out"):
        assert (row["rounds"], row["usage"]["calls"]) == (2, 3)
        assert [v["verdict"] for v in row["verdicts"]] == ["correct", "accept"]
        assert row["round_costs"][0] == {
            "round": 1, "calls": 1, "prompt_tokens": 100, "completion_tokens": 10,
            "seconds": 0.5, "usd": None,
        }  # fmt: skip
    described = json.loads((tmp_path / "out/config.json").read_text())["run"]["pipeline"]
    assert described["verify"]["rounds"] == 2
    assert "full/verify" in described["verify_prompts"]


def test_several_samples_are_verified_at_the_same_time(tmp_path) -> None:
    data, inside, most = write_scenes(tmp_path / "data", 4), threading.Semaphore(9), []

    class Slow(Checker):
        remote = True

        def reply(self, messages, *, schema=None):
            inside.acquire()
            most.append(9 - inside._value)
            time.sleep(0.05)
            inside.release()
            checks = "Decide now" in str(messages[-1].parts[-1])
            return Reply(ACCEPTED if checks else FOUND, Usage(1, 1, 1))

    pipe = pipeline("", verify=1, remote=True)
    pipe.mllm = Slow("", remote=True)
    evaluate("scenes", data, pipe, tmp_path / "out", progress=False, concurrency=4)
    assert max(most) > 1
    assert all(row["rounds"] == 1 for row in rows(tmp_path / "out"))


def test_the_budget_of_a_run_ends_it_and_resume_goes_on(tmp_path) -> None:
    data, out = write_scenes(tmp_path / "data", 5), tmp_path / "out"
    pipe = pipeline(FOUND, run_limits=Limits(calls=2))
    with pytest.raises(RunBudgetExceeded, match="budget of the run"):
        evaluate("scenes", data, pipe, out, progress=False, concurrency=1)
    assert [row["failure"] for row in rows(out)] == [None, None]
    whole = evaluate("scenes", data, pipeline(FOUND), out, progress=False, resume=True)
    assert (len(rows(out)), whole.failed) == (5, 0)


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    data = write_scenes(tmp_path / "data", 2)
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "one", "test_eval_verify:the_script")
    monkeypatch.setitem(globals(), "the_script", lambda: Checker(""))
    words = ["eval", "scenes", "--data", str(data), "--mllm", "one", "--strategy", "boxes"]
    words += ["--segmenter", "box", "--verify", "1", "--verify-all", "--samples", "3:0.9"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    described = json.loads((tmp_path / "a/config.json").read_text())["run"]["pipeline"]
    assert (described["samples"], described["temperature"]) == (3, 0.9)
    assert described["verify"] == {"rounds": 1, "clear": None, "batch": 12}
    assert [row["agreement"] for row in rows(tmp_path / "a")] == [1.0, 1.0]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "b"), "--run-budget", "calls=3"]) == 3
    assert "the budget of the run (calls=3) is spent" in capsys.readouterr().err
