"""Samples as pictures: what was hit, what was missed, what was too much.

Pixels of the prediction and of the truth are distinguished by colour: hit (both), missed (the truth
alone), surplus (the prediction alone), ignored (pixels that the benchmark doesn't count).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageFilter

from rsvp import drawing
from rsvp.datasets import Sample
from rsvp.drawing.strokes import line_width, outline
from rsvp.evaluation.outcomes import open_image
from rsvp.evaluation.records import AnswerRecord, LookRecord, Record
from rsvp.images import shrink
from rsvp.looks import look_picture
from rsvp.masks import decode_rle
from rsvp.types import BoolMask, Box, Image, RgbArray
from rsvp.writers.common import jpeg_uri, shrink_mask

COLOURS: Mapping[str, tuple[int, int, int]] = drawing.COMPARISON
SIDE = 560  # of the longer side, in pixels: sharp on a phone, some 40 kB a picture
TINT = 0.45  # opacity of a part's colour
COLOUR = 0.5  # how much of the image's own colours is left, so that the parts stand out
QUALITY = 82


def data_uri(sample: Sample, masks: Sequence[object]) -> str:
    """The sample's picture with its truth and predicted COCO RLEs, as the data URI of a JPEG.

    BadInput where the image or a mask is broken, or of another size than the truth.
    """
    predicted = np.zeros_like(sample.mask)
    for mask in masks:
        predicted |= decode_rle(mask, (predicted.shape[0], predicted.shape[1]), sample.id)
    rgb = shrink(open_image(sample).rgb, SIDE)
    return jpeg_uri(painted(rgb, sample, predicted), QUALITY)


def look_strip(image: Image, looks: Sequence[LookRecord], zoom: str, background: str) -> RgbArray:
    """The image, with a frame around what was looked at, and the closer looks beside it.

    Returns:
        (h, w, 3) uint8, on white.

    BadInput where a mask is broken, or of another size than the image.
    """
    size = (image.height, image.width)
    shown = [shrink(image.rgb, SIDE)]
    scale, line = shown[0].shape[0] / image.height, line_width(shown[0].shape[:2])
    shown[0] = np.array(shown[0])
    for look, colour in zip(looks, itertools.cycle(drawing.PALETTE)):
        if look.box is None or look.size is None:
            continue
        masks = [decode_rle(mask, size, look.query) for mask in look.masks]
        kept = np.logical_or.reduce(masks) if zoom == "mask" else None
        window, side = Box(*look.box), max(look.size)
        frame = Box(*(scale * edge for edge in look.box))
        outline(shown[0], frame, colour, 2 * line, 1.0)
        shown.append(shrink(look_picture(image.rgb, window, side, kept, background), SIDE))
    height = max(one.shape[0] for one in shown)
    padded = [np.pad(one, ((0, height - len(one)), (0, 8), (0, 0)), constant_values=255)
              for one in shown]  # fmt: skip
    return np.concatenate(padded, axis=1)


def painted(rgb: RgbArray, sample: Sample, predicted: BoolMask) -> RgbArray:
    """The (h, w, 3) view of a sample's image, paler, with hits and errors tinted and outlined.

    Args:
        rgb: the image, shrunk; the masks are shrunk to it.
        predicted: (H, W) bool, in the image's own size.
    """
    size = (rgb.shape[0], rgb.shape[1])
    truth, predicted = shrink_mask(sample.mask, size), shrink_mask(predicted, size)
    classes = np.zeros(size, dtype=np.uint8)
    parts = {"hit": truth & predicted, "missed": truth & ~predicted, "surplus": predicted & ~truth}
    if sample.ignore is not None:
        parts["ignored"] = shrink_mask(sample.ignore, size) & ~truth
    for number, name in enumerate(COLOURS, start=1):
        if name in parts:
            classes[parts[name]] = number
    palette = np.array([(0, 0, 0), *COLOURS.values()], dtype=np.float32)[classes]
    opacity = np.where(_edges(classes), 1.0, TINT) * (classes > 0)
    paled = rgb * COLOUR + rgb.mean(axis=2, keepdims=True) * (1 - COLOUR)
    mixed = paled * (1 - opacity[..., None]) + palette * opacity[..., None]
    view: RgbArray = np.rint(mixed).astype(np.uint8)
    return view


def _edges(classes: NDArray[np.uint8]) -> BoolMask:
    """Pixels within a line's width of another class."""
    reach = 2 * max(1, round(max(classes.shape) / 250)) + 1
    picture = Pil.fromarray(classes)
    highest = np.asarray(picture.filter(ImageFilter.MaxFilter(reach)))
    edges: BoolMask = highest != np.asarray(picture.filter(ImageFilter.MinFilter(reach)))
    return edges


def _area(record: Record | AnswerRecord) -> int:
    """Pixels that decide between samples of one score; of questions none do."""
    return record.union if isinstance(record, Record) else 1


class Examples:
    """The best, the worst and the failed records, a few of each.

    Of equal scores the larger union comes first, for a large wrong mask hurts more; a rightly
    empty answer, where there is nothing to see, is among the best only for want of others. The
    same records always give the same examples.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.best: list[Record | AnswerRecord] = []
        self.worst: list[Record | AnswerRecord] = []
        self.failed: list[Record | AnswerRecord] = []

    def add(self, record: Record | AnswerRecord) -> None:
        """Consider a record; at most three times `most` are held."""
        if record.failure is not None:
            self.failed = [*self.failed, record][: self._most]
        elif record.score is not None:
            best, worst = [*self.best, record], [*self.worst, record]
            best.sort(key=lambda one: (_area(one) == 0, -(one.score or 0.0), -_area(one)))
            worst.sort(key=lambda one: (one.score or 0.0, -_area(one)))
            self.best, self.worst = best[: self._most], worst[: self._most]
