"""What several formats need: names of files and classes, and PNG bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from rsvp.types import BoolMask, RgbArray, Segmentation, Target


def mask_file(number: int) -> str:
    """The mask of the target at this place, counted from 0."""
    return f"masks/{number:03d}.png"


def look_file(number: int) -> str:
    """The picture of the look at this place among those that have one, counted from 0."""
    return f"looks/{number:03d}.png"


def image_stem(path: str | None) -> str:
    """What a file is called that is named like the image."""
    return Path(path or "image").stem


def label_of(target: Target) -> str:
    """The target's label, or "target" where it has none."""
    return target.label or "target"


def labels_of(result: Segmentation) -> list[str]:
    """Each label once, in the order of the targets."""
    return list(dict.fromkeys(label_of(target) for target in result.targets))


def jpeg_uri(rgb: RgbArray, quality: int) -> str:
    """(H, W, 3) uint8 as the data URI of a JPEG."""
    buffer = io.BytesIO()
    Pil.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def shrink_mask(mask: BoolMask, size: tuple[int, int], *, least: int = 128) -> BoolMask:
    """An (H, W) mask at (h, w): pixels at least half covered, of which `least` 1 leaves one."""
    if mask.shape == size:
        return mask
    grey = Pil.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], Pil.Resampling.BOX)
    shares = np.asarray(grey)
    small: BoolMask = shares >= min(128, max(least, int(shares.max())))
    return small


def png(pixels: RgbArray | Pil.Image) -> bytes:
    """(H, W, 3) RGB or (H, W) greyscale, uint8 (uint16 greyscale too), as the bytes of a PNG."""
    image = pixels if isinstance(pixels, Pil.Image) else Pil.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
