"""Local models: several sampled replies at once, and what is kept from one question to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_florence2, tiny_llava, tiny_qwen2_5_vl, tiny_qwen3_vl

from rsvp.mllm.transformers import TransformersMLLM
from rsvp.types import Message

MAKERS = {
    "florence2": tiny_florence2,
    "llava": tiny_llava,
    "qwen2_5_vl": tiny_qwen2_5_vl,
    "qwen3_vl": tiny_qwen3_vl,
}
QWEN = ("qwen2_5_vl", "qwen3_vl")
RGB, OTHER = (
    np.random.default_rng(i).integers(0, 256, (96, 128, 3), dtype=np.uint8) for i in (0, 1)
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make(root / name) for name, make in MAKERS.items()}


def ask(*parts) -> list[Message]:
    return [Message("system", ("Be brief. " * 30,)), Message("user", parts)]


@pytest.mark.parametrize("family", MAKERS)
def test_replies_are_sampled_as_one_batch(folders: dict[str, Path], family: str) -> None:
    mllm = TransformersMLLM(str(folders[family]), max_tokens=12)
    question = [Message("user", (RGB, "Box: the cup"))]
    greedy = mllm.reply(question)
    found = mllm.replies(question, 4, 2.0)
    assert len(found) == 4
    assert len({one.text for one in found}) > 1
    assert [one.usage.prompt_tokens > 0 for one in found] == [True, False, False, False]
    assert {one.usage.calls for one in found} == {1}
    assert all(1 <= one.usage.completion_tokens <= 12 for one in found)
    assert all(0 < one.confidence <= 1 for one in found)
    almost = mllm.replies(question, 3, 1e-4)  # so cold that it is greedy
    assert {one.text for one in almost} == {greedy.text}
    assert almost[2].confidence == pytest.approx(greedy.confidence, abs=0.02)
    assert mllm.reply(question).text == greedy.text


@pytest.mark.parametrize("family", QWEN)
def test_what_is_kept_changes_no_reply(folders: dict[str, Path], family: str) -> None:
    keeping = TransformersMLLM(str(folders[family]), max_tokens=12)
    first = [*ask(RGB, "Check these masks: the cup", OTHER, "Decide now about target 1.")]
    questions = [
        first,
        ask(RGB, "Check these masks: the cup", RGB, "Decide now about target 2."),  # a new picture
        ask(RGB, "Check these masks: the cup", RGB, "Decide now about targets 1 and 3."),
        ask(OTHER, "Check these masks: the cup", RGB, "Decide now about target 2."),
        [*first, Message("assistant", ("yes",)), Message("user", ("Why?",))],
    ]
    reused = []
    for question in questions:
        fresh = TransformersMLLM(str(folders[family]), max_tokens=12).reply(question)
        kept = keeping.reply(question)
        reused.append(keeping.reused_tokens)
        assert (kept.text, kept.usage) == (fresh.text, fresh.usage)
        assert kept.confidence == pytest.approx(fresh.confidence, abs=1e-4)
    assert reused[0] == 0
    assert 0 < reused[1] < reused[2]  # up to the second picture, up to the last text
    assert reused[3] < reused[1]  # another first picture: the system text alone


def test_keeping_can_be_switched_off(folders: dict[str, Path]) -> None:
    mllm = TransformersMLLM(str(folders["qwen3_vl"]), max_tokens=4, keep_prefix=False)
    question = ask(RGB, "Check these masks: the cup")
    assert mllm.reply(question).text == mllm.reply(question).text
    assert mllm.reused_tokens == 0


@pytest.mark.parametrize("family", ["florence2", "llava"])
def test_other_classes_compute_everything(folders: dict[str, Path], family: str) -> None:
    mllm = TransformersMLLM(str(folders[family]), max_tokens=4)
    question = [Message("user", (RGB, "Box: the cup"))]
    assert mllm.reply(question).text == mllm.reply(question).text
    assert mllm.reused_tokens == 0
