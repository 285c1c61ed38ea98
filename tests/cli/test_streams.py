"""Streams that are closed or full, and words of any length on an error line."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from scripted_cli import BOX

from rsvp.cli.main import LONGEST, _thread_failed, main

RSVP = [sys.executable, "-m", "rsvp", *BOX, "--box", "3,4,20,30"]


def shell(command: str) -> subprocess.CompletedProcess[str]:
    words = " ".join(RSVP)
    return subprocess.run(
        f"{words} {command}", shell=True, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("--json >&-", 2, "error: cannot write the JSON: stdout is closed\n"),
        ("--out out >&-", 0, ""),
        ("--json 2>&-", 0, ""),
        ("--json --box 1,2 2>&-", 2, ""),
        ("--json >/dev/full", 2, "error: cannot write the output: No space left on device\n"),
    ],
)
def test_streams_that_take_nothing(here: Path, command: str, code: int, said: str) -> None:
    done = shell(command)
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout.startswith("{") == (command == "--json 2>&-")
    assert (here / "out" / "result.json").is_file() == ("--out" in command)


def test_an_error_line_has_a_bound(here: Path, capsys) -> None:
    name = "x" * 200 + "/" + "y" * 1_000_000
    assert main(["segment", "--image", name, "--query", "cup"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < LONGEST + 20


def test_a_thread_on_a_full_disk_prints_no_traceback(capsys) -> None:
    for error, said in (
        (OSError(28, "No space left on device"), ""),
        (KeyError("bug"), "KeyError"),
    ):
        arguments = threading.ExceptHookArgs((type(error), error, None, None))
        _thread_failed(arguments)
        err = capsys.readouterr().err
        assert said in err if said else not err
