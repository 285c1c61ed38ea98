"""A killed or stopped run ends with the same logs and weights as one that was not."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pkgutil
import shutil
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from painted import make_config
from runs import assert_same_run, checkpoint, rows, run

from rsvp.errors import BadInput

# Where a kill can happen: before a loss, and while each kind of file is written.
MOMENTS = (
    "rsvp.training.loop.losses",
    "rsvp.training.run_folder.RunFolder.append",
    "rsvp.training.run_folder.torch.save",
    "pathlib.Path.replace",
    "rsvp.training.validation.save_pretrained",
    "rsvp.segmenters.vlsm.save",
)


def count_moments(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> None:
    """Call `then` with 1, 2, 3, … at each of the moments of a run."""
    counter = itertools.count(1)

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **named: Any) -> Any:
            then(next(counter))
            return work(*args, **named)

        return stand_in

    for place in MOMENTS:
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(place, watched(getattr(pkgutil.resolve_name(module), name)))


def test_a_killed_run_ends_with_the_same_losses_and_weights(config, whole, tmp_path) -> None:
    """SIGKILL several times at random moments."""
    out = tmp_path / "run"
    rng = np.random.default_rng()
    fork = multiprocessing.get_context("fork")

    def run_until(last: int, resume: bool) -> None:
        def kill(number: int) -> None:
            if number == last:
                os.kill(os.getpid(), signal.SIGKILL)

        with pytest.MonkeyPatch.context() as monkeypatch:
            count_moments(monkeypatch, kill)
            run(config, out, resume=resume)

    for attempt in range(4):
        last = int(rng.integers(2, 10))
        print(f"killed at moment {last}")  # shown if the test fails
        child = fork.Process(target=run_until, args=(last, attempt > 0))
        child.start()
        child.join(timeout=100)
        if child.exitcode == 0:  # it reached its end before
            break
        assert child.exitcode == -signal.SIGKILL
    result = run(config, out, resume=True)
    assert result.step == 6
    assert_same_run(whole, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_checkpoints_and_stops(
    config, whole, tmp_path, monkeypatch, number
) -> None:
    out = tmp_path / "run"
    before = signal.getsignal(number)

    def interrupt(moment: int) -> None:
        if moment == 4:  # config.json, the first step's loss, its row, the second step's loss
            os.kill(os.getpid(), number)

    count_moments(monkeypatch, interrupt)
    stopped = run(config, out, save_every=100)
    assert signal.getsignal(number) is before
    assert (stopped.step, stopped.interrupted) == (2, True)
    assert "stopped at step 2 of 6; continue with --resume" in list(stopped.lines(out))
    assert checkpoint(out)["step"] == 2
    monkeypatch.undo()
    result = run(config, out, resume=True)
    assert (result.step, result.interrupted) == (6, False)
    assert_same_run(whole, out)


def test_a_time_limit_is_no_interruption(config, tmp_path) -> None:
    result = run(config, tmp_path / "run", minutes=0.0)
    assert (result.step, result.interrupted) == (1, False)
    assert checkpoint(tmp_path / "run")["step"] == 1


def test_an_unfinished_row_of_the_log_is_resumed(config, tmp_path) -> None:
    """A checkpoint between two rows of the log holds the sums so far."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(config, whole, log_every=3)
    run(config, parts, log_every=3, minutes=0.0)
    for _ in range(5):
        result = run(config, parts, log_every=3, resume=True, minutes=0.0)
    assert result.step == 6
    assert_same_run(whole, parts)


def test_a_finished_run_is_not_changed(config, whole, tmp_path) -> None:
    out = shutil.copytree(whole, tmp_path / "run")
    result = run(config, out, resume=True)
    assert result.step == 6
    assert_same_run(whole, out)
    last = rows(whole / "measured.csv")[-1]
    assert result.figures["clean"] == float(last["clean"])


def test_another_configuration_is_not_resumed(config, models, whole, painted_coco) -> None:
    other = make_config(models, f"coco:{painted_coco}", lr=1e-3)
    with pytest.raises(BadInput, match=r"cannot resume .*: its lr is 0\.002, now it is 0\.001"):
        run(other, whole, resume=True)
    with pytest.raises(BadInput, match="its cached is False, now it is True"):
        run(config, whole, resume=True, cache=str(whole / "cache"))


def test_a_full_folder_is_not_written_into(config, whole, tmp_path) -> None:
    with pytest.raises(BadInput, match="is not empty; use --resume"):
        run(config, whole)
    (tmp_path / "thesis.txt").write_text("mine")
    for resume, said in ((False, "is not empty; use --resume"), (True, "holds no run to resume")):
        with pytest.raises(BadInput, match=said):
            run(config, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
