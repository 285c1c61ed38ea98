"""The folder of a run: configuration, checkpoint, logs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rsvp.errors import BadInput
from rsvp.training.run_folder import (
    CHECKPOINT,
    LOG,
    MEASURED,
    RunFolder,
    RunState,
    _remove_rows_after,
    load_checkpoint,
    save_checkpoint,
)


def open_run(folder: Path, *, resume: bool = False, main: bool = True, **config: Any) -> RunFolder:
    return RunFolder(folder, {"lr": 1.0, "data": ("a",), **config}, resume=resume, main=main)


def make_model(width: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(width, 2)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def trained_model() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module, optimizer = make_model()
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_everything_that_a_run_needs_is_restored(tmp_path) -> None:
    module, optimizer = trained_model()
    saved = RunState(7, 0.5, 2, {"total": 0.1, "count": 3.0})
    open_run(tmp_path / "run").save(saved, module, optimizer)
    fresh, moments = make_model()
    assert open_run(tmp_path / "run", resume=True).restore(fresh, moments) == saved
    assert torch.equal(fresh.weight, module.weight)
    assert str(moments.state_dict()) == str(optimizer.state_dict())


def test_the_scale_of_fp16_gradients_is_restored(tmp_path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)
    open_run(tmp_path).save(RunState(1), *trained_model(), scaler)
    fresh = torch.amp.GradScaler("cpu")
    open_run(tmp_path, resume=True).restore(*make_model(), fresh)
    assert fresh.get_scale() == 2.0**9
    open_run(tmp_path, resume=True).restore(*make_model(), None)  # now without fp16


def test_rows_after_the_checkpoint_are_removed(tmp_path) -> None:
    run = open_run(tmp_path)
    for step in (1, 2, 3):
        run.append(LOG, {"step": step, "total": 1 / 3, "views_per_second": 9.0, "broken": step})
        run.append(MEASURED, {"step": step, "clean": 0.5, "shared": float("nan")})
    run.save(RunState(2), *trained_model())
    log = tmp_path / "log.csv"
    log.write_bytes(log.read_bytes() + b"4,0.3")  # a kill in the middle of a row
    again = open_run(tmp_path, resume=True)
    again.restore(*make_model())
    assert log.read_text().splitlines() == [
        "step,total,views_per_second,broken", "1,0.333333,9,1", "2,0.333333,9,2",
    ]  # fmt: skip
    assert again.last_measured()["clean"] == 0.5
    assert (tmp_path / "measured.csv").read_text().splitlines()[-1] == "2,0.5,nan"
    again.append(LOG, {"step": 3, "total": 0.25, "views_per_second": 9.0, "broken": 0})
    assert log.read_text().splitlines()[-1] == "3,0.25,9,0"


@pytest.mark.parametrize("content", ["", "step,tot", "step,total\n", "step,total\n1"])
def test_a_log_without_a_whole_row_is_removed(tmp_path, content) -> None:
    file = tmp_path / "log.csv"
    file.write_text(content)
    _remove_rows_after(file, 5)
    assert not file.exists()


def test_only_the_main_process_writes(tmp_path) -> None:
    main = open_run(tmp_path)
    other = open_run(tmp_path, main=False)  # no complaint that the folder holds a run
    module, optimizer = trained_model()
    other.append(LOG, {"step": 1, "total": 1.0})
    other.save(RunState(1), module, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    main.save(RunState(1, broken=5, sums={"total": 1.0}), module, optimizer)
    restored = open_run(tmp_path, resume=True, main=False).restore(*make_model())
    assert (restored.step, restored.sums) == (1, {"total": 1.0})
    assert restored.broken == 0  # the main process has the count of all


def test_a_kill_before_the_first_file_leaves_a_usable_folder(tmp_path) -> None:
    (tmp_path / ".config.json.7.part").write_text('{"lr"')
    assert open_run(tmp_path).restore(*make_model()).step == 0


def test_folders_that_cannot_be_used_are_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot use .*file as the run's folder: Not a directory"):
        open_run(tmp_path / "file")
    open_run(tmp_path / "run")
    with pytest.raises(BadInput, match="is not empty; use --resume"):
        open_run(tmp_path / "run")
    with pytest.raises(BadInput, match=r"its lr is 1\.0, now it is 2\.0"):
        open_run(tmp_path / "run", resume=True, lr=2.0)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json: broken JSON"):
        open_run(tmp_path / "run", resume=True)
    (tmp_path / "run" / "config.json").write_text("[]")
    with pytest.raises(BadInput, match="its lr is None"):
        open_run(tmp_path / "run", resume=True)


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_checkpoints_that_do_not_fit_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_run(tmp_path / "run").save(RunState(1), *trained_model())
    file = tmp_path / "run" / CHECKPOINT
    whole = file.read_bytes()
    resumed = open_run(tmp_path / "run", resume=True)
    with pytest.raises(BadInput, match="does not fit this configuration"):
        resumed.restore(*make_model(4))
    for content in (whole[:200], b"", pickle.dumps(Malicious(), protocol=2)):
        file.write_bytes(content)
        with pytest.raises(BadInput, match="not a whole checkpoint"):
            resumed.restore(*make_model())
    torch.save({"fusion": Malicious()}, file)
    with pytest.raises(BadInput, match="not a whole checkpoint"):
        resumed.restore(*make_model())
    assert not (tmp_path / "executed").exists()
    torch.save([1], file)
    with pytest.raises(BadInput, match="not a training checkpoint"):
        resumed.restore(*make_model())
    torch.save({"step": 3}, file)
    with pytest.raises(BadInput, match="does not fit this configuration"):
        resumed.restore(*make_model())


def test_a_kill_while_saving_leaves_the_previous_checkpoint(tmp_path, monkeypatch) -> None:
    file = tmp_path / CHECKPOINT
    assert load_checkpoint(file) is None
    save_checkpoint(file, {"step": 1})

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(file, {"step": 2})
    assert load_checkpoint(file) == {"step": 1}
