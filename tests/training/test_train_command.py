"""`rsvp train` from data to a VLSM: what is printed where, what is refused and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from painted import FUSION, paintings, write_coco, write_jsonl, write_reasonseg, write_refcoco

from rsvp.cli.main import main
from rsvp.pipeline import Pipeline

SHOWN = paintings(8)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(models):
    """`rsvp train` with small models and a few steps; more arguments go behind."""
    settings = [word for name, n in FUSION.items() for word in ("--fusion", f"{name}={n}")]

    def build(*more: str, data: str = "coco:coco", out: str = "run") -> list[str]:
        return [
            "train", "--data", data, "--out", out, "--segmenter", f"sam2:{models / 'sam2'}",
            "--text-encoder", str(models / "bert"), "--steps", "2", "--batch", "2",
            "--precision", "no", "--device", "cpu", "--workers", "0", "--eval-every", "1",
            "--eval-pictures", "2", *settings, *more,
        ]  # fmt: skip

    return build


def refused(capsys, argv: list[str], code: int) -> str:
    """The one line on stderr of a command that ends with this code."""
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_folder_becomes_a_vlsm(capsys, here, command) -> None:
    write_coco(here / "coco", SHOWN)
    assert main(command()) == 0
    out, err = capsys.readouterr()
    speed, done = out.splitlines()
    assert "views a second" in speed
    assert "in the frozen encoder; peak memory" in speed
    assert done == "done after 2 steps; use it with --segmenter vlsm:run/best"
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 1", "step 2"]
    assert "ambiguous" in lines[0]
    assert list((here / "run" / "tb").glob("events.out.tfevents*"))
    found = Pipeline.from_preset("embedded", segmenter="vlsm:run/best").segment(
        SHOWN[0].rgb, "red", boxes=[(5, 5, 30, 30)]
    )
    assert found.mask.shape == SHOWN[0].rgb.shape[:2]


@pytest.mark.parametrize("kind", ["refcoco", "reasonseg", "jsonl"])
def test_the_other_layouts_train_too(capsys, here, command, kind) -> None:
    if kind == "reasonseg":
        pytest.importorskip("cv2")
    write = {"refcoco": write_refcoco, "reasonseg": write_reasonseg, "jsonl": write_jsonl}[kind]
    where = write(here / "data", SHOWN)
    assert main(command("--json", data=f"{kind}:{where}")) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["step"], result["steps"], result["broken"]) == (2, 2, 0)
    assert result["interrupted"] is False
    assert 0 <= result["figures"]["clean"] <= 1
    assert 0 <= result["figures"]["base_ambiguous"] <= 1
    # ReasonSeg asks for one thing an image: no other object to share a box with.
    assert (result["figures"]["shared"] is None) == (kind == "reasonseg")
    assert "step 2: clean" in err


def test_several_sources_and_one_to_validate_on(capsys, here, command) -> None:
    write_coco(here / "coco", SHOWN)
    write_refcoco(here / "ref", SHOWN)
    argv = command("--data", "refcoco:ref", "--eval-data", "scenes:9,4", "--json")
    assert main(argv) == 0
    config = json.loads((here / "run" / "config.json").read_text())
    assert config["data"] == ["coco:coco", "refcoco:ref"]
    assert config["eval_data"] == ["scenes:9,4"]
    assert json.loads(capsys.readouterr().out)["figures"]["shared"] is not None


def test_broken_images_are_named_on_stderr_and_counted_on_stdout(capsys, here, command) -> None:
    write_coco(here / "coco", SHOWN)
    (here / "coco" / "images" / "p000.png").write_bytes(b"torn")
    assert main(command("--steps", "7")) == 0
    out, err = capsys.readouterr()
    assert "skipped broken images 2 times; they are named above" in out  # two epochs of 7
    named = [line for line in err.splitlines() if line.startswith("skipped")]
    assert len(named) == 1
    assert "p000.png" in named[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("coco:nowhere", "no such file: nowhere"),
        ("refcoco:nowhere", "no refs(unc).p"),
        ("reasonseg:nowhere", "no such folder: nowhere"),
        ("jsonl:nowhere", "no such file: nowhere"),
        ("scenes:many", "scenes are named by a seed"),
        ("lvis:x", "lvis"),
        ("coco", "a data spec is KIND:WHERE"),
        ("coco:coco#moon", "no image of split 'moon'"),
        ("scenes:1,1", "one image is too few"),
    ],
)
def test_bad_data_is_one_line(capsys, here, command, data, message) -> None:
    write_coco(here / "coco", SHOWN)
    assert message in refused(capsys, command(data=data), 2)
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--metric", "giou"), "metric: Input should be 'clean'"),
        (("--precision", "int8"), "precision: Input should be 'no', 'bf16' or 'fp16'"),
        (("--batch", "3", "--accumulate", "2"), "is not divisible"),
        (("--fusion", "width"), "a setting is NAME=N"),
        (("--fusion", "width=-1"), "a setting is NAME=N"),
        (("--fusion", "colour=3"), "no such fusion"),
        (("--segmenter", "box"), "train on sam2:MODEL"),
        (("--lr", "0"), "lr: Input should be greater than 0"),
        (("--steps", "0"), "steps: Input should be greater than 0"),
        (("--steps", "many"), "--steps"),
        (("--device", "tpu"), "the device tpu is not available here"),
        (("--eval-data", "coco:nowhere"), "no such file: nowhere"),
    ],
)
def test_bad_settings_are_one_line(capsys, here, command, more, message) -> None:
    write_coco(here / "coco", SHOWN)
    assert message in refused(capsys, command(*more), 2)
    assert not (here / "run").exists()


@pytest.mark.parametrize("missing", ["--segmenter", "--text-encoder"])
def test_a_missing_model_is_named_with_its_command(capsys, here, command, missing) -> None:
    write_coco(here / "coco", SHOWN)
    model = {"--segmenter": "sam2:acme/sam2", "--text-encoder": "acme/clip"}[missing]
    line = refused(capsys, command(missing, model), 4)
    assert f"hf download {model.removeprefix('sam2:')}" in line
    assert not (here / "run").exists()


def test_a_full_folder_asks_for_resume(capsys, here, command) -> None:
    write_coco(here / "coco", SHOWN)
    assert main(command("--minutes", "0")) == 0
    assert capsys.readouterr().out.endswith("stopped at step 1 of 2; continue with --resume\n")
    assert "use --resume" in refused(capsys, command(), 2)
    assert "its seed is 0, now it is 1" in refused(capsys, command("--resume", "--seed", "1"), 2)
    assert main(command("--resume")) == 0
    assert "done after 2 steps" in capsys.readouterr().out


def test_help_names_every_kind_of_data(capsys) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("refcoco:DIR", "reasonseg:DIR", "coco:DIR", "jsonl:FILE", "scenes:SEED",
                 "--resume", "--cache", "accelerate launch"):  # fmt: skip
        assert word in out, word


def test_ctrl_c_checkpoints_and_exits_130(here, command) -> None:
    """As a terminal does it: the signal goes to the workers as well."""
    write_coco(here / "coco", SHOWN)
    argv = command("--steps", "100000", "--eval-every", "100000", "--workers", "1")
    argv[argv.index("--eval-pictures") + 1] = "1"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, "-m", "rsvp", *argv], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (here / "run" / "log.csv").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "continue with --resume" in out
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert (here / "run" / "checkpoint.pt").is_file()
