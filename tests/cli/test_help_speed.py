"""`rsvp --help` beside an empty Python, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.benchmarks


def test_help_costs_little_more_than_python() -> None:
    seconds: dict[str, list[float]] = {"python": [], "help": []}
    commands = {"python": ["-c", "import typer"], "help": ["-m", "rsvp", "--help"]}
    for _ in range(7):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print({name: f"{value * 1000:.0f} ms" for name, value in medians.items()})
    assert medians["help"] < 3 * medians["python"]
