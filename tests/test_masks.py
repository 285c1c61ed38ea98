"""COCO run-length encodings against pycocotools and broken ones; IoU, NMS, clipping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from rsvp.errors import BadInput
from rsvp.masks import (
    box_iou,
    box_iou_matrix,
    box_to_mask,
    clip_box,
    clip_mask,
    decode_rle,
    encode_rle,
    mask_iou,
    mask_iou_matrix,
    mask_to_box,
    nms,
)
from rsvp.types import Box

MASK = np.zeros((4, 6), dtype=np.bool_)
MASK[1:3, 2:5] = True
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


@settings(max_examples=60, deadline=None)
@given(masks)
def test_decodes_what_pycocotools_decodes(mask):
    encoded = encode_rle(mask)
    decoded = decode_rle(encoded, mask.shape, "here")
    np.testing.assert_array_equal(decoded, coco.decode(encoded).astype(np.bool_))
    np.testing.assert_array_equal(decoded, mask)


def test_the_plain_list_of_runs_is_column_major():
    listed = {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}
    np.testing.assert_array_equal(decode_rle(listed, (4, 6), "here"), MASK)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (None, "COCO RLE with size and counts"),
        ({"size": [4, 6]}, "COCO RLE with size and counts"),
        ({**encode_rle(MASK), "size": [6, 4]}, r"\[6, 4\], the image is \[4, 6\]"),
        ({**encode_rle(MASK), "size": 24}, "the mask is of size 24"),
        ({"size": [4, 6], "counts": encode_rle(np.zeros((3, 3), np.bool_))["counts"]}, "9 pixels"),
        ({"size": [4, 6], "counts": "no RLE ÿ"}, "not COCO RLE"),
        ({"size": [4, 6], "counts": "ooo"}, "not COCO RLE"),
        ({"size": [4, 6], "counts": "oooooooooooo0"}, "not COCO RLE"),
        ({"size": [4, 6], "counts": [30, -6]}, "not COCO RLE"),
        ({"size": [4, 6], "counts": [9.5, 14.5]}, "not COCO RLE"),
        ({"size": [4, 6], "counts": 24}, "not COCO RLE"),
        ({"size": [4, 6], "counts": ""}, "0 pixels"),
    ],
)
def test_a_broken_encoding_is_named(broken, said):
    with pytest.raises(BadInput, match=rf"^scenes.json: 7/0: .*{said}"):
        decode_rle(broken, (4, 6), "scenes.json: 7/0")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_nothing_but_bad_input_escapes(counts):
    try:
        decoded = decode_rle({"size": [5, 5], "counts": counts}, (5, 5), "here")
    except BadInput:
        return
    assert decoded.shape == (5, 5)


# -- boxes and masks


def test_the_box_of_a_mask_and_back():
    assert mask_to_box(MASK) == Box(2, 1, 5, 3)
    assert mask_to_box(np.zeros((4, 6), np.bool_)) is None
    np.testing.assert_array_equal(box_to_mask(Box(2.4, 0.6, 5.4, 2.6), (4, 6)), MASK)
    assert box_to_mask(Box(-5, -5, 99, 99), (4, 6)).all()
    np.testing.assert_array_equal(clip_mask(MASK, Box(0, 0, 3, 4)), MASK & (np.arange(6) < 3))


@pytest.mark.parametrize(
    ("xyxy", "inside"),
    [
        ((-3.0, 2.0, 5.0, 99.0), Box(0, 2, 5, 10)),
        ((20.0, 2.0, 30.0, 4.0), None),
        ((5.0, 2.0, 5.0, 4.0), None),
        ((6.0, 2.0, 5.0, 4.0), None),
    ],
)
def test_a_box_is_clipped_to_another(xyxy, inside):
    assert clip_box(xyxy, Box(0, 0, 10, 10)) == inside


def test_iou_of_masks():
    a, b = MASK, np.roll(MASK, 1, axis=1)  # 6 pixels each, 4 in common
    empty = np.zeros_like(MASK)
    assert mask_iou(a, b) == 0.5
    assert mask_iou(empty, empty) == 0.0
    found = mask_iou_matrix(np.stack([a, b, empty]), np.stack([a, empty]))
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0], [0, 0]])
    assert mask_iou_matrix(np.zeros((0, 4, 6), np.bool_), a[None]).shape == (0, 1)


BOXES = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [0, 0, 4, 4], [8, 8, 9, 9], [5, 5, 5, 5]], np.float32)


def test_the_matrix_of_box_ious_agrees_with_the_single_ones():
    found = box_iou_matrix(BOXES, BOXES)
    valid = [Box(*map(float, box)) for box in BOXES[:4]]
    expected = [[box_iou(a, b) for b in valid] for a in valid]
    np.testing.assert_allclose(found[:4, :4], expected)
    assert found[0, 1] == pytest.approx(1 / 3)
    assert not found[4].any()  # an empty box overlaps nothing, not even itself


def test_nms_drops_the_worse_of_two_boxes_and_of_equals_the_later():
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.2], np.float32)
    assert nms(BOXES, scores, 0.4).tolist() == [1, 0, 4, 3]
    assert nms(BOXES, scores, 0.3).tolist() == [1, 4, 3]
    assert nms(BOXES, scores, 0.3, groups="abcab").tolist() == [1, 0, 2, 4, 3]
    assert nms(BOXES[:0], scores[:0], 0.3).tolist() == []
