"""Masks as annotation tools take them: polygons, and the run lengths of Label Studio's brush."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rsvp.types import BoolMask
from rsvp.writers.contours import find_outlines, join_contours

Polygon = NDArray[np.float64]

_CHANNELS = 4  # of the brush's picture: RGBA, all of one value
# Bits that hold the length of a run, by the index that names them.
_SIZES = (3, 4, 8, 16)
_LONGEST = 1 << 16


def polygons(mask: BoolMask, epsilon_factor: float = 0.0) -> Iterator[Polygon]:
    """(n, 2) x, y of each separate part of a mask (H, W), the largest first.

    Coordinates are those of the edges of pixels: pixel (0, 0) reaches from 0 to 1. Holes are joined
    to their part by a cut without area, so that a filled polygon has exactly the part's pixels.

    Args:
        epsilon_factor: how far a corner may be left out, as a share of its outline's length.
    """
    for part in find_outlines(mask):
        outlines = [_simplified(outline, epsilon_factor) for outline in part]
        yield join_contours(outlines).astype(np.float64)


def _simplified(outline: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    """Corners of a closed outline by Douglas and Peucker's rule; a triangle at least."""
    steps = np.roll(outline, -1, axis=0) - outline
    epsilon = factor * float(np.hypot(*steps.T).sum())
    if epsilon <= 0 or len(outline) < 4:
        return outline
    far = int(((outline - outline[0]) ** 2).sum(axis=1).argmax())
    closed, keep = np.concatenate([outline, outline[:1]]), {0, far}
    spans = [(0, far), (far, len(outline))]
    while spans:
        first, last = spans.pop()
        between = closed[first + 1 : last] - closed[first]
        chord = closed[last] - closed[first]
        if not len(between):
            continue
        away = np.abs(chord[0] * between[:, 1] - chord[1] * between[:, 0]) / np.hypot(*chord)
        if away.max() > epsilon:
            middle = first + 1 + int(away.argmax())
            keep.add(middle)
            spans += [(first, middle), (middle, last)]
    return outline[sorted(keep)] if len(keep) > 2 else outline


def brush_rle(mask: BoolMask) -> list[int]:
    """A mask (H, W) as the bytes of Label Studio's brush.

    The format is that of github.com/thi-ng/umbrella, packages/rle-pack: 32 bits for the number of
    values, 5 for their size less 1, 4 for each of four sizes of run lengths less 1; then for each
    run a 1, two bits that name the size of its length, its length less 1, and its value.
    """
    pixels = mask.ravel()
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, pixels.size)
    bits = [f"{pixels.size * _CHANNELS:032b}{8 - 1:05b}", *(f"{n - 1:04b}" for n in _SIZES)]
    start = 0
    for end in ends.tolist():
        value, left = f"{255 * int(pixels[start]):08b}", (end - start) * _CHANNELS
        while left:
            length = min(left, _LONGEST)
            index = next(i for i, size in enumerate(_SIZES) if length <= 1 << size)
            bits.append(f"1{index:02b}{length - 1:0{_SIZES[index]}b}{value}")
            left -= length
        start = end
    text = "".join(bits)
    text += "0" * (8 - len(text) % 8)  # Label Studio's own encoder adds a byte where none is needed
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]
