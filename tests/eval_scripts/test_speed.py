"""The timing of `rsvp segment`: real processes, with a recorded MLLM and filled boxes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import demo_truth
import numpy as np
import pytest
from PIL import Image as Pil

from eval import speed
from rsvp.mllm.replay import ReplayMLLM
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Reply, Usage

ROOT = Path(__file__).parents[2]


class Scripted:
    """Finds a cup, or nothing."""

    name = "scripted"
    model = "qwen3-vl"

    def __init__(self, *boxes: list[int]) -> None:
        targets = ",".join(f'{{"label":"cup","box":{box}}}' for box in boxes)
        self.text = f'{{"targets":[{targets}],"reason":"it is there"}}'

    def reply(self, messages, *, schema=None):
        return Reply(self.text, Usage(100, 20, 1))


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`options(*boxes)`: a picture, and a recording of the answer with these boxes."""
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image, replies = tmp_path / "a.png", tmp_path / "replies.jsonl"
    Pil.fromarray(rgb).save(image)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def record(*boxes: list[int]) -> list[str]:
        mllm = ReplayMLLM(replies, record=Scripted(*boxes))
        Pipeline(mllm, BoxesStrategy(), BoxSegmenter()).segment(image, "the cup")
        command = ["--image", str(image), "--query", "the cup"]
        return [*command, "--mllm", f"replay:{replies}", "--segmenter", "box"]

    return record


def test_the_table(options) -> None:
    """In a process of its own, because the peak memory of a child begins with its parent's."""
    command = [*options([100, 200, 500, 800]), "--cold", "2", "--warm", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "eval.speed", *command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    out = done.stdout
    cold, warm = out.split("\nwarm: ")
    assert [name.strip() for name in re.findall(r"^  +([a-z ]+?)  +[\d.]+ ", cold, re.M)] == [
        "wall", "peak memory", "outside the pipeline", "load", "reason", "encode", "segment",
    ]  # fmt: skip
    assert [name.strip() for name in re.findall(r"^  +([a-z ]+?)  +[\d.]+ ", warm, re.M)] == [
        "load the image", "visual prompt", "reason", "per token", "read the reply", "encode",
        "segment", "write", "total",
    ]  # fmt: skip
    assert "20 tokens" in warm
    value = {name: float(v) for name, v in re.findall(r"^  ([a-z ]+?)  +([\d.]+) ", out, re.M)}
    assert 20 < value["peak memory"] < 2000  # MB
    assert 50 < value["wall"] < 60_000  # ms


def test_a_cold_run_is_the_whole_command(options, tmp_path: Path) -> None:
    found = speed.cold_run([*options([100, 200, 500, 800]), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "masks" / "000.png").is_file()
    assert found.wall > found.timings["total"] > 0


def test_a_warm_run_times_every_stage_and_writes(options, tmp_path: Path) -> None:
    words = options([100, 200, 500, 800])
    pipeline = Pipeline.from_preset("local", mllm=words[5], segmenter="box")
    (run,) = speed.warm_runs(pipeline, Path(words[1]), "the cup", tmp_path / "out", 1)
    assert tuple(run.seconds) == (*speed.STAGES, "total")
    assert all(seconds > 0 for seconds in run.seconds.values())
    assert run.tokens == 20
    assert (tmp_path / "out" / "result.json").is_file()


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        (["--warm", "0"], 2, "--cold and --warm"),
        (["--image", "no.png"], 2, "no such image"),
        (["--preset", "embeded"], 2, "did you mean"),
    ],
)
def test_errors_are_one_line(options, capsys, more: list[str], code: int, line: str) -> None:
    assert speed.main([*options([0, 0, 500, 500]), *more]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert line in err


def test_a_query_without_targets_is_refused(options, capsys) -> None:
    assert speed.main([*options(), "--cold", "1"]) == 2
    assert "names nothing" in capsys.readouterr().err


@pytest.mark.skipif(not demo_truth.MISSING, reason="the embedded weights are there")
def test_without_weights_it_says_so_in_one_line() -> None:
    command = [sys.executable, "-m", "eval.speed"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.startswith("error: the embedded reasoner is not in this installation")
    assert done.stderr.count("\n") == 1


@pytest.mark.benchmarks
@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
def test_the_embedded_preset(capfd: pytest.CaptureFixture[str]) -> None:
    assert speed.main([]) == 0
    assert "per token" in capfd.readouterr().out
