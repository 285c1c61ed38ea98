"""What people type at `rsvp segment`: used as they mean it, or refused in one line."""

from __future__ import annotations

import io
import json
import os
import pty
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_cli import ASK, BOX, ROOT, cup

from rsvp import registry
from rsvp.cli import console
from rsvp.cli.main import main

BOXES = ["--box", "1,1,9,9", "--box", "20,20,30,30"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*BOX, "--image", "b.png", "--box", "1,1,9,9"], "--image was given 2 times"),
        ([*ASK, "--query", "the knife"], "--query was given 2 times"),
        ([*BOX, *BOXES, "--label", "a", "--label", "b", "--label", "c"], "3 labels for 2 targets"),
        ([*ASK, "--label", "cup"], "labels name boxes or points"),
        ([*BOX, "--box", "1,1,9,9", "--record", "r.jsonl"], "nothing to record"),
        ([*ASK, "--strategy", "grid:4x4"], "embedded knows a grid of 9x9 only, found 4x4"),
        (
            ["eval", "scenes", "--data", ".", "--out", "R", "--engine", "ray", "--record", "r"],
            "leave out --engine ray",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(words: list[str], said: str, capsys) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_grid_that_the_prompt_cannot_name_is_refused_before_the_segmenter_is_loaded(
    capsys, monkeypatch
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["segmenter"], "never", "no_such_module:Never")
    words = ["segment", "--image", "a.png", "--query", "x", "--strategy", "grid:4x4"]
    assert main([*words, "--segmenter", "never"]) == 2
    assert "embedded" in capsys.readouterr().err
    assert main([*cup("none", "--strategy", "grid:4x4", "-q")]) == 0  # of a model that is told


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([], ["", ""]),
        (["cup"], ["cup", "cup"]),
        (["cup", "knife"], ["cup", "knife"]),
    ],
)
def test_a_label_for_each_box(labels: list[str], found: list[str], capsys) -> None:
    given = [word for label in labels for word in ("--label", label)]
    assert main([*BOX, *BOXES, *given, "--json"]) == 0
    assert [t["label"] for t in json.loads(capsys.readouterr().out)["targets"]] == found


@pytest.mark.parametrize("batch", [False, True])
def test_a_folder_is_refused_with_what_takes_folders(batch, capsys, monkeypatch) -> None:
    if batch:  # the command is another part of the program, which may not be there yet
        monkeypatch.setitem(registry.BUILT_IN["command"], "batch", "scripted_cli:cup")
    assert main(["segment", "--image", ".", "--query", "x"]) == 2
    instead = (
        "rsvp batch --input ." if batch or "batch" in registry.names("command") else "one image"
    )
    assert instead in capsys.readouterr().err


def test_the_image_in_the_package_has_a_name(here: Path, capsys) -> None:
    words = ["segment", "--image", "demo", "--box", "1,1,9,9", "--segmenter", "box", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["image"]["path"].endswith("demo.png")
    (here / "demo").mkdir()  # as after --out demo
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["image"]["path"].endswith("demo.png")
    (here / "demo").rmdir()
    (here / "demo").write_bytes((here / "a.png").read_bytes())
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["image"]["path"] == "demo"  # a file wins


def test_an_image_from_standard_input(here: Path, monkeypatch, capsys) -> None:
    stdin = io.TextIOWrapper(io.BytesIO((here / "a.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    words = ["segment", "--image", "-", "--box", "1,1,9,9", "--segmenter", "box", "--json"]
    assert main(words) == 0
    image = json.loads(capsys.readouterr().out)["image"]
    assert (image["path"], image["width"], image["height"]) == (None, 80, 60)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(words) == 2
    assert "0 bytes" in capsys.readouterr().err


def test_a_refusal_is_quoted(capsys, monkeypatch) -> None:
    import scripted_cli

    from rsvp.types import Reply

    said = "I'm sorry, but I can't help with\nidentifying \x07 people." + " Really." * 100
    monkeypatch.setattr(scripted_cli.Scripted, "reply", lambda *_, **__: Reply(said))
    assert main(cup()) == 3
    err = capsys.readouterr().err
    assert "it wrote: \"I'm sorry, but I can't help with identifying \\x07 people. Really." in err
    assert err.endswith('..."\n')
    assert len(err) < 500


def test_quiet_prints_errors_and_json_only(here: Path, capsys) -> None:
    assert main(cup("unsure", "-q")) == 0
    assert capsys.readouterr() == ("", "")
    assert (here / "rsvp-out" / "result.json").is_file()
    assert main(cup("unsure", "--quiet", "--json")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["warnings"]
    assert err == ""
    assert main(cup("down", "-q")) == 3
    assert capsys.readouterr().err.startswith("error: ")
    assert main(cup("unsure")) == 0
    assert "warning: " in capsys.readouterr().err


def test_recorded_replies_are_repeated_offline(here: Path, capsys) -> None:
    assert main(cup("cup", "--record", "r.jsonl", "--json")) == 0
    recorded = json.loads(capsys.readouterr().out)
    assert recorded["models"]["mllm"] == "scripted:cup"
    assert main([*ASK, "--mllm", "replay:r.jsonl", "--json"]) == 0
    repeated = json.loads(capsys.readouterr().out)
    for key in ("targets", "reply", "reason", "usage", "warnings"):
        assert repeated[key] == recorded[key]


# ------------------------------------------------------------ as a process


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **more}


def test_an_unreachable_server_is_noticed_before_the_models_are_loaded(capsys, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setitem(registry.BUILT_IN["segmenter"], "never", "no_such_module:Never")
    words = ["--image", "a.png", "--query", "x", "--mllm", "openai:x", "--segmenter", "never"]
    started = time.monotonic()
    assert main(["segment", *words]) == 3
    assert time.monotonic() - started < 10  # without a retry; the import is most of it
    err = capsys.readouterr().err
    assert f"openai:x at http://127.0.0.1:{port}/v1: cannot connect" in err
    assert "is it running? OPENAI_BASE_URL names it" in err
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which may reach it
    monkeypatch.setenv("no_proxy", "")
    assert main(["segment", *words]) == 4
    assert "no_such_module" in capsys.readouterr().err


def test_colours_are_for_terminals(here: Path) -> None:
    def on_terminal(**more: str) -> bytes:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "rsvp", "segment", "--image", "no.png", "--query", "x"]
        subprocess.run(
            command, stdin=theirs, stdout=theirs, stderr=theirs, check=False,
            env=environment(TERM="xterm", **more),
        )  # fmt: skip
        os.close(theirs)
        said = os.read(ours, 10_000)
        os.close(ours)
        return said

    assert on_terminal(NO_COLOR="").startswith(b"\x1b[31merror:\x1b[0m no such image")
    assert on_terminal(NO_COLOR="1").startswith(b"error: no such image")


def test_a_style_is_left_out_where_nobody_sees_it(capsys) -> None:
    console.print_out(": box", marked="cup", bold=True)
    assert capsys.readouterr().out == "cup: box\n"


def test_completion_is_installed_and_completes(here: Path) -> None:
    disable = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
    env = environment(HOME=str(here), **{disable: "true"})
    command = [sys.executable, "-m", "rsvp"]
    done = subprocess.run(
        [*command, "--install-completion", "bash"], env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rsvp" in (here / ".bashrc").read_text()
    (script,) = (here / ".bash_completions").iterdir()
    assert "_RSVP_COMPLETE=complete_bash" in script.read_text()
    for line, expected in (
        ("rsvp segment --pre", "--preset"),
        ("rsvp segment --preset la", "laptop"),
    ):
        asked = {
            "_RSVP_COMPLETE": "complete_bash", "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }  # fmt: skip
        done = subprocess.run(
            command, env={**env, **asked}, capture_output=True, text=True, check=True
        )
        assert expected in done.stdout.split()
