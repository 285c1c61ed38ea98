from __future__ import annotations

import numpy as np
import pytest

from rsvp.embedded import atlas
from rsvp.embedded.world import (
    GROUPS,
    TILE,
    USES,
    USES_ALONE,
    keywords,
    plural,
    sprites,
    things,
    uses,
    uses_alone,
)
from rsvp.errors import BadInput


def test_world_has_the_promised_size() -> None:
    assert len(things()) >= 120
    assert len({t.group for t in things()}) >= 12
    assert {t.group for t in things()} == set(GROUPS)
    assert len({t.name for t in things()}) == len(things())


def test_every_sprite_is_drawn() -> None:
    tiles = sprites()
    assert tiles.shape == (len(things()), TILE, TILE, 4)
    ink = (tiles[..., 3] > 127).mean((1, 2))
    assert ink.min() > 0.04
    flat = {tile.tobytes() for tile in tiles}
    assert len(flat) == len(things())


def test_keywords_are_telling() -> None:
    assert len(keywords()) > 150
    assert max(len(which) for which in keywords().values()) <= 6
    names = {t.name for t in things()}
    assert not names & set(keywords())


def test_uses_name_things_of_the_world() -> None:
    assert set(uses()) == set(USES)
    (knife,) = uses()["cut the bread"]
    assert things()[knife].name == "kitchen knife"
    assert set(uses_alone()) == set(USES_ALONE)
    assert {things()[i].group for i in uses_alone()["drink from"]} == {"drink"}


@pytest.mark.parametrize(
    ("name", "many"),
    [("dog", "dogs"), ("bus", "buses"), ("paintbrush", "paintbrushes"),
     ("butterfly", "butterflies"), ("scissors", "scissors"), ("toy", "toys"),
     ("carpentry saw", "carpentry saws")],
)  # fmt: skip
def test_plural(name: str, many: str) -> None:
    assert plural(name) == many


def test_atlas_says_which_packages_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(atlas, "FONT", tmp_path / "missing.ttf")
    with pytest.raises(BadInput, match="apt-get install fonts-noto-color-emoji"):
        atlas.build()


@pytest.mark.skipif(
    not (atlas.FONT.exists() and atlas.ANNOTATIONS.exists() and atlas.CODE_POINTS.exists()),
    reason="the emoji font, CLDR or the Unicode data are not installed",
)
def test_shipped_sprites_are_what_the_font_draws() -> None:
    annotations = atlas.read_annotations()
    for thing in things()[::40]:
        char, _ = annotations[thing.name]
        drawn = np.asarray(atlas.draw_sprite(char)).copy()
        drawn[drawn[..., 3] == 0] = 0
        np.testing.assert_array_equal(drawn, sprites()[thing.index])
