"""The families of models: by name, by `model_type`, and what their rows say."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter

from rsvp import families, registry
from rsvp.frames import FrameKind
from rsvp.parsing.keys import BOX


@pytest.mark.parametrize(
    ("model", "frame", "profile"),
    [
        ("embedded", "percent", "compact"),
        ("/opt/rsvp/embedded/weights/reasoner/", "percent", "compact"),
        ("Qwen/Qwen3-VL-8B-Instruct", "0-1000", "full"),
        ("qwen3-vl:8b", "0-1000", "full"),
        ("/models/embedded/Qwen3-VL-2B", "0-1000", "full"),
        ("Qwen/Qwen3.5-9B", "0-1000", "full"),
        ("qwen3.6-plus", "0-1000", "full"),
        ("Qwen/Qwen3.8-27B", "0-1000", "full"),
        ("OpenGVLab/InternVL3_5-8B-HF", "0-1000", "full"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "resized-pixels", "full"),
        ("qwen2.5vl:7b", "resized-pixels", "full"),
        ("qwen2_5_vl", "resized-pixels", "full"),
        ("Qwen/Qwen2.5-Omni-7B", "resized-pixels", "full"),
        ("qwen-vl-max-latest", "resized-pixels", "full"),
        ("Ricky06662/VisionReasoner-7B", "resized-pixels", "full"),
        ("Ricky06662/Seg-Zero-7B", "resized-pixels", "full"),
        ("XiaomiMiMo/MiMo-VL-7B-RL", "resized-pixels", "full"),
        ("ByteDance-Seed/UI-TARS-1.5-7B", "resized-pixels", "full"),
        ("ByteDance-Seed/UI-TARS-7B-DPO", "0-1000", "full"),
        ("Qwen/Qwen2-VL-2B-Instruct", "0-1000", "full"),
        ("zai-org/GLM-4.5V", "0-1000", "full"),
        ("gemini-3-pro", "0-1000-yxyx", "full"),
        ("google/gemma-3-4b-it", "0-1000-yxyx", "full"),
        ("google/gemma-4-E4B-it", "0-1000-yxyx", "full"),
        ("google/paligemma2-3b-mix-448", "0-1024-yxyx", "full"),
        ("allenai/Molmo-7B-D-0924", "percent", "full"),
        ("allenai/Molmo2-8B", "0-1000", "full"),
        ("gpt-5.1", "0-1000", "full"),
        ("o3", "0-1000", "full"),
        ("anthropic/claude-opus-4.5", "pixels", "full"),
        ("moonshotai/Kimi-VL-A3B-Instruct", "0-1", "full"),
        ("AIDC-AI/Ovis2.5-9B", "0-1", "full"),
        ("something-new", "0-1000", "full"),
    ],
)
def test_families_by_name(model: str, frame: str, profile: str) -> None:
    found = registry.family(model)
    assert (found.frame, found.profile) == (frame, profile)
    assert found.single_turn is (profile == "compact")
    assert bool(found.name) is (model != "something-new")


def folder_of(place: Path, text: str) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text(text, encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("folder", "model_type", "frame"),
    [
        ("my-finetune", "qwen2_5_vl", "resized-pixels"),
        ("my-finetune", "qwen2_vl", "0-1000"),
        ("UI-TARS-7B", "qwen2_vl", "0-1000"),
        ("judge", "gemma3", "0-1000-yxyx"),
        ("after-gpt", "kimi_vl", "0-1"),  # the config is more certain than the name
        ("Qwen2.5-VL-copy", "unheard_of", "resized-pixels"),
        ("my-finetune", "unheard_of", "0-1000"),
    ],
)
def test_a_folder_is_of_the_family_that_its_config_names(
    folder: str, model_type: str, frame: str, tmp_path: Path
) -> None:
    path = folder_of(tmp_path / folder, json.dumps({"model_type": model_type}))
    assert registry.family(str(path)).frame == frame


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": ["qwen2_vl"]}', "\udcff"])
def test_a_broken_config_decides_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir()
    (path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert registry.family(str(path)) == families.UNKNOWN


def test_a_downloaded_hub_model_is_of_the_family_that_its_config_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert registry.family("someone/segmenter-7B") == families.UNKNOWN
    repository = tmp_path / "models--someone--segmenter-7B"
    folder_of(repository / "snapshots" / "abc", '{"model_type": "qwen2_5_vl"}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert registry.family("someone/segmenter-7B").frame == "resized-pixels"


def test_the_embedded_reasoner_is_not_taken_for_its_class() -> None:
    assert registry.family(str(registry.embedded_folder("reasoner"))).name == "embedded"


@pytest.mark.parametrize("row", families.FAMILIES, ids=lambda row: row.name)
def test_every_row_is_whole(row: families.ModelFamily) -> None:
    assert TypeAdapter(families.ModelFamily).validate_python(asdict(row)) == row  # of these types
    assert row.frame in get_args(FrameKind)
    assert row.box_key in BOX  # a reply with this key is read
    assert row.source or row.strategy == "grid"  # nobody asks for a frame that nobody knows
    assert re.compile(row.pattern)
    for model_type in row.model_types:
        assert [one for one in families.FAMILIES if model_type in one.model_types] == [row]


def test_what_claude_is_sent_is_not_resized_further() -> None:
    row = registry.family("claude-opus-4.5")
    for height, width in ((3000, 4000), (1000, 9000), (5000, 5000), (300, 200)):
        side = row.view_side(height, width)
        ratio = min(1.0, side / max(height, width))
        assert height * width * ratio**2 <= 1_150_000
        assert side <= 1568
    assert registry.family("gpt-5.1").view_side(3000, 4000) == families.MAX_SIDE
