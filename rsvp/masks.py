"""Masks and boxes: COCO run-length encodings, box of a mask, IoU, clipping, NMS; in numpy.

A run-length encoding is ``{"size": [H, W], "counts": …}``: the lengths of alternating runs of 0 and
1, starting with 0, in column-major order; `counts` is COCO's compressed text or the plain list.
pycocotools does not check its input, so a broken encoding could give a wrong mask silently;
here the runs must fill the image exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        found = str(rle["size"])[:40]
        raise BadInput(f"{where}: the mask is of size {found}, the image is {list(size)}")
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


def mask_to_box(mask: BoolMask) -> Box | None:
    """The tight box around an (H, W) mask, right and bottom edges exclusive; None when empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def box_to_mask(box: Box, size: tuple[int, int]) -> BoolMask:
    """(H, W) bool: the pixels of a box, its edges rounded to whole pixels; `size` is (H, W)."""
    mask = np.zeros(size, dtype=np.bool_)
    x0, y0, x1, y1 = (max(0, round(edge)) for edge in box.xyxy)
    mask[y0:y1, x0:x1] = True
    return mask


def clip_mask(mask: BoolMask, box: Box) -> BoolMask:
    """The pixels of an (H, W) mask inside a box, as a new mask."""
    return mask & box_to_mask(box, mask.shape)


def touched_cells(mask: BoolMask, rows: int, columns: int) -> BoolMask:
    """(rows, columns) bool: the cells of an even grid in which an (H, W) mask has a pixel."""
    cells = np.zeros((rows, columns), dtype=np.bool_)
    y, x = np.nonzero(mask)
    cells[y * rows // mask.shape[0], x * columns // mask.shape[1]] = True
    return cells


def mask_iou(a: BoolMask, b: BoolMask) -> float:
    """Intersection over union of two masks of one shape, 0 to 1; 0 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def mask_iou_matrix(first: BoolMask, second: BoolMask) -> NDArray[np.float32]:
    """(n, m) intersection over union of masks (n, H, W) and (m, H, W); 0 where both are empty."""
    pixels = first.shape[1] * first.shape[2]
    a, b = (masks.reshape(len(masks), pixels).astype(np.float32) for masks in (first, second))
    intersection = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - intersection
    found: NDArray[np.float32] = intersection / np.maximum(union, 1)
    return found


def clip_box(xyxy: Sequence[float], bounds: Box) -> Box | None:
    """The part of a box inside `bounds`; None when nothing is left.

    Args:
        xyxy: four numbers that need not be a valid `Box`; not NaN.
    """
    x0, x1 = (min(max(x, bounds.x0), bounds.x1) for x in xyxy[0::2])
    y0, y1 = (min(max(y, bounds.y0), bounds.y1) for y in xyxy[1::2])
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    overlap = clip_box(a.xyxy, b)
    return overlap.area / (a.area + b.area - overlap.area) if overlap else 0.0


def box_iou_matrix(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(n, m) intersection over union of xyxy boxes (n, 4) and (m, 4); 0 where both are empty."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (np.clip(c[:, 2:] - c[:, :2], 0, None).prod(axis=1) for c in (a, b))
    union = area_a[:, None] + area_b[None, :] - intersection
    found: NDArray[np.float64] = intersection / np.where(union > 0, union, 1)
    return found


def nms(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    iou: float,
    *,
    groups: Sequence[str] | None = None,
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression of boxes.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); of equal scores the earlier box comes first.
        iou: a box whose IoU with a better one is above this is dropped.
        groups: n names; only boxes of one group suppress each other. None: all do.

    Returns:
        The rows that stay, best score first.
    """
    suppresses = box_iou_matrix(boxes, boxes) > iou
    if groups is not None:
        _, numbers = np.unique(np.asarray(list(groups), dtype=object), return_inverse=True)
        suppresses &= numbers[:, None] == numbers[None, :]
    dropped = np.zeros(len(boxes), dtype=np.bool_)
    rows = []
    for row in np.argsort(-scores, kind="stable"):
        if not dropped[row]:
            rows.append(row)
            dropped |= suppresses[row]
    return np.array(rows, dtype=np.intp)
