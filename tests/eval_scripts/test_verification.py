"""The experiments of verification and sampling: what they spoil, run and print."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import scripted

from eval import verification
from rsvp.embedded import scenes
from rsvp.pipeline import Pipeline
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Box, Proposal, Reasoning

OBJECTS = [("cup", Box(0, 0, 10, 10)), ("hat", Box(20, 0, 30, 10)), ("dog", Box(40, 0, 50, 10))]


def spoilt(count: int):
    """The kinds of mistakes made to a right reply about the first `count` objects."""
    right = Reasoning((), tuple(Proposal(name, box) for name, box in OBJECTS[:count]), "r")
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(80):
        targets = verification.spoil(right, OBJECTS, rng).proposals
        assert targets != right.proposals
        wrong = [t for t in targets if t not in right.proposals]
        if len(targets) != count:
            found.add("none" if not targets else "surplus" if len(targets) > count else "missing")
        elif wrong[0].box in [box for _, box in OBJECTS]:
            found.add("other")
        else:
            assert wrong[0].box.area == 50
            found.add("half")
    return found


@pytest.mark.parametrize(
    ("count", "ways"),
    [
        (0, {"surplus"}),
        (1, {"surplus", "other", "half", "none"}),
        (2, {"surplus", "other", "half", "none", "missing"}),
        (3, {"half", "none", "missing"}),
    ],
)
def test_every_mistake_that_applies_is_made(count, ways) -> None:
    if count:
        assert spoilt(count) == ways
    else:
        made = verification.spoil(Reasoning((), (), ""), OBJECTS, np.random.default_rng(0))
        assert len(made.proposals) == 1


def folder(tmp_path):
    scenes.main(["--n", "6", "--seed", "5", "--out", str(tmp_path / "s")])
    return tmp_path / "s"


def run(tmp_path, monkeypatch, capsys, *words, lines=None):
    whole = scripted.pipeline(*(lines or [scripted.answer((100, 100, 400, 400))]))
    monkeypatch.setattr(Pipeline, "from_preset", lambda _: whole)
    data = folder(tmp_path)
    where = ["--data", str(data), "--out", str(tmp_path / "out"), "--strategy", "boxes"]
    assert verification.main([words[0], *where, *words[1:]]) == 0
    return capsys.readouterr().out, whole


def test_the_same_replies_are_spoiled_in_every_run(tmp_path) -> None:
    data = folder(tmp_path)
    objects = verification.scene_objects(data)
    from rsvp.images import load_image

    image = load_image(data / "000000.png")
    strategy = BoxesStrategy()
    view = strategy.view(image)
    pipe = scripted.pipeline("")
    text = json.dumps({"targets": [{"label": "a", "box": [0, 0, 300, 300]}], "reason": "r"})

    def read(share):
        made = verification.spoiled(strategy, objects, share)
        return made.read(text, image, view, pipe.prompt_config.frame).proposals

    assert (
        read(1.0)
        == read(1.0)
        != strategy.read(text, image, view, pipe.prompt_config.frame).proposals
    )
    assert read(1e-9) == strategy.read(text, image, view, pipe.prompt_config.frame).proposals


def test_rounds_and_recovery(tmp_path, monkeypatch, capsys) -> None:
    accepted = json.dumps({"verdicts": [{"target": 1, "verdict": "accept"}], "missing": []})
    both = json.dumps({**json.loads(accepted), **json.loads(scripted.answer((100, 100, 400, 400)))})
    out, _ = run(tmp_path, monkeypatch, capsys, "rounds", lines=[both])
    assert [line.split()[1] for line in out.splitlines()[::2]] == ["none", "clear", "all"]
    assert "difference 0.000 [0.000, 0.000]" in out
    assert "1.00 calls" in out
    assert "2.00 calls" in out


def test_samples_have_a_reliability_diagram(tmp_path, monkeypatch, capsys) -> None:
    out, _ = run(tmp_path, monkeypatch, capsys, "samples", "--samples", "1", "3")
    assert "K=3" in out
    assert "from 0.8: n 6, agreement 1.00" in out
    svg = (tmp_path / "out/boxes-3-samples/reliability.svg").read_text()
    assert svg.count("<rect") == 1
    assert not (tmp_path / "out/boxes-1-samples/reliability.svg").exists()


def test_a_share_outside_its_range_is_refused(tmp_path, capsys) -> None:
    words = ["recovery", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--share", "0"]
    assert verification.main(words) == 2
    assert "the share is above 0" in capsys.readouterr().err


def test_what_a_kept_prefix_saves(tmp_path, capsys) -> None:
    from tiny_models import tiny_qwen3_vl

    data, model = folder(tmp_path), tiny_qwen3_vl(tmp_path / "model")
    words = ["cache", "--data", str(data), "--mllm", f"transformers:{model}", "--side", "64"]
    assert verification.main(words) == 0
    said = re.search(r"([0-9]+) of ([0-9]+) tokens", capsys.readouterr().out)
    assert 0.3 < int(said[1]) / int(said[2]) < 1


def test_what_sparse_patches_save(tmp_path, capsys) -> None:
    from tiny_models import tiny_qwen3_vl

    data, model = folder(tmp_path), tiny_qwen3_vl(tmp_path / "model")
    words = ["sparse", "--data", str(data), "--mllm", f"transformers:{model}", "--side", "320"]
    assert verification.main(words) == 0
    said = dict(
        re.findall(r"(\w+) +([0-9]+) tokens, [0-9.]+ s, [0-9]+ MB", capsys.readouterr().out)
    )
    assert list(said) == ["box", "sparse", "whole"]
    assert int(said["sparse"]) < int(said["whole"])
