"""The folder of a training run: its configuration, its checkpoint and its logs.

A checkpoint holds the weights, the optimizer, the position in the data and the loss sums since the
last row of the log. Rows that a killed run wrote after it are removed when the run is resumed, so
that a killed run leaves the same logs as one that was not.

`Accelerator.save_state` does not serve here: `load_state` unpickles registered objects with
`weights_only=False`, which executes code of the file; a kill between its several files leaves a mix
of two checkpoints; and it stores the frozen SAM 2 as well.
"""

from __future__ import annotations

import csv
import io
import math
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsvp.errors import BadInput
from rsvp.platform.files import (
    atomic_write,
    dumps,
    parse_json,
    read_bytes,
    writable,
    write_json,
    write_text,
)
from rsvp.platform.runs import CONFIG, check_same, has_begun

CHECKPOINT = "checkpoint.pt"
LOG, MEASURED = "log.csv", "measured.csv"


@dataclass
class RunState:
    step: int = 0  # optimizer steps done
    best: float = -math.inf  # highest value of the metric so far
    broken: int = 0  # how often a broken image was skipped
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last log row


class RunFolder:
    """The files of a run.

    Args:
        config: a run is only resumed with an equal one.
        main: whether this process writes; the others only read.

    Raises:
        BadInput: the folder holds something else, or a run with another configuration.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, resume: bool, main: bool
    ) -> None:
        self.folder, self.main = folder, main
        if main:
            saved = parse_json(dumps(config), CONFIG)
            file = folder / CONFIG
            if not has_begun(folder, resume=resume):
                with writable(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                write_json(file, saved)
            else:
                found = parse_json(read_bytes(file), str(file))
                check_same(folder, found if isinstance(found, dict) else {}, saved)

    def restore(self, module: nn.Module, optimizer: Any, scaler: Any = None) -> RunState:
        """Load the checkpoint, if there is one, and remove the later rows of the logs.

        `scaler` is the `GradScaler` of fp16. BadInput if the checkpoint is broken or does not fit.
        """
        file = self.folder / CHECKPOINT
        checkpoint, run = load_checkpoint(file), RunState()
        if checkpoint is not None:
            try:
                module.load_state_dict(checkpoint["fusion"])
                optimizer.load_state_dict(checkpoint["optimizer"])
                if scaler is not None and "scaler" in checkpoint:
                    scaler.load_state_dict(checkpoint["scaler"])
                run = RunState(
                    int(checkpoint["step"]),
                    float(checkpoint["best"]),
                    int(checkpoint["broken"]) if self.main else 0,  # of all processes
                    dict(checkpoint["sums"]),
                )
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise BadInput(
                    f"{file} does not fit this configuration: train into another folder"
                ) from error
        if self.main:
            for name in (LOG, MEASURED):
                _remove_rows_after(self.folder / name, run.step)
        return run

    def save(self, run: RunState, module: nn.Module, optimizer: Any, scaler: Any = None) -> None:
        if self.main:
            parts = {"fusion": module, "optimizer": optimizer, "scaler": scaler}
            states = {name: part.state_dict() for name, part in parts.items() if part is not None}
            save_checkpoint(self.folder / CHECKPOINT, {**states, **asdict(run)})

    def append(self, name: str, row: Mapping[str, float | int]) -> None:
        """Add a row to a CSV file, with a header if it is the first."""
        if not self.main:
            return
        file = self.folder / name
        shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        is_new = not file.exists()
        with writable(file), file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if is_new:
                writer.writerow(shown)
            writer.writerow(shown.values())

    def last_measured(self) -> dict[str, float]:
        """The last row of `measured.csv`; empty without one."""
        try:
            with (self.folder / MEASURED).open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
        except OSError:
            return {}
        return {k: float(v) for k, v in rows[-1].items() if k != "step"} if rows else {}


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training checkpoint; after a kill, the previous one is still whole."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The training checkpoint at `path`, or None if there is none. Nothing in it is executed.

    Raises BadInput if the file cannot be read, or holds something else.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path} is not a whole checkpoint: remove it to start again") from error
    if not isinstance(state, dict):
        raise BadInput(f"{path} is not a training checkpoint: remove it to start again")
    return state


def _remove_rows_after(file: Path, step: int) -> None:
    """Remove the rows after a step, and an incomplete last one."""
    if not file.exists():
        return
    header, *rows = file.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    rows = [row for row in rows if row.endswith("\n") and int(row.split(",", 1)[0]) <= step]
    write_text(file, header + "".join(rows)) if rows else file.unlink()
