"""What several formats need: a class name for every target, and PNG bytes."""

from __future__ import annotations

import io

from PIL import Image as Pil

from rsvp.types import RgbArray, Segmentation, Target


def label_of(target: Target) -> str:
    """The target's label, or "target" where it has none."""
    return target.label or "target"


def labels_of(result: Segmentation) -> list[str]:
    """Each label once, in the order of the targets."""
    return list(dict.fromkeys(label_of(target) for target in result.targets))


def png(pixels: RgbArray | Pil.Image) -> bytes:
    """(H, W, 3) RGB or (H, W) greyscale, uint8 (uint16 greyscale too), as the bytes of a PNG."""
    image = pixels if isinstance(pixels, Pil.Image) else Pil.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
