"""The user's hint on the picture that the MLLM is shown: a frame, dim around it, and crosses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.palette import HINT_CROSS, HINT_EXAMPLE, HINT_FRAME
from rsvp.types import Box, Point, RgbArray

DIM = 0.45  # of its brightness is left to what lies outside the box


def draw_hint(
    rgb: RgbArray,
    within: Box | None,
    exclude: Sequence[Point],
    like: Sequence[Box],
    image_size: tuple[int, int],
) -> RgbArray:
    """A copy of a view with the hint on it.

    Args:
        rgb: (h, w, 3) uint8, the view of the image.
        within: framed, and everything else dimmed; in pixels of the image.
        exclude: marked with red crosses; in pixels of the image.
        like: framed in yellow; in pixels of the image.
        image_size: (H, W) of the image.
    """
    height, width = rgb.shape[:2]
    scale_x, scale_y = width / image_size[1], height / image_size[0]
    canvas = np.array(rgb)
    line = max(2, round(min(height, width) / 200))
    if within is not None:
        x0, y0 = int(within.x0 * scale_x), int(within.y0 * scale_y)
        x1 = max(x0 + 1, round(within.x1 * scale_x))
        y1 = max(y0 + 1, round(within.y1 * scale_y))
        inside = canvas[y0:y1, x0:x1].copy()
        canvas = (canvas * DIM).astype(np.uint8)
        # The frame lies outside the box, so that it hides nothing inside.
        canvas[max(0, y0 - line) : y1 + line, max(0, x0 - line) : x1 + line] = HINT_FRAME
        canvas[y0:y1, x0:x1] = inside
    picture = Pil.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    arm = 4 * line
    for box in like:
        corners = (box.x0 * scale_x, box.y0 * scale_y, box.x1 * scale_x, box.y1 * scale_y)
        x0, y0, x1, y1 = map(round, corners)
        frame = (x0 - line, y0 - line, max(x0, x1) + line, max(y0, y1) + line)  # it hides nothing
        draw.rectangle(frame, outline=HINT_EXAMPLE, width=line)
    for point in exclude:
        x, y = point.x * scale_x, point.y * scale_y
        for colour, stroke in (((255, 255, 255), 3 * line), (HINT_CROSS, line)):
            draw.line((x - arm, y - arm, x + arm, y + arm), colour, stroke)
            draw.line((x - arm, y + arm, x + arm, y - arm), colour, stroke)
    return np.array(picture)
