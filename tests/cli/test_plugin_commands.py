"""Commands from installed packages: a good one runs, a bad one costs a warning and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_cli import ROOT

MODULE = """
from rsvp.errors import BadInput
import typer
def greet(name: str = "you") -> None:
    if name == "nobody":
        raise BadInput("nobody is there")
    print("hello", name)
nested = typer.Typer()  # not a function
number = 3
"""
ENTRY_POINTS = """
[rsvp.backends]
command.greet = greetings:greet
command.segment = greetings:greet
command.nested = greetings:nested
command.number = greetings:number
command.missing = no_such_module_here:run
command.failing = failing_greetings:run
command.leaving = leaving_greetings:run
"""
BAD = ("nested", "number", "missing", "failing", "leaving")


@pytest.fixture
def plugins(here: Path) -> Path:
    package = here / "greetings-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: greetings\nVersion: 1\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    (here / "greetings.py").write_text(MODULE)
    (here / "failing_greetings.py").write_text("raise ValueError('bad\\nday')\n")
    (here / "leaving_greetings.py").write_text("import sys; sys.exit(7)\n")
    return here


def test_plugin_commands(plugins: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(plugins)])}

    def rsvp(*arguments: str) -> tuple[int, str, list[str]]:
        done = subprocess.run(
            [sys.executable, "-m", "rsvp", *arguments],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr.splitlines()

    code, printed, warnings = rsvp("greet", "--name", "Ada")
    assert (code, printed) == (0, "hello Ada\n")
    named = [line.removeprefix("warning: command ").partition(" ")[0] for line in warnings]
    assert [name.rstrip(":") for name in named] == sorted(BAD)
    code, _, lines = rsvp("greet", "--name", "nobody")
    assert (code, lines[-1], len(lines)) == (2, "error: nobody is there", len(BAD) + 1)
    assert "Find what a query asks for" in rsvp("segment", "--help")[1]  # built-in names win
