"""COCO run-length encodings, against pycocotools and against broken ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from rsvp.datasets import rle
from rsvp.errors import BadInput

MASK = np.zeros((4, 6), dtype=np.bool_)
MASK[1:3, 2:5] = True
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


@settings(max_examples=60, deadline=None)
@given(masks)
def test_decodes_what_pycocotools_decodes(mask):
    encoded = rle.encode(mask)
    decoded = rle.decode(encoded, mask.shape, "here")
    np.testing.assert_array_equal(decoded, coco.decode(encoded).astype(np.bool_))
    np.testing.assert_array_equal(decoded, mask)


def test_the_plain_list_of_runs_is_column_major():
    listed = {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}
    np.testing.assert_array_equal(rle.decode(listed, (4, 6), "here"), MASK)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (None, "COCO RLE with size and counts"),
        ({"size": [4, 6]}, "COCO RLE with size and counts"),
        ({**rle.encode(MASK), "size": [6, 4]}, r"\[6, 4\], the image is \[4, 6\]"),
        ({**rle.encode(MASK), "size": 24}, "the mask is of size 24"),
        ({"size": [4, 6], "counts": rle.encode(np.zeros((3, 3), np.bool_))["counts"]}, "9 pixels"),
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
        rle.decode(broken, (4, 6), "scenes.json: 7/0")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_nothing_but_bad_input_escapes(counts):
    try:
        decoded = rle.decode({"size": [5, 5], "counts": counts}, (5, 5), "here")
    except BadInput:
        return
    assert decoded.shape == (5, 5)
