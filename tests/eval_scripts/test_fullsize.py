"""The dry run at full size, with smaller networks: the same folders, the same command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tiny_sam2 import SIZE, small_sam2

from eval import fullsize
from rsvp.types import Message

ROOT = Path(__file__).parents[2]
VOCABULARY = 600
TEXT = {
    **fullsize.TEXT, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 640,
    "bos_token_id": 600, "eos_token_id": 602,
    "rope_parameters": {**fullsize.TEXT["rope_parameters"], "mrope_section": [4, 2, 2]},
}  # fmt: skip
VISION = {
    **fullsize.VISION, "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
    "out_hidden_size": 32, "deepstack_visual_indexes": [0],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fullsize, "TEXT_BYTES", 50_000)
    fullsize.write_qwen(tmp_path / fullsize.MLLM, VOCABULARY, TEXT, VISION)
    small_sam2().save_pretrained(tmp_path / fullsize.SEGMENTER)
    settings = {"size": SIZE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / fullsize.SEGMENTER / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_the_network_is_made_to_write_the_reply_token_by_token(folder: Path) -> None:
    fullsize.MEASURED.clear()
    reply = fullsize.ForcedReply(str(folder / fullsize.MLLM)).reply([Message("user", ("Where?",))])
    assert (reply.text, reply.finish_reason) == (fullsize.REPLY, "stop")
    assert fullsize.MEASURED["MLLM passes"] == reply.usage.completion_tokens


def test_the_command_runs_and_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    assert fullsize.main(["--folder", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "knife [" in printed
    for row in ("1 passes", "both without loading", "without mapped files", "rsvp models says"):
        assert row in printed
