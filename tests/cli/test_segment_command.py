"""`rsvp segment`: what it prints where, exit codes, one line for whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_cli import ASK, BOX, ROOT, cup

from rsvp.cli import console
from rsvp.cli.main import main
from rsvp.platform import machine
from rsvp.postprocess import UNSURE

# ------------------------------------------------------------ segment


def test_people_read_steps_answer_and_files(capsys, here: Path) -> None:
    assert main(cup()) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "1. a \\x1b[31mred\\x1b[0m cup is there [0,0,40,30]",
        "",
        "cup: box 8,12,40,48, 1152 pixels, score 1.00",
        "because: one drinks from it",
        "",
        "written: rsvp-out/result.json, rsvp-out/overlay.png, rsvp-out/masks",
    ]
    assert err == ""
    assert sorted(p.name for p in (here / "rsvp-out").iterdir()) == [
        "masks", "overlay.png", "result.json",
    ]  # fmt: skip


def test_machines_read_one_json_object(capsys, here: Path) -> None:
    assert main(cup("cup", "--json")) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert out.isascii()
    assert found["targets"][0]["label"] == "cup"
    assert found["models"]["mllm"] == "scripted:cup"
    assert err == ""
    assert not (here / "rsvp-out").exists()  # --json alone writes nothing


def test_json_and_out_say_the_same(capsys, here: Path) -> None:
    assert main(cup("cup", "--json", "--out", "x/y", "--format", "json, coco")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((here / "x/y/result.json").read_text())
    assert sorted(p.name for p in (here / "x/y").iterdir()) == ["coco.json", "result.json"]


def test_no_target_is_done(capsys) -> None:
    assert main(cup("none")) == 0
    out = capsys.readouterr().out
    assert "no target in this image" in out
    assert "because: there is no cup" in out


def test_options_reach_the_pipeline(capsys) -> None:
    words = cup("none", "--json", "--no-cot", "--strategy", "grid:3x4", "--frame", "0-1")
    assert main(words) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models["strategy"] == "grid:3x4"
    assert models["segmenter"] == "box"


def test_boxes_ask_nobody(capsys) -> None:
    words = [*ASK[:3], "--segmenter", "box", "--mllm", "scripted:down", "--json"]
    assert main([*words, "--box", "1,2,11,12", "--box", " 20, 20, 30.5, 30"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [t["box"] for t in found["targets"]] == [[1, 2, 11, 12], [20, 20, 30.5, 30]]
    assert found["models"]["mllm"] is None
    assert found["usage"]["calls"] == 0


def test_hints_limit_what_the_mllm_names(capsys) -> None:
    assert main(cup("cup", "--json")) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    x0, y0, x1, y1 = target["box"]
    half = (x0 + x1) / 2
    assert main(cup("cup", "--json", "--within", f"{x0},{y0},{half},{y1}")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["targets"][0]["box"] == [x0, y0, half, y1]
    assert found["usage"]["calls"] == 1
    assert main(cup("cup", "--json", "--exclude", f"{half},{(y0 + y1) / 2}")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["no_target"]
    assert "went against the hint" in found["warnings"][0]
    assert main(cup("cup", "--exclude", f"{half},{(y0 + y1) / 2}")) == 0
    out = capsys.readouterr().out
    assert "no target in this image that the hints allow" in out
    assert "because" not in out


def test_an_unsure_embedded_reasoner_names_what_handles_photographs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 50_000_000_000)
    assert main(cup("unsure", "--json")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["warnings"][0].startswith(UNSURE)
    assert json.loads(out)["understood"] is False
    warning, hint = err.splitlines()
    assert warning.startswith(f"warning: {UNSURE}")
    assert hint.startswith("for photographs: --preset local (20.2 GB download, ")


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("unsure", "no answer: this model cannot read images of this kind"),
        ("strange", "no answer: this model cannot read images of this kind"),
        ("none", "no target in this image"),
        ("cup", "1. a "),
    ],
)
def test_the_first_line_says_where_there_is_no_answer(word: str, first: str, capsys) -> None:
    assert main(cup(word)) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith(first)
    assert ("no target in this image" in out) == (word == "none")


def test_a_target_that_exists_is_doubted_when_it_is_not_found(capsys) -> None:
    for option, calls in (("--target-exists", 2), ("--target-may-be-absent", 1)):
        assert main(cup("none", "--json", option)) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["no_target"]
        assert found["usage"]["calls"] == calls


def test_auto_prints_the_preset_and_the_reason(capsys, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "nowhere")
    assert main(cup("cup", "--json", "--preset", "auto")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["targets"]
    assert err.startswith("preset embedded: no model is named and none was downloaded")
    monkeypatch.setenv("RSVP_API_MODEL", "gemini-3-pro")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert main(cup("cup", "--json", "--preset", "auto")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["models"]["strategy"] == "boxes"
    assert err.startswith("preset api: RSVP_API_MODEL names openai:gemini-3-pro")
    assert "secret" not in err


# ------------------------------------------------------------ what goes wrong

EVAL = ["eval", "scenes", "--data", ".", "--out", "r"]

# No folder, and no name that the hub could know.
NOWHERE = (
    "./no", "../no", "/no", "~/no", "~nobody-here/x", "-a/b", "a--b/c", "a/b..c", "a/b.git", "a/b.",
    "caf\u00e9/x", "a b/c", "a/b\0c", "x" * 5000,
)  # fmt: skip

WRONG: dict[str, tuple[list[str], int, str]] = {
    "no command of that name": (["sgment"], 2, "segment"),
    "no option of that name": ([*BOX, "--boxx", "1"], 2, "--boxx"),
    "no image": (["segment", "--query", "x"], 2, "--image"),
    "no value": (["segment", "--image"], 2, "requires an argument"),
    "one word too many": ([*BOX, "extra"], 2, "extra"),
    "no query": (BOX, 2, "query is empty"),
    "an empty query": ([*BOX, "--query", "  "], 2, "query is empty"),
    "three numbers": ([*BOX, "--box", "1,2,3"], 2, "X0,Y0,X1,Y1"),
    "words": ([*BOX, "--box", "a,b,c,d"], 2, "'a,b,c,d'"),
    "nothing": ([*BOX, "--box", ""], 2, "X0,Y0,X1,Y1"),
    "spaces": ([*BOX, "--box", "1 2 3 4"], 2, "X0,Y0,X1,Y1"),
    "a newline": ([*BOX, "--box", "1,2\n,x"], 2, "X0,Y0,X1,Y1"),
    "nan": ([*BOX, "--box", "nan,1,2,3"], 2, "finite"),
    "infinity": ([*BOX, "--box", "0,0,1e999,3"], 2, "finite"),
    "swapped corners": ([*BOX, "--box", "9,9,1,1"], 2, "x0 < x1"),
    "a box without area": ([*BOX, "--box", "5,5,5,5"], 2, "x0 < x1"),
    "a box elsewhere": ([*BOX, "--box", "80,0,90,10"], 2, "outside the image of 80x60"),
    "a negative box": ([*BOX, "--box", "-9,-9,-1,-1"], 2, "outside the image"),
    "one coordinate": ([*BOX, "--point", "5"], 2, "X,Y"),
    "a point elsewhere": ([*BOX, "--point", "80,5"], 2, "outside the image"),
    "a point that is nan": ([*BOX, "--point", "nan,5"], 2, "finite"),
    "points among boxes": (
        [*BOX, "--box", "1,1,5,5", "--box", "6,6,9,9", "--point", "2,2"], 2, "one box",
    ),
    "points for the filled box": ([*BOX, "--point", "2,2"], 2, "points alone"),
    "a missing file": (["segment", "--image", "no.png", "--query", "x"], 2, "no such image"),
    "a folder": (["segment", "--image", ".", "--query", "x"], 2, "folder"),
    "an empty file": (["segment", "--image", "empty.png", "--query", "x"], 2, "0 bytes"),
    "a cut file": (["segment", "--image", "cut.png", "--query", "x"], 2, "cut short"),
    "no image at all": (["segment", "--image", "text.png", "--query", "x"], 2, "not an image"),
    "an unknown preset": ([*ASK, "--preset", "embeded"], 2, "did you mean 'embedded'"),
    "an unknown mllm": ([*ASK, "--mllm", "opnai:x"], 2, "did you mean 'openai'"),
    "half an mllm": ([*ASK, "--mllm", "openai:"], 2, "NAME:ARGUMENT"),
    "an unknown strategy": ([*ASK, "--strategy", "gird"], 2, "did you mean 'grid'"),
    "a grid without rows": ([*ASK, "--strategy", "grid:0x9"], 2, "MxN"),
    "an unknown form of points": ([*ASK, "--strategy", "points:x"], 2, "points:box"),
    "marks without candidates": (
        cup("cup", "--strategy", "marks"), 2, "gives no automatic masks; those of SAM do",
    ),
    "an unknown detector": ([*ASK, "--strategy", "marks:dyno:x"], 2, "unknown detector 'dyno'"),
    "a hint beside a box": ([*BOX, "--box", "1,1,5,5", "--within", "0,0,9,9"], 2, "leave out"),
    "a hint that is no box": ([*ASK, "--within", "1,2"], 2, "within is X0,Y0,X1,Y1"),
    "a hint off the image": ([*ASK, "--exclude", "99,5"], 2, "outside the image"),
    "an option without a value": ([*ASK, "--option", "max_tokens"], 2, "KEY=VALUE"),
    "an option that no part has": (
        [*ASK, "--option", "max_tokns=5", "--mllm", "openai:x"], 2, "did you mean 'max_tokens'",
    ),
    "an option of another type": (
        [*ASK, "--option", "temperature=inf", "--mllm", "openai:x"], 2, "finite number",
    ),
    "an option of no part": ([*ASK, "--option", "model.size=5"], 2, "mllm, strategy, segmenter"),
    "an option of an mllm that is not asked": (
        [*BOX, "--box", "1,1,5,5", "--option", "max_tokens=5"], 2, "no MLLM is asked",
    ),
    "an empty budget": ([*ASK, "--budget", ""], 2, "calls=N,tokens=N,seconds=X"),
    "a spent budget": (cup("noise", "--budget", "calls=2"), 3, "(calls=2) is spent"),
    "an unknown segmenter": ([*ASK, "--segmenter", "sam9:x"], 2, "unknown segmenter"),
    "an unknown frame": ([*ASK, "--frame", "inches"], 2, "coordinate frame"),
    "an unknown format": ([*ASK, "--format", "json,gif"], 2, "'gif'"),
    "no format": ([*ASK, "--format", ","], 2, "formats are"),
    "a folder that is a file": ([*ASK, "--out", "a.png"], 2, "cannot write a.png"),
    "a folder below a file": ([*ASK, "--out", "a.png/x"], 2, "cannot write a.png/x"),
    "a folder without a name": ([*ASK, "--out", ""], 2, "--out"),
    "no recording": ([*ASK, "--mllm", "replay:no.jsonl"], 2, "no.jsonl"),
    "an mllm that is down": (cup("down"), 3, "cannot connect"),
    "an mllm that chats": (cup("noise"), 3, "none of the MLLM's 3 replies can be read"),
    "no api model": ([*ASK, "--preset", "api"], 4, "RSVP_API_MODEL"),
    "no key": ([*ASK, "--mllm", "openai:gpt-5.1"], 4, "OPENAI_API_KEY"),
    "no weights": ([*BOX, "--box", "1,1,9,9", "--segmenter", "sam2:./no"], 4, "no SAM 2 weights"),
    "no mllm folder": ([*ASK, "--mllm", "transformers:a/b/c"], 4, "no folder a/b/c"),
    **{
        f"no mllm at {name[:9]}": ([*ASK, "--mllm", f"transformers:{name}"], 4, "no folder")
        for name in NOWHERE
    },
    **{
        f"no weights at {name[:9]}": (
            [*BOX, "--box", "1,1,9,9", "--segmenter", f"sam2:{name}"], 4, "no SAM 2 weights",
        )
        for name in (*NOWHERE, "./no.pt", "~nobody-here/x.pt", "x" * 5000 + ".pt")
    },
    "a bug": (cup("bug"), 1, "unexpected ZeroDivisionError: of all things (--debug"),
    "an interrupt": (cup("interrupted"), 130, "interrupted"),
    "eval without data": (["eval", "scenes", "--data", "no", "--out", "r"], 2, "folder no with"),
    "eval of nothing": (["eval", "scenes", "--out", "r"], 2, "--data"),
    "a limit of none": ([*EVAL, "--limit", "0"], 2, "--limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_one_line_and_an_exit_code(case: str, capsys, here: Path) -> None:
    (here / "empty.png").write_bytes(b"")
    (here / "cut.png").write_bytes((here / "a.png").read_bytes()[:5000])
    (here / "text.png").write_text("hello, I am a text and no image")
    words, code, message = WRONG[case]
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(capsys, here: Path) -> None:
    (here / "locked").mkdir(mode=0o500)
    assert main([*ASK, "--out", "locked/x"]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_nothing_is_written_when_the_image_is_bad(here: Path, capsys) -> None:
    assert main(["segment", "--image", "no.png", "--query", "x", "--out", "new"]) == 2
    assert not (here / "new").exists()


def test_debug_shows_the_traceback_and_the_reply(capsys) -> None:
    assert main(cup("noise", "--debug")) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "hello" in err
    assert err.splitlines()[-1].startswith("error: none of the MLLM's")


def test_no_arguments_show_the_help(capsys) -> None:
    assert main([]) == 0
    assert "Usage: rsvp" in capsys.readouterr().out


def test_version(capsys) -> None:
    import rsvp

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rsvp {rsvp.__version__}\n"


@pytest.mark.parametrize(
    ("text", "plain"),
    [("a\x1b[2Jb\x00c\r\nd", r"a\x1b[2Jb\x00c d"), ("杯子 ☕", "杯子 ☕"), ("", "")],
)
def test_nothing_printed_steers_the_terminal(text: str, plain: str) -> None:
    assert console.plain(text) == plain


# ------------------------------------------------------------ as a process


def rsvp(*words: str, **options) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "rsvp", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, **options)


def test_a_terminal_without_unicode_is_no_error() -> None:
    words = [*BOX, "--box", "1,1,9,9", "--query", "杯子"]
    done = rsvp(*words, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "\\u676f" in done.stdout


def test_a_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m rsvp models --json | true"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=env, check=False)
    assert done.stderr == ""


def test_ctrl_c_exits_with_130(here: Path) -> None:
    """Ctrl-C while the command waits for a server that never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/v1",
        }
        command = [sys.executable, "-m", "rsvp", *ASK, "--mllm", "openai:x"]
        # What runs in the background of a shell hears no Ctrl-C, and so wouldn't its children.
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGINT, heard)
        silent.settimeout(60)
        silent.accept()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
