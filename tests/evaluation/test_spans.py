"""Spans against the plain arrays that they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsvp.evaluation.metrics import spans
from rsvp.masks import encode_rle, rle_runs

SIZE = (5, 300)  # more columns than are compared at once


def of(mask):
    return spans.from_runs(rle_runs(encode_rle(mask), mask.shape, "here"))


def random_mask(seed, density):
    return np.random.default_rng(seed).random(SIZE) < density


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.lists(st.sampled_from([0.0, 0.02, 0.5, 1.0]), max_size=3))
def test_union_area_and_shared_equal_the_arrays(seed, densities):
    masks = [random_mask(seed + i, density) for i, density in enumerate(densities)]
    expected = np.logical_or.reduce([np.zeros(SIZE, dtype=np.bool_), *masks])
    found = spans.union([of(mask) for mask in masks])
    truth = random_mask(seed + 9, 0.4)
    assert spans.area(found) == expected.sum()
    assert spans.shared(found, truth) == (expected & truth).sum()
    assert (found[:, 0] < found[:, 1]).all()
    assert (found[1:, 0] > found[:-1, 1]).all()  # touching spans are one


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([10], []),
        ([0, 10], [[0, 10]]),
        ([2, 3, 0, 4, 1], [[2, 9]]),  # a run of no zeros between: COCO allows it
        ([2, 0, 8], []),
        ([9, 1], [[9, 10]]),
    ],
)
def test_runs_start_with_zeros(runs, expected):
    assert spans.from_runs(np.array(runs)).tolist() == expected


def test_one_pixel_in_the_last_corner_is_found():
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[-1, -1] = True
    assert spans.shared(of(mask), mask) == 1
    assert spans.shared(of(mask), ~mask) == 0


def test_a_prediction_as_the_mask_of_a_real_size_is_counted_in_its_box_only():
    mask = np.zeros((1200, 900), dtype=np.bool_)
    mask[300:700, 200:777] = True
    shifted = np.roll(mask, 13, axis=0)
    assert spans.shared(of(mask), shifted) == (mask & shifted).sum()
