from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recipes.embedded import sprites as sprite_builder
from recipes.embedded.__main__ import main as recipe
from rsvp.embedded.vocabulary import (
    FOLDER,
    SPRITE_SIZE,
    STYLES,
    categories,
    groups,
    keywords,
    plural,
    sprites,
    tables,
    undrawn,
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


@pytest.mark.parametrize("style", STYLES)
def test_every_category_has_a_sprite_of_its_own(style: str) -> None:
    tiles = sprites(style)
    assert tiles.shape == (len(categories()), SPRITE_SIZE, SPRITE_SIZE, 4)
    drawn = tiles[[c.name not in undrawn(style) for c in categories()]]
    opaque = (drawn[..., 3] > 127).mean((1, 2))
    assert opaque.min() > 0.04
    assert len({tile.tobytes() for tile in drawn}) == len(drawn)


def test_few_categories_are_left_to_the_default_style() -> None:
    assert {style: undrawn(style) for style in STYLES} == {
        "noto": (),
        "fluent-3d": ("paperclip",),
        "fluent-flat": ("paperclip",),
        "twemoji": ("tennis",),
    }
    for style, names in sprite_builder.LEFT_OUT.items():
        assert set(names) <= {c.name for c in categories()}
        assert style not in STYLES or set(names) <= set(undrawn(style))


def test_sheets_are_small() -> None:
    sizes = [(FOLDER / STYLES[style]).stat().st_size for style in STYLES if style != "noto"]
    assert max(sizes) < 1_000_000


def test_a_style_can_be_a_folder_or_a_sheet(tmp_path) -> None:
    """Images named by a category or by its emoji, and the sheet that the recipe makes of them."""
    source, sheet = tmp_path / "drawings", tmp_path / "sheet.png"
    source.mkdir()
    for k, name in enumerate(["red apple", "1f415", "270f-fe0f"]):
        Image.new("RGBA", (60, 30), (80 * k, 0, 0, 255)).save(source / f"{name}.png")
    (source / "notes.txt").write_text("no image")
    build_style(["--style", "mine", "--source", str(source), "--out", str(sheet)])
    for style in (str(source), str(sheet)):
        drawn = [c for c in categories() if c.name not in undrawn(style)]
        assert [c.name for c in drawn] == ["red apple", "dog", "pencil"]
        reds = [int(sprites(style)[c.index][64, 64, 0]) for c in drawn]
        assert reds == [0, 80, 160]
        assert (sprites(style)[drawn[0].index, ..., 3] > 0).any(1).sum() == 63  # half of the width


def build_style(arguments: list[str]) -> None:
    assert recipe(["sprites", *arguments]) == 0


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.png", "small.png"])
def test_a_style_that_cannot_be_read_is_named(tmp_path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGBA", (60, 30)).save(tmp_path / "small.png")
    with pytest.raises(BadInput, match=name):
        sprites(str(tmp_path / name))


def test_the_recipe_wants_a_source_for_another_style(capsys) -> None:
    assert recipe(["sprites", "--style", "mine"]) == 2
    assert "--source" in capsys.readouterr().err


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
