"""The colours of everything that is drawn, as RGB (RGBA where translucent)."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
NOTICE: Colour = (235, 235, 235)  # text on a darkened corner

# Targets on an overlay; `colour_of` continues the list.
PALETTE: tuple[Colour, ...] = (
    (255, 56, 92), (30, 144, 255), (50, 205, 90), (255, 170, 0),
    (176, 84, 255), (0, 206, 209), (255, 105, 200), (190, 210, 40),
)  # fmt: skip

# Numbered marks: all light, so that black numbers are readable on them.
MARKS: tuple[Colour, ...] = (
    (255, 255, 255), (255, 230, 30), (60, 240, 255), (90, 255, 90),
    (255, 165, 60), (255, 150, 220), (160, 190, 255), (200, 255, 170),
)  # fmt: skip

# The numbered bands: a light line beside a dark one is visible on every background.
GRID_LIGHT, GRID_DARK = (255, 255, 255, 120), (0, 0, 0, 80)
GRID_ROW, GRID_COLUMN, GRID_OUTLINE = (255, 224, 64, 240), (96, 232, 255, 240), (0, 0, 0, 240)

# A user's hint: the prompts name these colours; magenta is rare in pictures.
HINT_FRAME: Colour = (255, 0, 220)
HINT_CROSS: Colour = (255, 40, 40)
HINT_EXAMPLE: Colour = (255, 230, 0)

# Pixels of a prediction beside the ground truth: in both, in the truth alone, in the prediction
# alone, not counted.
COMPARISON: Mapping[str, Colour] = {
    "hit": (34, 180, 90),
    "missed": (40, 120, 255),
    "surplus": (235, 60, 70),
    "ignored": (150, 150, 150),
}


def colour_of(index: int) -> Colour:
    """The colour of the `index`-th target: the palette, then hues by the golden angle."""
    if index < len(PALETTE):
        return PALETTE[index]
    hue = (index * 0.618034) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0 if index % 2 else 0.8)
    return round(red * 255), round(green * 255), round(blue * 255)


def is_light(colour: Colour) -> bool:
    """Whether black is more readable on it than white."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
