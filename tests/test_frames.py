"""Worked numbers for every frame, then the properties that hold for any."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsvp.errors import BadInput
from rsvp.frames import (
    Frame,
    as_written,
    bands_to_box,
    box_to_bands,
    from_box,
    pad_box,
    smart_resize,
    to_box,
    to_point,
)
from rsvp.masks import box_iou, mask_to_box
from rsvp.types import Box

KINDS = ("pixels", "resized-pixels", "0-1000", "0-1000-yxyx", "0-1024-yxyx", "0-1", "percent")

# An image 1000 wide and 600 high, sent at half its size: a view of 500 x 300.
IMAGE, VIEW = (600, 1000), (300, 500)


def close(box, *xyxy):
    assert box.xyxy == pytest.approx(xyxy)


# -- frames


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_found_by_its_name(kind):
    assert Frame.parse(f" {kind.upper()} ").kind == kind


@pytest.mark.parametrize("name", ["", "0-999", "yxyx", "pixel"])
def test_an_unknown_frame_is_named_with_the_known_ones(name):
    with pytest.raises(BadInput, match="0-1000-yxyx") as caught:
        Frame.parse(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("bounds", [{"patch": 0}, {"min_pixels": 9, "max_pixels": 8}])
def test_a_frame_refuses_bounds_that_contradict(bounds):
    with pytest.raises(BadInput, match="a frame needs"):
        Frame("resized-pixels", **bounds)


# The same box of the image, (200, 150)-(600, 450), as each family of models writes it.
# smart_resize of the 300 x 500 view: 300/28 = 10.7 -> 308 high, 500/28 = 17.9 -> 504 wide.
WRITTEN = {
    "pixels": (100, 75, 300, 225),
    "resized-pixels": (100.8, 77, 302.4, 231),
    "0-1000": (200, 250, 600, 750),
    "0-1000-yxyx": (250, 200, 750, 600),
    "0-1024-yxyx": (256, 204.8, 768, 614.4),
    "0-1": (0.2, 0.25, 0.6, 0.75),
    "percent": (20, 25, 60, 75),
}


@pytest.mark.parametrize(("kind", "numbers"), WRITTEN.items())
def test_worked_numbers_on_a_resized_non_square_image(kind, numbers):
    frame = Frame(kind)
    close(to_box(numbers, frame, view_size=VIEW, image_size=IMAGE), 200, 150, 600, 450)
    back = from_box(Box(200, 150, 600, 450), frame, view_size=VIEW, image_size=IMAGE)
    assert back == pytest.approx(numbers)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("pixels", (10, 20, 40, 60)),
        ("resized-pixels", (11.2, 22.4, 44.8, 67.2)),  # 100 x 50 becomes 112 x 56
        ("0-1000", (200, 200, 800, 600)),
        ("0-1000-yxyx", (200, 200, 600, 800)),
        ("0-1", (0.2, 0.2, 0.8, 0.6)),
        ("percent", (20, 20, 80, 60)),
    ],
)
def test_worked_numbers_on_a_tall_image_sent_as_it_is(kind, numbers):
    size = (100, 50)
    close(to_box(numbers, Frame(kind), view_size=size, image_size=size), 10, 20, 40, 60)


def test_resized_pixels_follow_the_models_own_bounds():
    # 32 px patches (Qwen3-VL) and at most 65,536 px: 300 x 500 shrinks to 192 x 320.
    frame = Frame("resized-pixels", patch=32, max_pixels=65536)
    assert smart_resize(*VIEW, patch=32, max_pixels=65536) == (192, 320)
    numbers = (64, 48, 192, 144)
    close(to_box(numbers, frame, view_size=VIEW, image_size=IMAGE), 200, 150, 600, 450)


def test_the_view_only_matters_to_frames_in_pixels():
    for kind in ("0-1000", "0-1000-yxyx", "0-1", "percent"):
        numbers = WRITTEN[kind]
        close(to_box(numbers, Frame(kind), view_size=(7, 9), image_size=IMAGE), 200, 150, 600, 450)


@pytest.mark.parametrize("order", [(2, 3, 0, 1), (2, 1, 0, 3), (0, 3, 2, 1)])
def test_swapped_corners_are_mended(order):
    for kind, numbers in WRITTEN.items():
        swapped = [numbers[i] for i in order]
        box = to_box(swapped, Frame(kind), view_size=VIEW, image_size=IMAGE)
        close(box, 200, 150, 600, 450)


def test_a_box_is_cut_at_the_images_edge():
    box = to_box((-50, 900, 100, 1050), Frame("0-1000"), view_size=VIEW, image_size=IMAGE)
    close(box, 0, 540, 100, 600)


@pytest.mark.parametrize(
    ("kind", "numbers", "x", "y"),
    [
        ("0-1000", (900, 300, 1300, 700), 1000, 1000),  # was clipped to (900, 300, 1000, 700)
        ("0-1000", (900, 300, 1000, 1051), 1000, 1000),
        ("0-1000", (-51, 300, 1000, 700), 1000, 1000),
        ("0-1000-yxyx", (300, 900, 700, 1300), 1000, 1000),
        ("pixels", (100, 75, 600, 225), 500, 300),
        ("resized-pixels", (100, 75, 300, 425), 504, 308),
        ("percent", (0, 0, 106, 50), 100, 100),
        ("0-1", (0.1, 0.1, 1.1, 0.5), 1, 1),
        ("0-1", (-1e308, -1e308, 1e308, 1e308), 1, 1),
    ],
)
def test_numbers_beyond_the_range_are_refused_and_the_range_is_named(kind, numbers, x, y):
    with pytest.raises(BadInput, match=rf"x goes from 0 to {x}, y from 0 to {y}$"):
        to_box(numbers, Frame(kind), view_size=VIEW, image_size=IMAGE)


def test_fractions_of_1_are_known_in_every_frame():
    for kind in KINDS:
        frame = Frame(kind, box_key="bbox_2d")
        first, second = (0.2, 0.25, 0.6, 0.75), (0, 0, 1, 1)
        if frame.y_first:
            first = (0.25, 0.2, 0.75, 0.6)
        written = as_written([first, second], frame)
        assert (written != frame) == (kind != "0-1")
        box = to_box(first, written, view_size=VIEW, image_size=IMAGE)
        close(box, 200, 150, 600, 450)
        close(to_box(second, written, view_size=VIEW, image_size=IMAGE), 0, 0, 1000, 600)


@pytest.mark.parametrize("groups", [[], [(0, 0, 1, 1)], [(5, 6, 7, 8)], [(0.5, 3)], [(120.5, 0)]])
def test_other_numbers_are_no_fractions(groups):
    frame = Frame("0-1000")
    assert as_written(groups, frame) == frame


def test_numbers_of_two_frames_are_refused():
    with pytest.raises(BadInput, match=r"\(0.1, 0.2, 0.3, 0.4\) is in fractions.*\(100, 200, 30"):
        as_written([(0.1, 0.2, 0.3, 0.4), (100, 200, 300, 400)], Frame("0-1000"))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1001, 0, 1040, 500), "no area"),
        ((-20, 0, 0, 500), "no area"),
        ((300, 300, 300, 700), "no area"),
        ((300, 300, 300, 300), "no area"),
        ((math.nan, 0, 1, 1), "finite"),
        ((0, 0, math.inf, 1), "finite"),
        ((0, 0, 10**400, 1), "finite"),
        ((1, 2, 3), "4 finite numbers"),
        ((1, 2, 3, 4, 5), "4 finite numbers"),
        ((), "4 finite numbers"),
        (tuple(range(10_000)), "4 finite numbers"),
    ],
)
def test_an_unusable_box_is_named(numbers, words):
    with pytest.raises(BadInput, match=words) as caught:
        to_box(numbers, Frame("0-1000"), view_size=VIEW, image_size=IMAGE)
    message = str(caught.value)
    assert len(message) < 200
    assert all(f"{n:g}" in message for n in numbers[:6] if n < 1e300)


def test_points():
    expected = {"0-1000": (200, 250), "0-1000-yxyx": (250, 200), "percent": (20, 25)}
    for kind, numbers in expected.items():
        point = to_point(numbers, Frame(kind), view_size=VIEW, image_size=IMAGE)
        assert (point.x, point.y, point.positive) == (200, 150, True)
    half = to_point((100, 75), Frame("pixels"), view_size=VIEW, image_size=IMAGE)
    assert (half.x, half.y) == (200, 150)
    corner = to_point((100, 100), Frame("percent"), view_size=VIEW, image_size=IMAGE)
    assert (corner.x, corner.y) == (999.5, 599.5)


@pytest.mark.parametrize("numbers", [(101, 5), (-1, 5), (5, 101), (math.nan, 1), (1, 2, 3)])
def test_an_unusable_point_is_named(numbers):
    with pytest.raises(BadInput, match="point"):
        to_point(numbers, Frame("percent"), view_size=VIEW, image_size=IMAGE)


@given(
    kind=st.sampled_from(KINDS),
    image=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    view=st.tuples(st.integers(30, 2000), st.integers(30, 2000)),
    parts=st.tuples(*[st.integers(0, 64)] * 4),
)
def test_there_and_back(kind, image, view, parts):
    x0, x1 = sorted((parts[0] / 65, (parts[1] + 1) / 65))
    y0, y1 = sorted((parts[2] / 65, (parts[3] + 1) / 65))
    if x0 == x1 or y0 == y1:
        return
    box = Box(x0 * image[1], y0 * image[0], x1 * image[1], y1 * image[0])
    sizes = {"view_size": view, "image_size": image}
    again = to_box(from_box(box, Frame(kind), **sizes), Frame(kind), **sizes)
    assert again.xyxy == pytest.approx(box.xyxy, rel=1e-9, abs=1e-6)


# -- smart_resize


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), (224, 224)),
        ((300, 500), (308, 504)),
        ((10, 10), (56, 56)),  # grows to min_pixels
        ((8000, 6000), (4116, 3080)),  # shrinks to max_pixels
    ],
)
def test_smart_resize_worked(size, expected):
    assert smart_resize(*size) == expected


def test_smart_resize_equals_the_models_own():
    theirs = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(0, 9, (2000, 2))).astype(int) + 1
    for height, width in sides.tolist():
        for patch, low, high in ((28, 3136, 12845056), (32, 65536, 16777216), (28, 3136, 50176)):
            options = {"min_pixels": low, "max_pixels": high}
            try:
                expected = theirs.smart_resize(height, width, factor=patch, **options)
            except ValueError:
                with pytest.raises(BadInput, match="narrow"):
                    smart_resize(height, width, patch=patch, **options)
            else:
                assert smart_resize(height, width, patch=patch, **options) == expected


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (1, 201)])
def test_smart_resize_refuses(size):
    with pytest.raises(BadInput, match="x"):
        smart_resize(*size)


# -- boxes and bands


def test_padding_grows_each_side_by_a_part_of_the_box_and_stops_at_the_edge():
    close(pad_box(Box(100, 100, 200, 300), 0.2, IMAGE), 80, 60, 220, 340)
    close(pad_box(Box(0, 0, 990, 590), 0.2, IMAGE), 0, 0, 1000, 600)
    close(pad_box(Box(1, 2, 3, 4), 0, IMAGE), 1, 2, 3, 4)


@pytest.mark.parametrize("fraction", [-0.1, math.nan, math.inf])
def test_padding_is_a_fraction(fraction):
    with pytest.raises(BadInput, match="padding"):
        pad_box(Box(0, 0, 1, 1), fraction, IMAGE)


def test_padding_cannot_bring_a_box_back():
    with pytest.raises(BadInput, match="outside"):
        pad_box(Box(2000, 0, 2001, 1), 0.2, IMAGE)


def test_bands_to_box():
    grid = (6, 10)  # bands 100 px high and 100 px wide
    close(bands_to_box([2, 3], [4], grid=grid, image_size=IMAGE), 300, 100, 400, 300)
    close(bands_to_box([3, 2], [6, 4], grid=grid, image_size=IMAGE), 300, 100, 600, 300)
    padded = bands_to_box([2, 3], [4], grid=grid, image_size=IMAGE, padding=0.2)
    close(padded, 280, 60, 420, 340)
    close(bands_to_box([1, 9], [1, 9], grid=(9, 9), image_size=(64, 31)), 0, 0, 31, 64)


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([], [1], "no row"),
        ([1], [], "no column"),
        ([0], [1], "rows are numbered 1 to 9"),
        ([10], [1], "rows are numbered 1 to 9"),
        ([1], [3, -1], "columns are numbered 1 to 5"),
        ([1], [6], r"found \[6\]"),
    ],
)
def test_bands_outside_the_grid_are_named(rows, columns, words):
    with pytest.raises(BadInput, match=words):
        bands_to_box(rows, columns, grid=(9, 5), image_size=IMAGE)


def test_box_to_bands_counts_what_is_covered_in_earnest():
    grid = (6, 10)
    whole = box_to_bands(Box(300, 100, 600, 300), grid=grid, image_size=IMAGE)
    assert whole == ((2, 3), (4, 5, 6))
    grazed = box_to_bands(Box(295, 92, 605, 308), grid=grid, image_size=IMAGE)
    assert grazed == ((2, 3), (4, 5, 6))
    real = box_to_bands(Box(285, 85, 615, 315), grid=grid, image_size=IMAGE)
    assert real == ((1, 2, 3, 4), (3, 4, 5, 6, 7))


def test_a_tiny_box_still_has_a_band():
    assert box_to_bands(Box(301, 1, 302, 2), grid=(6, 10), image_size=IMAGE) == ((1,), (4,))
    astride = box_to_bands(Box(296, 596, 305, 600), grid=(6, 10), image_size=IMAGE)
    assert astride == ((6,), (4,))


@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    image=st.tuples(st.integers(12, 4000), st.integers(12, 4000)),
    data=st.data(),
)
def test_bands_there_and_back(grid, image, data):
    rows = sorted(data.draw(st.tuples(*[st.integers(1, grid[0])] * 2)))
    columns = sorted(data.draw(st.tuples(*[st.integers(1, grid[1])] * 2)))
    box = bands_to_box(rows, columns, grid=grid, image_size=image)
    named = (
        tuple(range(rows[0], rows[1] + 1)),
        tuple(range(columns[0], columns[1] + 1)),
    )
    assert box_to_bands(box, grid=grid, image_size=image) == named


def test_box_iou():
    box = Box(0, 0, 10, 10)
    assert box_iou(box, box) == 1
    assert box_iou(box, Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou(box, Box(2, 2, 4, 7)) == pytest.approx(0.1)
    assert box_iou(box, Box(10, 0, 20, 10)) == 0
    assert box_iou(box, Box(50, 50, 60, 60)) == 0


def test_mask_to_box():
    mask = np.zeros((20, 30), dtype=bool)
    assert mask_to_box(mask) is None
    mask[4, 7] = True
    close(mask_to_box(mask), 7, 4, 8, 5)
    mask[19, 29] = True
    close(mask_to_box(mask), 7, 4, 30, 20)
    close(mask_to_box(np.ones((3, 5), dtype=bool)), 0, 0, 5, 3)
