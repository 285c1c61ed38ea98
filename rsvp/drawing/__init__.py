"""Drawing on images: grids and marks for the MLLM, the overlay for people.

Everything takes and returns (H, W, 3) uint8 RGB of the same size and leaves its input unchanged.
Line widths and text sizes follow the image's shorter side, so that 64 px and 6000 px look alike.
"""

from __future__ import annotations

from rsvp.drawing.grid import grid_prompt
from rsvp.drawing.marks import draw_marks, draw_masks
from rsvp.drawing.palette import COMPARISON, PALETTE, colour_of
from rsvp.drawing.tags import Rectangle
from rsvp.drawing.targets import overlay

__all__ = [
    "COMPARISON",
    "PALETTE",
    "Rectangle",
    "colour_of",
    "draw_marks",
    "draw_masks",
    "grid_prompt",
    "overlay",
]
