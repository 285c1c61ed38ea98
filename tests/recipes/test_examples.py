from __future__ import annotations

import random

import numpy as np
import torch

from recipes.embedded.examples import (
    CELLS,
    SIZE,
    ExampleBuffer,
    cell_objects,
    photo_example,
    scene_example,
    to_pixels,
)
from recipes.embedded.replies import NOT_UNDERSTOOD
from recipes.embedded.tokenizer import make_tokenizer
from recipes.embedded.trainer import ReasonerTrainer
from rsvp.embedded.scenes import scenes
from rsvp.parsing import parse_reply

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_every_object_has_a_cell() -> None:
    for scene in scenes(20, 77, size=240):
        owners = cell_objects(scene.objects, 240)
        assert owners.shape == (CELLS**2,)
        missing = set(range(len(scene.objects))) - set(owners.tolist())
        # Two small objects may share one cell; no more than that is lost.
        assert len(missing) <= 1


def test_a_photograph_is_not_understood() -> None:
    example = photo_example([PHOTO], 2, np.random.default_rng(1))
    assert example.rgb.shape == (SIZE, SIZE, 3)
    assert (example.cell_objects == -1).all()
    assert example.cell_objects.shape == (CELLS * CELLS,)
    for turn in example.turns:
        parsed = parse_reply("".join(text for text, _ in turn.reply), expect="box")
        assert parsed.targets == ()
        assert not parsed.understood


def test_some_examples_of_a_buffer_are_photographs() -> None:
    def photographs(photos, n):
        drawn = ExampleBuffer(3, 200, 1.0, photos, 1).draw(n)
        return [NOT_UNDERSTOOD in e.turns[0].reply[0][0] for e in drawn]

    assert 0 < sum(photographs([PHOTO], 80)) < 25
    assert not any(photographs([], 20))


def test_grounds_are_backgrounds_and_no_images_to_refuse() -> None:
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    drawn = ExampleBuffer(3, 200, 1.0, [], 1, shares={"boxes": 1}, grounds=[white]).draw(40)
    assert not any(NOT_UNDERSTOOD in e.turns[0].reply[0][0] for e in drawn)
    assert 5 <= sum((e.rgb == 255).all(-1).mean() > 0.3 for e in drawn) < 30


def test_a_batch_with_a_photograph_has_finite_losses(tmp_path) -> None:
    trainer = ReasonerTrainer(make_tokenizer(tmp_path, 20), "cpu")
    rng = np.random.default_rng(5)
    batch = [photo_example([PHOTO], 1, rng)]
    batch += [scene_example(s, rng) for s in scenes(2, 6, size=SIZE)]
    batch = [example for example in batch if example.turns]
    seen = trainer.perception_loss(batch, to_pixels(batch, rng))
    said = trainer.turn_losses(batch, seen, random.Random(0), 1)
    loss = seen.loss + said.language + said.encoder
    loss.backward()
    assert torch.isfinite(loss)
