"""What the MLLM is shown of masks that it checks: all of them on the image, small ones enlarged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pil

from rsvp.drawing.marks import draw_marks, draw_masks
from rsvp.looks import look_picture, look_window
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box, RgbArray, Target

PADDING = 0.125  # on each side: what is enlarged is 80 % of its picture
MAX_SIDE = 512  # pixels of an enlarged picture


def marked_targets(view: RgbArray, targets: Sequence[Target]) -> RgbArray:
    """The (h, w, 3) view with the targets' outlines, numbered from 1; boxes for empty masks."""
    size = (view.shape[0], view.shape[1])
    masks = [resized_mask(target.mask, size) for target in targets]
    boxes = [_scaled(t.box, t.packed.size, size) for t in targets]
    return draw_masks(view, masks, boxes)[0]


def enlarged_target(
    rgb: RgbArray, target: Target, number: int, boxes: Sequence[Box] = ()
) -> RgbArray:
    """The window around a target, enlarged, with its outline and number.

    Args:
        rgb: (H, W, 3) uint8, the image at its full size.
        boxes: the window is around these, in pixels; by default around the mask.
    """
    height, width = rgb.shape[:2]
    whole = target.mask
    own = mask_to_box(whole) or target.box
    window = look_window(boxes or [own], Box(0, 0, width, height), padding=PADDING)
    picture = look_picture(rgb, window, MAX_SIDE)
    (x0, y0), (x1, y1) = np.floor(window.xyxy[:2]), np.ceil(window.xyxy[2:])
    part = whole[int(y0) : int(y1), int(x0) : int(x1)]
    mask = resized_mask(part, (picture.shape[0], picture.shape[1]))
    moved = Box(own.x0 - x0, own.y0 - y0, own.x1 - x0, own.y1 - y0)
    box = mask_to_box(mask) or _scaled(moved, part.shape, mask.shape)
    return draw_marks(picture, [box], mask[None], numbers=[number])[0]


def resized_mask(mask: BoolMask, size: tuple[int, int]) -> BoolMask:
    """An (H, W) mask at another (h, w)."""
    if mask.shape == size:
        return mask
    picture = Pil.fromarray(mask).resize((size[1], size[0]), Pil.Resampling.NEAREST)
    return np.asarray(picture, dtype=np.bool_)


def _scaled(box: Box, old: Sequence[int], new: Sequence[int]) -> Box:
    y, x = new[0] / old[0], new[1] / old[1]
    return Box(box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y)
