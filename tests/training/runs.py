"""Helpers of the tests that run the training loop."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rsvp.training.config import RunConfig, TrainConfig
from rsvp.training.loop import train
from rsvp.training.session import TrainResult

TIMES = ("views_per_second", "encoder_share")
RUN = {"workers": 0, "device": "cpu", "log_every": 1, "save_every": 2}


def run_config(**changes: Any) -> RunConfig:
    return RunConfig(**{**RUN, **changes})


def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file without the columns that depend on time."""
    with file.open(newline="") as stream:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(stream)]


def totals(out: Path) -> list[float]:
    return [float(row["total"]) for row in rows(out / "log.csv")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def checkpoint(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def silent(_line: str) -> None:
    pass


def run(config: TrainConfig, out: Path, *, resume: bool = False, **changes: Any) -> TrainResult:
    return train(config, out, run_config(**changes), resume=resume, report=silent)


def assert_same_run(one: Path, other: Path) -> None:
    assert rows(one / "log.csv") == rows(other / "log.csv")
    assert rows(one / "measured.csv") == rows(other / "measured.csv")
    for name in ("last", "best"):
        expected, found = weights(one / name), weights(other / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
        assert (one / name / "config.json").read_text() == (
            other / name / "config.json"
        ).read_text()


def assert_close_run(one: Path, other: Path) -> None:
    assert totals(other) == pytest.approx(totals(one), rel=1e-4)
    expected, found = checkpoint(one)["fusion"], checkpoint(other)["fusion"]
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=2e-5, msg=name)
