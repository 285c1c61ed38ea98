"""COCO run-length encodings: masks as text, checked before they are decoded.

A run-length encoding is ``{"size": [H, W], "counts": …}``: the lengths of alternating runs of 0 and
1, starting with 0, in column-major order; `counts` is COCO's compressed text or the plain list.
pycocotools trusts what it is given, so that a broken encoding could yield a wrong mask silently;
here the runs must fill the image exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from rsvp.errors import BadInput
from rsvp.types import BoolMask, Box

RLE = dict[str, Any]

_OFFSET, _MORE, _BITS, _SIGN = 48, 0x20, 5, 0x10  # of COCO's text: six bits a character
_MAX_CHARACTERS = 7  # of one number; more would be a run beyond any image


def encode_rle(mask: BoolMask) -> RLE:
    """An (H, W) mask as COCO RLE with text counts, ready for JSON."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: object, size: tuple[int, int], where: str) -> BoolMask:
    """The (H, W) bool mask of an encoding.

    Args:
        size: (H, W) that it must have.
        where: names the encoding in error messages, e.g. the file and the id.

    Raises:
        BadInput: see `rle_runs`.
    """
    runs = rle_runs(rle, size, where)
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def rle_runs(rle: object, size: tuple[int, int], where: str) -> NDArray[np.int64]:
    """The run lengths of an encoding, without decoding the pixels.

    Raises:
        BadInput: not an encoding, of another size, or its runs don't fill H x W pixels.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= rle.keys():
        raise BadInput(f"{where}: a mask is COCO RLE with size and counts")
    if list(rle["size"] if isinstance(rle["size"], list | tuple) else ()) != list(size):
        raise BadInput(f"{where}: the mask is of size {rle['size']}, the image is {list(size)}")
    runs = _runs(rle["counts"])
    if runs is None or (runs < 0).any():
        raise BadInput(f"{where}: the counts of the mask are not COCO RLE")
    if runs.sum() != size[0] * size[1]:
        raise BadInput(
            f"{where}: the runs of the mask cover {runs.sum()} pixels, "
            f"the image has {size[0] * size[1]}"
        )
    return runs


def _runs(counts: object) -> NDArray[np.int64] | None:
    """Run lengths from compressed text or a list; None when they are neither."""
    if isinstance(counts, list):
        whole = all(isinstance(n, int) and 0 <= n < 2**31 for n in counts)
        return np.array(counts, dtype=np.int64) if whole else None
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "surrogatepass")  # half a pair is no digit, and refused so
    return _from_text(counts) if isinstance(counts, bytes) else None


def _from_text(text: bytes) -> NDArray[np.int64] | None:
    """COCO's compressed text as run lengths, like `rleFrString` of pycocotools, all at once.

    A number is written low bits first, five a character; bit 0x20 says that more follow, and 0x10
    of the last one that it is negative. From the fourth on they are differences to the last but
    one.
    """
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - _OFFSET
    if digits.size == 0:
        return np.zeros(0, dtype=np.int64)
    last = np.flatnonzero((digits & _MORE) == 0)
    if digits.min() < 0 or digits.max() >= 64 or not last.size or last[-1] != digits.size - 1:
        return None
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > _MAX_CHARACTERS:
        return None
    place = np.arange(digits.size) - np.repeat(first, lengths)
    numbers = np.add.reduceat((digits & 0x1F) << (_BITS * place), first)
    numbers -= np.where(digits[last] & _SIGN, np.int64(1) << (_BITS * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    across = min(a.x1, b.x1) - max(a.x0, b.x0)
    down = min(a.y1, b.y1) - max(a.y0, b.y0)
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (a.area + b.area - shared)


def mask_to_box(mask: BoolMask) -> Box | None:
    """The tight box around an (H, W) mask, right and bottom edges exclusive; None when empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
