from __future__ import annotations

import random

import numpy as np
import torch

from recipes.embedded.examples import CELLS, SIZE, Pool, foreign_example, pixels, to_example
from recipes.embedded.tokenizer import make_tokenizer
from recipes.embedded.trainee import Trainee
from rsvp.embedded.replies import UNKNOWN
from rsvp.embedded.scenes import scenes
from rsvp.parsing import parse_reply

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_a_photograph_is_answered_with_not_of_this_world() -> None:
    example = foreign_example([PHOTO], 2, np.random.default_rng(1))
    assert example.rgb.shape == (SIZE, SIZE, 3)
    assert (example.cells == -1).all()
    assert example.cells.shape == (CELLS * CELLS,)
    for ask in example.asks:
        parsed = parse_reply("".join(text for text, _ in ask.told), expect="box")
        assert parsed.targets == ()
        assert not parsed.understood


def test_some_of_a_pool_are_photographs() -> None:
    pool = Pool(3, 200, 1.0, [PHOTO], 1)
    foreign = [UNKNOWN in e.asks[0].told[0][0] for e in pool.draw(80)]
    assert 0 < sum(foreign) < 25
    assert not any(UNKNOWN in e.asks[0].told[0][0] for e in Pool(3, 200, 1.0, [], 1).draw(20))


def test_a_batch_with_a_photograph_has_finite_losses(tmp_path) -> None:
    trainee = Trainee(make_tokenizer(tmp_path, 20), "cpu")
    rng = np.random.default_rng(5)
    batch = [foreign_example([PHOTO], 1, rng)]
    batch += [to_example(s, rng) for s in scenes(2, 6, size=SIZE)]
    batch = [example for example in batch if example.asks]
    seen = trainee.perceive(batch, pixels(batch, rng))
    said = trainee.converse(batch, seen, random.Random(0), 1)
    loss = seen.loss + said.spoken + said.understood
    loss.backward()
    assert torch.isfinite(loss)
