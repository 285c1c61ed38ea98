"""Sparse images: some of an image's tokens, at their positions, in each Qwen-VL class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_folders import write_folder
from local_families import FAMILIES
from scripted import Recorder, Script, answer, picture
from tiny_models import tiny_florence2

from rsvp.errors import BadInput
from rsvp.masks import touched_cells
from rsvp.mllm import sparse
from rsvp.mllm.replay import ReplayMLLM
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.pipeline import Pipeline
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Message, Reply

QWEN = ("Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "Qwen3.5", "GLM-4.1V")
ATTENTION = (*QWEN[:3], "GLM-4.1V", "Qwen3.5 attention")
RGB, SECOND = (picture(seed, 96, 96) for seed in (0, 1))
SOME = np.zeros((96, 96), np.bool_)
SOME[10:60, 40:50] = True


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TransformersMLLM]:
    """A model in float32, fresh each time; of Qwen3.5 also one with full attention alone."""
    folders: dict[str, Path] = {}

    def make(name: str, **options: Any) -> TransformersMLLM:
        if name not in folders:
            family = FAMILIES[name.removesuffix(" attention")]
            if name not in FAMILIES:
                text = {**family.config["text_config"], "layer_types": ["full_attention"] * 2}
                family = replace(family, config={**family.config, "text_config": text})
            folders[name] = write_folder(family, tmp_path_factory.mktemp("m") / "model")
        mllm = TransformersMLLM(str(folders[name]), dtype="float32", max_tokens=8, **options)
        mllm.load()
        return mllm

    return make


def talk(kept: np.ndarray | None) -> list[Message]:
    first = Message("user", (RGB, "Which colour has the cup? " * 4))
    said = Message("assistant", ("I must see the cup.",))
    return [first, said, Message("user", (SECOND, "Observation 1: the cup."), kept)]


def prepared(mllm: TransformersMLLM, kept: np.ndarray | None) -> tuple[Any, Any, Any]:
    model, chat = mllm._loaded.model, mllm._loaded.chat
    inputs = chat.inputs(talk(kept))
    return model, inputs, sparse.kept_tokens(talk(kept), model, inputs)


@torch.inference_mode()
def logits(model: Any, arguments: Any) -> torch.Tensor:
    return model(**arguments).logits[0]


@pytest.mark.parametrize("name", QWEN)
def test_all_patches_kept_is_the_normal_call(name: str, load: Any) -> None:
    model, inputs, keep = prepared(load(name), np.ones_like(SOME))
    assert keep.all()
    expected = logits(model, inputs)
    found = logits(model, sparse.shortened(model, inputs, keep))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ATTENTION)
def test_some_patches_kept_is_the_others_masked_out(name: str, load: Any) -> None:
    model, inputs, keep = prepared(load(name), SOME)
    assert 0 < (~keep).sum() < (inputs["mm_token_type_ids"] == 1).sum() / 2
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    masked = {**inputs, "attention_mask": keep[None].long(), "position_ids": positions[1:]}
    found = logits(model, sparse.shortened(model, inputs, keep))
    torch.testing.assert_close(found, logits(model, masked)[keep], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", QWEN)
def test_positions_numbered_anew_give_something_else(name: str, load: Any) -> None:
    model, inputs, keep = prepared(load(name), SOME)
    arguments = sparse.shortened(model, inputs, keep)
    found = logits(model, arguments)
    arguments["position_ids"][1:] = torch.arange(keep.sum())
    assert (logits(model, arguments) - found).abs().max() > 1e-4


def test_a_mask_keeps_the_cells_in_which_it_has_a_pixel() -> None:
    cells = touched_cells(SOME, 3, 3)  # cells of 32 pixels
    assert cells.tolist() == [[False, True, False], [False, True, False], [False] * 3]


@pytest.mark.parametrize("name", QWEN)
def test_the_conversation_goes_on_from_the_first_view(name: str, load: Any) -> None:
    keeping, whole = load(name), load(name, keep_prefix=False)
    again = [*talk(SOME), Message("assistant", ("red",)), Message("user", ("Are you sure?",))]
    reused = []
    for messages in (talk(None)[:1], talk(SOME), again, talk(None), talk(SOME)):
        found, fresh = keeping.reply(messages), whole.reply(messages)
        reused.append(keeping.reused_tokens)
        assert (found.text, found.usage) == (fresh.text, fresh.usage)
        assert found.confidence == pytest.approx(fresh.confidence, abs=1e-4)
    if name == "Qwen3.5":  # its linear attention has no cache that can be cut
        assert not any(reused)
    else:
        assert 0 < reused[1] < reused[2]
        assert reused[3] < reused[2]  # all of the second picture is another picture


@pytest.mark.parametrize("name", QWEN)
def test_an_answer_looks_at_the_patches_and_reads_fewer_tokens(
    name: str, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = json.dumps({"reason": "too small", "look": ["the cup"], "answer": None})
    lines = [look, answer((0, 0, 150, 150)), json.dumps({"reason": "r", "answer": "red"})]
    mllm = load(name)
    real, asked = mllm.reply, list[list[Message]]()

    def reply(messages: list[Message], *, schema: Any = None) -> Reply:
        asked.append(messages)
        return replace(real(messages), text=lines[len(asked) - 1], finish_reason="stop")

    monkeypatch.setattr(mllm, "reply", reply)
    pipe = Pipeline(mllm, BoxesStrategy(), Recorder(), frame="0-1000")
    image = picture(height=320, width=320)
    found = pipe.answer(image, "which?", zoom="sparse", looks=1)
    assert (found.answer, found.zoom, found.background) == ("red", "sparse", None)
    assert found.looks[0].box.xyxy == (0, 0, 48, 48)
    shown, kept = asked[2][-1].parts[0], asked[2][-1].kept
    assert shown.shape[:2] == kept.shape == found.looks[0].size
    assert 600 < shown.shape[0] < 680  # twice as large as the image
    seen = (found.looks[0].picture != 255).any(axis=2)
    assert not seen[~kept].any()
    assert 0.01 < kept.mean() < 0.06
    whole = [*asked[2][:-1], replace(asked[2][-1], kept=None)]
    tokens = [real(one).usage.prompt_tokens for one in (whole, asked[2])]
    *_, grid = mllm._loaded.chat.inputs(whole)["image_grid_thw"].prod(-1) // 4
    assert tokens[0] - tokens[1] >= 0.7 * int(grid)  # of the second picture's tokens


# ---------------------------------------------------------------- elsewhere


def test_backends_without_such_tokens_refuse(tmp_path: Path) -> None:
    florence = TransformersMLLM(str(tiny_florence2(tmp_path / "f")))
    for mllm, why in ((Script(""), "gives no access"), (florence, "the class of transformers:")):
        pipe = Pipeline(mllm, BoxesStrategy(), Recorder())
        with pytest.raises(BadInput, match=f"zoom sparse needs .*{why}.*take zoom mask"):
            pipe.answer(RGB, "which?", zoom="sparse")


def test_a_recording_tells_masks_apart(tmp_path: Path, load: Any) -> None:
    file = tmp_path / "run.jsonl"
    recording = ReplayMLLM(file, record=load("Qwen3-VL"))
    recording.check_sparse()
    said = [recording.reply(talk(kept)).usage for kept in (SOME, None)]
    assert [ReplayMLLM(file).reply(talk(kept)).usage for kept in (SOME, None)] == said
    assert said[0] != said[1]
