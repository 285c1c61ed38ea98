"""What goes wrong in a run: losses, images, settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from painted import Painted, make_config, paintings, write_coco
from runs import checkpoint, rows, run, run_config

from rsvp.errors import BadInput
from rsvp.training import loop, session
from rsvp.training.config import RunConfig
from rsvp.training.loop import train


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(
    models, painted_coco, tmp_path, monkeypatch
) -> None:
    losses = loop.losses
    count = iter(range(1, 99))

    def nan_at_step_4(*args: Any) -> Any:
        loss = losses(*args)
        return loss._replace(total=loss.total * float("nan")) if next(count) == 4 else loss

    monkeypatch.setattr(loop, "losses", nan_at_step_4)
    config = make_config(models, f"coco:{painted_coco}")
    with pytest.raises(BadInput, match=r"^at step 4 the loss .* is not a finite number") as caught:
        run(config, tmp_path / "run", log_every=6, save_every=3)
    assert "\n" not in str(caught.value)
    assert "--lr" in str(caught.value)
    saved = checkpoint(tmp_path / "run")
    assert saved["step"] == 3
    assert all(bool(w.isfinite().all()) for w in saved["fusion"].values())
    assert not (tmp_path / "run" / "last").exists()


def broken_data(monkeypatch, **broken: Any) -> None:
    """Open images 0 to 11, some of them broken, for every data spec."""
    monkeypatch.setattr(session, "open_sources", lambda specs: Painted(12, **broken))


def test_broken_images_are_named_once_and_counted(models, tmp_path, monkeypatch) -> None:
    broken_data(monkeypatch, broken=(1, 3, 5))  # with hold_out 4, image 3 is for validation
    lines: list[str] = []
    config = make_config(models, "coco:x", steps=6, batch=3)  # two epochs of nine images
    result = train(config, tmp_path / "run", run_config(), report=lines.append)
    named = [line for line in lines if line.startswith("skipped")]
    assert sorted(named) == [
        "skipped image 1: file 1.png is truncated",
        "skipped image 4: file 5.png is truncated",
        "skipped validation image 0: file 3.png is truncated",
    ]
    assert result.broken == 4
    assert any("broken images 4 times" in line for line in result.lines(tmp_path))
    assert rows(tmp_path / "run" / "log.csv")[-1]["broken"] == "4"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_broken_images_only_is_refused(
    models, tmp_path, monkeypatch, workers
) -> None:
    held = (3, 7, 11)
    broken_data(monkeypatch, broken=[i for i in range(12) if i not in held])
    config = make_config(models, "coco:x")
    with pytest.raises(BadInput, match="no image can be used; the first: image") as caught:
        run(config, tmp_path / "a", workers=workers)
    assert "\n" not in str(caught.value)
    broken_data(monkeypatch, broken=held)
    with pytest.raises(
        BadInput, match=r"no validation image can be used; the first: validation image 0"
    ):
        run(config, tmp_path / "b", workers=workers)


def test_impossible_settings_are_refused_before_anything_is_written(
    models, painted_coco, tmp_path
) -> None:
    data = f"coco:{painted_coco}"
    for changes, message in [
        ({"metric": "giou"}, r"metric: Input should be 'clean', .*'presence_auc', found 'giou'"),
        ({"precision": "int4"}, "precision: Input should be 'no', 'bf16' or 'fp16', found 'int4'"),
        ({"steps": 0}, "steps: Input should be greater than 0, found 0"),
        ({"hold_out": 1}, "hold-out: Input should be greater than or equal to 2, found 1"),
        ({"lr": float("nan")}, "lr: Input should be a finite number, found nan"),
        ({"mix": {"clean": 0.5}}, "the box styles must sum to 1, found 1.35"),
        ({"stepz": 3}, "stepz: Extra inputs are not permitted"),
    ]:
        with pytest.raises(BadInput, match=message):
            make_config(models, data, **changes)
    for changes, message in [
        ({"accumulate": 3}, "a batch of 4 is not divisible by 1 processes with 3 accumulation"),
        ({"segmenter": "box"}, "train on sam2:MODEL, .*, or continue vlsm:MODEL"),
        ({"fusion": {"widht": 3}}, "no such fusion"),
        ({"fusion": {"width": 15, "heads": 2}}, "does not divide"),
    ]:
        with pytest.raises(BadInput, match=message):
            run(make_config(models, data, **changes), tmp_path / "run")
    with pytest.raises(BadInput, match="the device tpu is not available here"):
        train(make_config(models, data), tmp_path / "run", RunConfig(device="tpu", workers=0))
    assert not (tmp_path / "run").exists()


def test_a_metric_without_validation_cases_is_refused_at_the_start(models, tmp_path) -> None:
    """With one object per image there is no other object's name."""
    shown = paintings(8)
    for painting in shown:
        painting.boxes.pop(next(iter(painting.boxes)))
    data = f"coco:{write_coco(tmp_path / 'data', shown)}"
    with pytest.raises(BadInput, match="the validation images do not allow presence_auc"):
        run(make_config(models, data, metric="presence_auc"), tmp_path / "a")
    assert not (tmp_path / "a" / "log.csv").exists()
    result = run(
        make_config(models, data, steps=1), tmp_path / "b"
    )  # there is a value of ambiguous
    assert np.isfinite(result.figures["ambiguous"])
    assert result.to_dict()["figures"]["shared"] is None
    assert (tmp_path / "b" / "best").is_dir()
