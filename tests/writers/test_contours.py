"""Contours, filled as readers of polygon formats do, give the mask back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from rsvp.writers.contours import find_contours, find_outlines, join_contours


def filled(parts, shape) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [part.astype(np.int32) for part in parts], 1)
    return canvas.astype(bool)


def ring() -> np.ndarray:
    mask = np.zeros((12, 15), np.bool_)
    mask[1:9, 2:12] = True
    mask[3:6, 4:8] = False
    return mask


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[2:5, 3:8] = True
    (found,) = find_contours(mask)
    assert sorted(map(tuple, found.tolist())) == [(3, 2), (3, 4), (7, 2), (7, 4)]


def test_a_hole_has_its_own_contour() -> None:
    outer, hole = find_contours(ring())
    assert outer[:, 0].max() == 11
    assert hole[:, 0].max() == 8  # through the pixels around it
    np.testing.assert_array_equal(filled([outer, hole], (12, 15)), ring())


def test_an_empty_mask_has_no_contour() -> None:
    assert find_contours(np.zeros((4, 5), np.bool_)) == []


@pytest.mark.parametrize("points", [[(2, 3)], [(2, 3), (2, 4)], [(2, 3), (3, 4)], [(0, 0), (9, 9)]])
def test_single_pixels_and_lines(points) -> None:
    mask = np.zeros((10, 10), np.bool_)
    for point in points:
        mask[point] = True
    found = find_contours(mask)
    assert len(found) == (2 if (9, 9) in points else 1)  # what touches at a corner is one
    np.testing.assert_array_equal(filled(found, mask.shape), mask)


@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_any_mask_comes_back(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    np.testing.assert_array_equal(filled(find_contours(mask), mask.shape), mask)


@given(st.integers(0, 2**32 - 1))
def test_a_joined_polygon_adds_only_lines_between_the_parts(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = cv2.resize(random.random((5, 5)), (60, 50), interpolation=cv2.INTER_CUBIC) > 0.5
    parts = find_contours(mask)
    if not parts:
        return
    whole = filled([join_contours(parts)], mask.shape)
    assert (whole | ~mask).all()  # nothing is lost
    assert (whole & ~mask).sum() <= 60 * (len(parts) - 1)  # a line each at most


def rasterised(polygons, shape) -> np.ndarray:
    """The union of polygons as pycocotools fills them."""
    flat = [polygon.reshape(-1).tolist() for polygon in polygons]
    return coco.decode(coco.merge(coco.frPyObjects(flat, *shape))).astype(bool)


def test_outlines_lie_on_the_edges_of_pixels() -> None:
    ((outer, hole),) = find_outlines(ring())
    assert sorted(map(tuple, outer.tolist())) == [(2, 1), (2, 9), (12, 1), (12, 9)]
    assert sorted(map(tuple, hole.tolist())) == [(4, 3), (4, 6), (8, 3), (8, 6)]


@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_outlines_joined_by_part_give_the_mask_to_pycocotools(
    height: int, width: int, share: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    parts = find_outlines(mask)
    count, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert len(parts) == count - 1
    if parts:
        joined = [join_contours(part) for part in parts]
        np.testing.assert_array_equal(rasterised(joined, mask.shape), mask)
