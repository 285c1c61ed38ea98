from __future__ import annotations

import numpy as np
import pytest

from recipes.embedded import sprites as sprite_builder
from rsvp.embedded.vocabulary import (
    SPRITE_SIZE,
    categories,
    groups,
    keywords,
    plural,
    sprites,
    tables,
    uses,
)
from rsvp.errors import BadInput


def test_vocabulary_has_the_promised_size() -> None:
    assert len(categories()) >= 120
    assert len(groups()) >= 12
    assert {c.group for c in categories()} == set(groups())
    assert len({c.name for c in categories()}) == len(categories())


def test_categories_are_those_of_the_groups_table() -> None:
    listed = [name for names in tables()["groups"].values() for name in names]
    assert [c.name for c in categories()] == listed


def test_every_category_has_a_sprite_of_its_own() -> None:
    tiles = sprites()
    assert tiles.shape == (len(categories()), SPRITE_SIZE, SPRITE_SIZE, 4)
    opaque = (tiles[..., 3] > 127).mean((1, 2))
    assert opaque.min() > 0.04
    assert len({tile.tobytes() for tile in tiles}) == len(categories())


def test_keywords_fit_few_categories_and_are_no_names() -> None:
    assert len(keywords()) > 150
    assert max(len(indices) for indices in keywords().values()) <= 6
    assert not {c.name for c in categories()} & set(keywords())


def test_uses_refer_to_categories() -> None:
    assert set(uses()) == set(tables()["uses"])
    (knife,) = uses()["cut the bread"]
    assert categories()[knife].name == "kitchen knife"
    drinking = uses("uses_without_with")["drink from"]
    assert {categories()[i].group for i in drinking} == {"drink"}


@pytest.mark.parametrize(
    ("name", "many"),
    [("dog", "dogs"), ("bus", "buses"), ("paintbrush", "paintbrushes"),
     ("butterfly", "butterflies"), ("scissors", "scissors"), ("toy", "toys"),
     ("carpentry saw", "carpentry saws")],
)  # fmt: skip
def test_plural(name: str, many: str) -> None:
    assert plural(name) == many


def test_a_missing_font_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(sprite_builder, "FONT", tmp_path / "missing.ttf")
    with pytest.raises(BadInput, match="apt-get install fonts-noto-color-emoji"):
        sprite_builder.build()


@pytest.mark.skipif(
    not all(file.exists() for file in sprite_builder.sources()),
    reason="the emoji font, CLDR or the Unicode data are not installed",
)
def test_shipped_sprites_are_what_the_font_draws() -> None:
    annotations = sprite_builder.read_annotations()
    for category in categories()[::40]:
        char, _ = annotations[category.name]
        drawn = np.asarray(sprite_builder.draw_sprite(char)).copy()
        drawn[drawn[..., 3] == 0] = 0
        np.testing.assert_array_equal(drawn, sprites()[category.index])
