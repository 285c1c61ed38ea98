"""From a window of a photo to a network's square input, and from its logits back to the photo.

The official transforms of the SAM family: SAM 2 resizes to a square by antialiased bilinear
filtering in float32, SAM 3 in 8 bits; HQ-SAM resizes the longer side by Pillow, and pads. They
start from any window; the whole photo is one case. Training and inference use the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pil

from rsvp.platform.pretrained import IMAGENET_MEAN
from rsvp.types import BoolMask, RgbArray

# How pixels are resized: in float32, in 8 bits by torch, or in 8 bits by Pillow.
Resampling = Literal["float", "uint8", "pillow"]


class Window(NamedTuple):
    """A rectangle of whole pixels, xyxy, right and bottom exclusive; may extend past the image."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @classmethod
    def whole(cls, image_size: tuple[int, int]) -> Window:
        """The window of a whole image of size (H, W)."""
        return cls(0, 0, image_size[1], image_size[0])

    def clip(self, image_size: tuple[int, int]) -> Window:
        """The part of the window that lies on an image of size (H, W)."""
        height, width = image_size
        x0, y0 = min(max(self.x0, 0), width), min(max(self.y0, 0), height)
        return Window(x0, y0, max(min(self.x1, width), x0), max(min(self.y1, height), y0))


def margin_box(box_xyxy: Sequence[float], margin: float) -> Window:
    """The crop window of a box: each side moved out by `margin` x the box's size along that axis.

    In pixels, rounded outwards to whole ones; not clipped to the image.
    """
    x0, y0, x1, y1 = box_xyxy
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return Window(math.floor(x0 - dx), math.floor(y0 - dy), math.ceil(x1 + dx), math.ceil(y1 + dy))


def crop_to_square(
    rgb: RgbArray,
    box_xyxy: Sequence[float],
    margin: float,
    size: int,
    *,
    fill: Sequence[float] = IMAGENET_MEAN,
    pad: bool = False,
    resampling: Resampling = "float",
) -> tuple[torch.Tensor, Window]:
    """Crop the window `margin_box(box_xyxy, margin)` of an image and resize it to a square.

    The cost grows with the window, not with the image.

    Args:
        rgb: (H, W, 3) uint8.
        box_xyxy: pixels of `rgb`.
        size: side of the square, in pixels.
        fill: colour outside the image, 0..1; the mean colour becomes zero when normalised.
        pad: keep the aspect ratio, and fill the square at the right or the bottom.

    Returns:
        (3, size, size) float32 in 0..1, not normalised, and the window it shows.
    """
    window = margin_box(box_xyxy, margin)
    content = content_size(window, size, pad=pad)
    # A large window in float32 takes much memory, so that its channels are resized one by one.
    step = 1 if resampling == "float" else 3
    pixels = torch.cat(
        [
            _resize(_crop(rgb[..., c : c + step], window, fill[c : c + step]), content, resampling)
            for c in range(0, 3, step)
        ]
    )
    if content != (size, size):
        square = _canvas(size, size, fill)
        square[:, : content[0], : content[1]] = pixels
        pixels = square
    return pixels, window


def content_size(window: Window, size: int, *, pad: bool) -> tuple[int, int]:
    """(h, w) of the square input of side `size` that shows the window, from the upper left."""
    if not pad:
        return size, size
    scale = size / max(window.width, window.height)
    return int(window.height * scale + 0.5), int(window.width * scale + 0.5)


def resize_logits(
    logits: torch.Tensor, window: Window, size: tuple[int, int], padded: int | None = None
) -> torch.Tensor:
    """(n, h, w) float logits of a window at another size, (n, *size); bilinear.

    Args:
        padded: side of the padded input that the logits cover, as in the official SAM; None where
            they cover the window alone.
    """
    resized = logits[:, None].float()
    if padded is not None:
        height, width = content_size(window, padded, pad=True)
        square = F.interpolate(resized, (padded, padded), mode="bilinear", align_corners=False)
        resized = square[..., :height, :width]
    return F.interpolate(resized, size, mode="bilinear", align_corners=False)[:, 0]


def paste_logits(
    logits: torch.Tensor,
    window: Window,
    image_size: tuple[int, int],
    out: BoolMask,
    padded: int | None = None,
) -> None:
    """Resize mask logits to their window and write into the image where they are above 0.

    Pixels outside the window are False.

    Args:
        logits: (h, w) float.
        image_size: (H, W).
        out: (H, W) bool, overwritten.
        padded: see `resize_logits`.
    """
    visible = window.clip(image_size)
    full = resize_logits(logits[None], window, (window.height, window.width), padded)[0]
    rows = slice(visible.y0 - window.y0, visible.y1 - window.y0)
    columns = slice(visible.x0 - window.x0, visible.x1 - window.x0)
    if visible != Window.whole(image_size):
        out.fill(False)
    inside = (full[rows, columns] > 0).cpu().numpy()
    out[visible.y0 : visible.y1, visible.x0 : visible.x1] = inside


def _crop(rgb: RgbArray, window: Window, fill: Sequence[float]) -> torch.Tensor:
    """(c, height, width) float32 in 0..1 of a window, `fill` (c) outside the (H, W, c) image."""
    visible = window.clip((rgb.shape[0], rgb.shape[1]))
    # A contiguous copy of the window alone, channels first: never a view of read-only memory.
    crop = rgb[visible.y0 : visible.y1, visible.x0 : visible.x1]
    inner = torch.from_numpy(np.array(crop.transpose(2, 0, 1), order="C")).float().div_(255)
    if visible == window:
        return inner
    canvas = _canvas(window.height, window.width, fill)
    top, left = visible.y0 - window.y0, visible.x0 - window.x0
    canvas[:, top : top + visible.height, left : left + visible.width] = inner
    return canvas


def _canvas(height: int, width: int, fill: Sequence[float]) -> torch.Tensor:
    """(c, height, width) float32 of one colour of c channels."""
    colour = torch.tensor(fill, dtype=torch.float32)[:, None, None]
    return colour.repeat(1, height, width)


def _resize(pixels: torch.Tensor, size: tuple[int, int], resampling: Resampling) -> torch.Tensor:
    """(c, *size) float32 in 0..1 of (c, h, w), by antialiased bilinear filtering."""
    if pixels.shape[1:] == size:
        return pixels
    levels = pixels if resampling == "float" else pixels.mul(255).round_().to(torch.uint8)
    if resampling == "pillow":
        picture = Pil.fromarray(levels.permute(1, 2, 0).numpy())
        smaller = np.array(picture.resize(size[::-1], Pil.Resampling.BILINEAR))
        return torch.from_numpy(smaller).permute(2, 0, 1).float().div_(255)
    resized = F.interpolate(
        levels[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[0]
    return resized if resampling == "float" else resized.float().div_(255)
