"""The training loop: what is learned, and what a run leaves in its folder."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from painted import make_config, paintings, write_coco
from runs import checkpoint, rows, run, run_config, totals, weights

from rsvp.pipeline import Pipeline
from rsvp.training.config import SamplingConfig
from rsvp.training.loop import train
from rsvp.training.session import Session


def test_the_loss_falls_on_a_tiny_set(models, tmp_path) -> None:
    data = f"coco:{write_coco(tmp_path / 'data', paintings(4))}"
    mix = SamplingConfig(
        clean=1, near=0, jittered=0, bands=0, shared=0, points=0, recolor=0, wordless=0
    )
    config = make_config(models, data, eval_data=(data,), steps=60, eval_every=60, lr=5e-3, mix=mix)
    lines: list[str] = []
    train(config, tmp_path / "run", run_config(save_every=99), report=lines.append)
    log = rows(tmp_path / "run" / "log.csv")
    for term, factor in {"total": 0.75, "bce": 0.9, "presence": 0.9}.items():
        values = [float(row[term]) for row in log]
        print(term, np.mean(values[:10]), np.mean(values[-10:]))
        assert np.mean(values[-10:]) < factor * np.mean(values[:10]), term
    assert len(lines) == 1
    assert lines[0].startswith("step 60: clean ")


def test_the_files_of_a_run(whole, models) -> None:
    names = {"config.json", "checkpoint.pt", "log.csv", "measured.csv", "tb", "best", "last"}
    assert {path.name for path in whole.iterdir()} == names
    assert [row["step"] for row in rows(whole / "log.csv")] == list("123456")
    measured = rows(whole / "measured.csv")
    assert [row["step"] for row in measured] == ["3", "6"]
    assert {"clean", "shared", "ambiguous", "presence_auc", "base_clean"} <= measured[0].keys()
    assert list((whole / "tb").glob("events*"))
    note = json.loads((whole / "last" / "config.json").read_text())["training"]
    assert note["step"] == 6
    assert note["held_out"]["clean"] == pytest.approx(float(measured[1]["clean"]), abs=1e-3)


def test_the_best_weights_serve_a_pipeline(whole, config) -> None:
    measured = {int(row["step"]): float(row["ambiguous"]) for row in rows(whole / "measured.csv")}
    best = max(measured, key=lambda step: (measured[step], -step))
    note = json.loads((whole / "best" / "config.json").read_text())["training"]
    assert note["step"] == best
    pipeline = Pipeline.from_preset("embedded", segmenter=f"vlsm:{whole / 'best'}")
    painting = paintings(1)[0]
    name, box = next(iter(painting.boxes.items()))
    found = pipeline.segment(painting.rgb, name, boxes=[box])
    assert found.mask.shape == painting.rgb.shape[:2]
    assert len(found.targets) == 1


def test_worse_weights_do_not_replace_the_best(models, painted_coco, tmp_path, monkeypatch) -> None:
    clean = iter([0.7, 0.9, float("nan"), 0.8])

    def metrics(self: Any) -> dict[str, float]:
        return {"clean": next(clean), "ambiguous": 0.5, "presence_auc": 0.5}

    config = make_config(models, f"coco:{painted_coco}", steps=3, eval_every=1, metric="clean")
    monkeypatch.setattr("rsvp.training.validation.ValidationResult.metrics", metrics)
    run(config, tmp_path / "run")  # the first metrics are those of SAM 2
    note = json.loads((tmp_path / "run" / "best" / "config.json").read_text())["training"]
    assert note["step"] == 1
    assert note["held_out"]["clean"] == 0.9
    assert note["held_out"]["base_clean"] == 0.7


def test_a_segmenter_of_crops_is_trained(models, painted_coco, tmp_path) -> None:
    config = make_config(
        models, f"coco:{painted_coco}", segmenter=f"sam2:{models / 'crops'}", steps=2
    )
    run(config, tmp_path / "run")
    assert len(totals(tmp_path / "run")) == 2


def test_a_vlsm_can_be_trained_further(models, painted_coco, whole, tmp_path) -> None:
    start = weights(whole / "last")
    config = make_config(
        models, f"coco:{painted_coco}", segmenter=f"vlsm:{whole / 'last'}", steps=1, lr=1e-9
    )
    run(config, tmp_path / "run")
    for name, weight in weights(tmp_path / "run" / "last").items():
        torch.testing.assert_close(weight, start[name], atol=1e-6, rtol=0.01)


def test_bf16_trains_on_the_cpu(models, painted_coco, tmp_path) -> None:
    config = make_config(models, f"coco:{painted_coco}", precision="bf16", steps=2)
    run(config, tmp_path / "run")
    assert all(np.isfinite(totals(tmp_path / "run")))
    state = checkpoint(tmp_path / "run")["fusion"]
    assert {weight.dtype for weight in state.values()} == {torch.float32}


def test_no_warning_of_a_library_reaches_the_user(models, painted_coco, tmp_path, capfd) -> None:
    caught: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: caught.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        run(make_config(models, f"coco:{painted_coco}", steps=1), tmp_path / "run")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert caught == []
    assert capfd.readouterr() == ("", "")


def test_tensorboard_gets_the_figures_of_both_logs(whole) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(whole / "tb"))
    events.Reload()
    log, measured = rows(whole / "log.csv"), rows(whole / "measured.csv")
    train_tags = {f"train/{k}" for k in (*log[0], "views_per_second", "encoder_share")}
    held_out = {f"held_out/{k}" for k, v in measured[0].items() if v != "nan"}
    assert set(events.Tags()["scalars"]) == (train_tags | held_out) - {
        "train/step", "train/broken", "held_out/step",
    }  # fmt: skip
    clean = [(e.step, e.value) for e in events.Scalars("held_out/clean")]
    assert clean == [(int(r["step"]), pytest.approx(float(r["clean"]), abs=1e-5)) for r in measured]


def test_the_progress_bar_is_shown_on_terminals_only(capfd, monkeypatch) -> None:
    session: Any = SimpleNamespace(config=SimpleNamespace(steps=10), state=SimpleNamespace(step=4))
    with Session.progress_bar(session) as bar:
        bar.update()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Session.progress_bar(session) as bar:
        bar.update()
        bar.set_postfix(loss="0.250")
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("training", "5/10", "0.250"):
        assert text in err
