"""What is true of `rsvp/embedded/demo.png` and the question that `make demo` asks of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rsvp import registry
from rsvp.platform import machine

QUERY = "what would you cut the bread with?"
LABEL = "kitchen knife"
IMAGE = Path(registry.__file__).parent / "embedded" / "demo.png"
SIZE = (480, 480)

# The outline of the one knife, x and y in pixels, traced from its rendering.
_KNIFE = (
    (355, 97), (347, 92), (340, 93), (287, 147), (285, 153), (251, 188), (210, 236),
    (180, 279), (180, 285), (201, 283), (240, 266), (276, 241), (307, 211), (311, 203),
    (296, 186), (295, 176), (301, 169), (307, 169), (365, 118), (366, 112),
)  # fmt: skip

MISSING = [
    f"rsvp/embedded/weights/{part}"
    for part in registry.EMBEDDED
    if not machine.holds_weights(registry.embedded_folder(part))
]
WHY_SKIPPED = f"{' and '.join(MISSING)} not there: python -m recipes.embedded trains them"


def knife() -> np.ndarray:
    """(H, W) bool."""
    canvas = Image.new("1", SIZE)
    ImageDraw.Draw(canvas).polygon(_KNIFE, fill=1)
    return np.asarray(canvas)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks, 0 to 1."""
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))
