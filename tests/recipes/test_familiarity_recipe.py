"""Fitting the classifier of familiar images."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.embedded import familiarity
from recipes.embedded.__main__ import main
from recipes.embedded.model import SIZE
from rsvp.mllm.familiarity import FILE, score
from rsvp.registry import embedded_folder


def test_images_of_both_classes_are_as_the_reasoner_sees_them() -> None:
    rng = np.random.default_rng(0)
    shape = (SIZE, SIZE, 3)
    assert [rgb.shape for rgb in islice(familiarity.scene_images(rng, ()), 6)] == [shape] * 6
    sources = [
        rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((40, 400), (3, 2), (9, 9))
    ]
    found = list(islice(familiarity.other_images(rng, sources), 24))
    assert [rgb.shape for rgb in found] == [shape] * 24


def test_the_classifier_separates_what_a_feature_separates() -> None:
    generator = torch.Generator().manual_seed(0)
    familiar, unfamiliar = torch.randn(2, 400, 5, generator=generator)
    unfamiliar[:, 2] += 6
    tensors = familiarity.fit_classifier(familiar, unfamiliar)
    assert (score(familiar, tensors) > 0).float().mean() > 0.98
    assert (score(unfamiliar, tensors) < 0).float().mean() > 0.98


@pytest.mark.slow
def test_a_fitted_folder_knows_noise_from_scenes(tmp_path, capsys) -> None:
    model, noise = tmp_path / "model", tmp_path / "others" / "noise"
    model.mkdir()
    noise.mkdir(parents=True)
    for file in embedded_folder("reasoner").iterdir():
        if file.name != FILE:
            (model / file.name).symlink_to(file)
    rng = np.random.default_rng(0)
    for i in range(8):
        rgb = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(noise / f"{i}.png")
    arguments = ["--model", str(model), "--others", str(noise.parent), "--scenes", "32"]
    assert main(["familiarity", *arguments]) == 0
    assert (model / FILE).stat().st_size < 100_000
    shares = dict(
        line.split(" unlike the training's: ") for line in capsys.readouterr().out.splitlines()
    )
    assert {name.strip() for name in shares} == {"scenes", "noise"}
    assert float(next(v for k, v in shares.items() if "noise" in k)) == 1
