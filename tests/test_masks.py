"""COCO run-length encodings, against pycocotools and against broken ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from rsvp.errors import BadInput
from rsvp.masks import decode_rle, encode_rle

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
