"""`box`: the filled box, for ablations."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rsvp import registry
from rsvp.errors import BadInput
from rsvp.segmenters import Segmenter
from rsvp.segmenters.box import BoxSegmenter
from rsvp.types import Box, Image, Point, Proposal


def filled(*boxes: Box, height: int = 6, width: int = 8) -> np.ndarray:
    image = Image(np.zeros((height, width, 3), dtype=np.uint8), "0" * 64)
    segmenter = BoxSegmenter()
    (encoding,) = segmenter.encode([image])
    found = segmenter.masks(encoding, [Proposal("", box) for box in boxes])
    assert (found.scores == 1).all()
    return found.masks


def test_it_is_a_segmenter_under_its_name() -> None:
    assert isinstance(registry.make("segmenter", "box"), Segmenter)
    with pytest.raises(BadInput, match="argument"):
        registry.make("segmenter", "box:3")


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        (Box(1, 2, 4, 5), (2, 5), (1, 4)),
        (Box(0, 0, 8, 6), (0, 6), (0, 8)),
        (Box(0.4, 0.6, 2.4, 2.6), (1, 3), (0, 2)),  # a pixel counts by its centre
        (Box(3.1, 3.1, 3.3, 3.3), (3, 4), (3, 4)),  # between centres: the pixel it is in
        (Box(7.8, 5.9, 8, 6), (5, 6), (7, 8)),
        (Box(-5, -5, 2, 2), (0, 2), (0, 2)),
    ],
)
def test_pixels(box: Box, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    expected = np.zeros((6, 8), dtype=bool)
    expected[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(filled(box)[0], expected)


def test_no_proposals_give_no_masks() -> None:
    assert filled().shape == (0, 6, 8)


def test_points_alone_are_refused() -> None:
    with pytest.raises(BadInput, match="points"):
        BoxSegmenter().masks((6, 8), [Proposal("", points=(Point(1, 1),))])


def test_it_needs_no_torch() -> None:
    assert "torch" not in vars(sys.modules["rsvp.segmenters.box"])
