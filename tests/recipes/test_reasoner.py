"""Short trainings of the reasoner, from nothing to a folder that loads."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recipes.embedded import comparison, reasoner
from recipes.embedded.__main__ import main
from recipes.embedded.examples import scene_example, to_pixels
from recipes.embedded.loop import read_log
from recipes.embedded.model import IMAGE_TOKENS, SIZE, load_model
from recipes.embedded.tokenizer import TurnEncoder, make_tokenizer
from recipes.embedded.trainer import ReasonerTrainer
from rsvp.embedded.scenes import scenes
from rsvp.errors import BadInput
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.training.run_folder import load_checkpoint
from rsvp.types import Message


def tensors_of(folder):
    """All tensors of an exported model."""
    return {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }


def test_training_resumes(trained_run) -> None:
    rows = read_log(trained_run / "log.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["scenes"] for row in rows] == ["2", "4", "6"]
    assert float(rows[0]["language"]) == 0  # perception comes first
    assert float(rows[2]["language"]) > 0


def test_fine_tuning_keeps_the_token_embeddings(trained_run, tmp_path, capsys) -> None:
    args = ["--batch", "2", "--turns", "1", "--steps", "2", "--freeze-warmup", "1", "--lr", "0.01"]
    args += ["--shares", "boxes=1,marks=3", "--threads", "1", "--device", "cpu"]
    assert main(["reasoner", "--out", str(tmp_path), "--from", str(trained_run), *args]) == 0
    before, after = (tensors_of(folder / "model") for folder in (trained_run, tmp_path))
    table = "model.language_model.shared.weight"
    assert torch.equal(before[table], after[table])
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > 0.7 * len(before)
    assert main(["reasoner", "--out", str(tmp_path / "n"), "--from", str(tmp_path / "n")]) == 2
    assert "no trained reasoner" in capsys.readouterr().err


def test_fine_tuning_goes_on_with_the_heads_of_the_run(trained_run, tmp_path) -> None:
    args = ["--batch", "2", "--turns", "1", "--steps", "1", "--lr", "0", "--muon-lr", "0"]
    args += ["--threads", "1", "--device", "cpu"]
    assert main(["reasoner", "--out", str(tmp_path), "--from", str(trained_run), *args]) == 0
    before, after = (load_checkpoint(f / "checkpoint.pt") for f in (trained_run, tmp_path))
    assert before["heads"].keys() == after["heads"].keys()
    assert all(torch.equal(before["heads"][k], after["heads"][k]) for k in before["heads"])


def test_the_model_is_frozen_while_the_heads_warm_up(trained_run, tmp_path) -> None:
    model = trained_run / "model"
    trainer = ReasonerTrainer(make_tokenizer(tmp_path, start=model), "cpu", model)
    batch = [scene_example(s, np.random.default_rng(5)) for s in scenes(2, 6, size=SIZE)]
    trainer.perception_loss(batch, to_pixels(batch, None), train_model=False).loss.backward()
    assert all(p.grad is None for p in trainer.model.parameters())
    assert trainer.heads.tag_number.weight.grad is not None
    assert trainer.heads.tag_box.weight.grad is not None


def test_new_tokens_get_rows_of_their_own(trained_run) -> None:
    vocabulary = len(make_tokenizer(trained_run / "tokenizer"))
    table = load_model(trained_run / "model", vocabulary)[0].get_input_embeddings().weight
    model, known = load_model(trained_run / "model", len(table) + 3)
    assert known == len(table)
    grown = model.get_input_embeddings().weight
    assert torch.equal(grown[:-3], table)
    assert torch.cdist(grown[-3:], grown[-3:]).fill_diagonal_(9).min() > table.std()
    assert model.lm_head.weight is grown
    assert not grown.requires_grad
    with pytest.raises(BadInput, match="no reasoner to fine-tune"):
        load_model(trained_run / "nowhere", 9)


def test_the_export_replies_through_the_ordinary_backend(trained_run) -> None:
    mllm = TransformersMLLM(str(trained_run / "model"), max_tokens=8)
    rgb = next(iter(scenes(1, 5, size=100))).rgb
    reply = mllm.reply([Message("user", (rgb, "Think, then box: the dog"))])
    assert 1 <= reply.usage.completion_tokens <= 8
    assert reply.usage.prompt_tokens > IMAGE_TOKENS
    assert reply.confidence is not None
    assert 0 < reply.confidence <= 1


def test_reply_tokens_decode_to_the_reply(trained_run) -> None:
    tokenizer = make_tokenizer(trained_run / "tokenizer")
    encoder = TurnEncoder(tokenizer, "cpu")
    rng = np.random.default_rng(0)
    for scene in scenes(6, 8, size=100, count=3):
        for turn in scene_example(scene, rng).turns:
            tokens = encoder.replies([turn])
            text = "".join(piece for piece, _ in turn.reply)
            assert tokenizer.decode(tokens.ids[0, :-1]) == text
            objects = set(tokens.objects[0].tolist()) - {-1}
            assert objects == set(turn.targets) | {i for _, i in turn.reply if i is not None}


def test_the_comparison_trains_both_architectures(trained_run, tmp_path, capsys) -> None:
    for name in comparison.ARCHITECTURES:
        shutil.copytree(trained_run / "tokenizer", tmp_path / name / "tokenizer")
    config = reasoner.ReasonerConfig(steps=1, perception_steps=0, batch=2, turns=2, log_every=1)
    comparison.run(tmp_path, config, "cpu")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == list(comparison.ARCHITECTURES)
    for line in table[2:]:
        figures = dict(zip(comparison.COLUMNS, map(float, line.split("|")[2:-1]), strict=True))
        assert figures["scenes"] == 2
        assert 3 < figures["language"] < 30


def test_a_comparison_without_figures_says_so(tmp_path) -> None:
    with pytest.raises(BadInput, match="--minutes"):
        comparison.last_figures(tmp_path / "qwen3_vl" / "log.csv")
