"""The classifier of familiar images, beside a small random model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_florence2

from rsvp.embedded.scenes import scenes
from rsvp.errors import ModelUnavailable
from rsvp.mllm.familiarity import FILE, FeatureReader, score, write
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.registry import embedded_folder
from rsvp.types import Message, RgbArray

MODULES = ("model.vision_tower.blocks.0.0", "model.vision_tower.blocks.2.0")
FEATURES = 2 * (16 + 32)
RGB = np.random.default_rng(0).integers(0, 256, (72, 72, 3), dtype=np.uint8)


def ask(*images: RgbArray) -> list[Message]:
    return [Message("user", (*images, "Box: the cup"))]


def tensors(bias: float, weight: float = 0.0) -> dict[str, torch.Tensor]:
    return {
        "mean": torch.zeros(FEATURES),
        "std": torch.ones(FEATURES),
        "weight": torch.full((FEATURES,), weight),
        "bias": torch.tensor(bias),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_florence2(tmp_path)


def test_a_folder_without_a_classifier_says_nothing(folder: Path) -> None:
    mllm = TransformersMLLM(str(folder), max_tokens=2)
    assert mllm.reply(ask(RGB)).familiarity is None
    assert mllm.familiarity(RGB) is None


def test_the_reply_has_the_score_of_its_image(folder: Path) -> None:
    without = TransformersMLLM(str(folder), max_tokens=2).reply(ask(RGB))
    write(folder, tensors(0.5, weight=0.01), MODULES)
    mllm = TransformersMLLM(str(folder), max_tokens=2)
    reply, other = mllm.reply(ask(RGB)), mllm.reply(ask(255 - RGB))
    assert (reply.text, reply.confidence) == (without.text, without.confidence)
    assert reply.familiarity is not None
    assert reply.familiarity != other.familiarity
    assert mllm.familiarity(RGB) == reply.familiarity


def test_features_are_means_and_deviations_of_each_module() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    reader = FeatureReader(network, ("1", "0"))
    assert reader.take() is None
    images = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    output = network(images)
    found = reader.take()
    assert found is not None
    assert found.shape == (2, 16)
    torch.testing.assert_close(found[:, :4], output.mean((2, 3)))
    torch.testing.assert_close(found[:, 4:8], output.flatten(2).std(-1, correction=0))
    assert reader.take() is None


def test_a_feature_far_away_is_clipped() -> None:
    features = torch.full((2, FEATURES), 2.0)
    features[1, 0] = 1e9
    near, far = score(features, tensors(-1.0, weight=1.0)).tolist()
    assert near == 2 * FEATURES - 1
    assert far == near - 2 + 8


def test_a_classifier_of_another_network_is_refused(folder: Path) -> None:
    write(folder, tensors(0.0), ("model.nothing",))
    assert (folder / FILE).is_file()
    with pytest.raises(ModelUnavailable, match="nothing"):
        TransformersMLLM(str(folder)).load()


@pytest.mark.skipif(
    not (embedded_folder("reasoner") / FILE).is_file(), reason="the weights have no classifier"
)
def test_the_packaged_classifier_knows_scenes() -> None:
    mllm = TransformersMLLM("embedded", max_tokens=1)
    for scene in scenes(4, 31337):
        reply = mllm.reply(ask(scene.rgb))
        assert reply.familiarity is not None
        assert reply.familiarity > 0
    reply = mllm.reply(ask(RGB))
    assert reply.familiarity is not None
    assert reply.familiarity < 0
