"""Pipelines of presets, the embedded one at work."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import demo_truth
import numpy as np
import pytest
from scripted import Recorder, Script, answer, picture

from rsvp import registry
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import ModelNames

# ------------------------------------------------------------ presets


def test_a_preset_takes_objects_and_specs_instead_of_its_own_parts(monkeypatch) -> None:
    def slow():
        time.sleep(0.01)
        return BoxSegmenter()

    monkeypatch.setattr("rsvp.segmenters.box.slow", slow, raising=False)
    monkeypatch.setitem(registry.BUILT_IN["segmenter"], "slow", "rsvp.segmenters.box:slow")
    mllm = Script('{"targets":[],"reason":"no"}')
    pipe = Pipeline.from_preset("local", mllm=mllm, strategy="grid:5x4", segmenter="slow")
    result = pipe.segment(picture(), "x")
    assert result.models.mllm == mllm.name
    assert result.models.strategy == "grid:5x4"
    assert result.timings["load"] >= 0.01
    assert "load" not in pipe.segment(picture(), "x").timings
    assert pipe.strategy.grid == (5, 4)


def test_without_an_mllm_none_is_made() -> None:
    pipe = Pipeline.from_preset("api", mllm="none", segmenter="box")
    assert pipe.mllm is None
    assert pipe.segment(picture(), boxes=[(1, 1, 9, 9)]).targets[0].mask.sum() == 64


def test_a_backend_that_can_load_early_is_loaded_before_it_is_asked() -> None:
    class Loads(Script):
        loaded = 0

        def load(self):
            self.loaded += 1
            time.sleep(0.02)

    pipe = Pipeline(Loads(answer((0, 0, 9, 9))), BoxesStrategy(), Recorder())
    result = pipe.segment(picture(), "x")
    assert pipe.mllm.loaded == 1
    assert result.timings["load"] >= 0.02


embedded = pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)


@embedded
def test_the_embedded_preset_answers_rendered_scenes() -> None:
    from rsvp.embedded.scenes import scenes

    pipe = Pipeline.from_preset("embedded")
    hits = 0
    for scene in scenes(6, seed=4242, kinds=["name"]):
        result = pipe.segment(scene.rgb, scene.queries[0].text)
        truth = np.any([scene.objects[i].mask for i in scene.queries[0].targets], axis=0)
        hits += demo_truth.iou(result.mask, truth) > 0.5
    assert result.models.mllm == "transformers:embedded"
    assert hits >= 3


@embedded
def test_the_demo_finds_the_knife_and_says_why() -> None:
    result = Pipeline.from_preset("embedded").segment(demo_truth.IMAGE, demo_truth.QUERY)
    (target,) = result.targets
    assert target.label == demo_truth.LABEL
    assert demo_truth.iou(target.mask, demo_truth.knife()) > 0.5
    assert result.reasoning.steps
    assert result.reasoning.reason
    assert result.warnings == ()
    assert result.usage.calls == 1
    names = ModelNames("transformers:embedded", "boxes", "vlsm:embedded", None)
    assert replace(result.models, prompt_sha256=None) == names
    assert {"load", "reason", "encode", "segment", "total"} == result.timings.keys()


@embedded
def test_two_runs_write_the_same_result(tmp_path) -> None:
    found = []
    for run in ("first", "second"):
        result = Pipeline.from_preset("embedded").segment(demo_truth.IMAGE, demo_truth.QUERY)
        result.save(str(tmp_path / run))
        written = json.loads((tmp_path / run / "result.json").read_text(encoding="utf-8"))
        assert set(written.pop("timings")) == set(result.timings)
        found.append(written)
    assert found[0] == found[1]
    for name in ("overlay.png", "masks/000.png"):
        first, second = (tmp_path / run / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
