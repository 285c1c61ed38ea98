"""Drawings keep the image's size and most of its pixels, and text stays inside it."""

import time

import numpy as np
import pytest

from rsvp.drawing import PALETTE, colour_of, grid_prompt, overlay
from rsvp.drawing.contrast import ENOUGH, contrast, inks
from rsvp.drawing.tags import font_of, place_tag
from rsvp.drawing.targets import _tag_texts
from rsvp.errors import BadInput
from rsvp.types import Box, PackedMask, Target


def flat(height, width, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def target(box, size, label="cup", score=0.9):
    mask = np.zeros(size, dtype=bool)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return Target(label, Box(*box), score, PackedMask.pack(mask))


def changed(before, after):
    return (before != after).any(axis=-1)


# -- grid_prompt


@pytest.mark.parametrize("size", [(240, 240), (90, 300), (700, 400)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_grid_keeps_the_size_the_input_and_most_pixels(size, value):
    rgb = flat(*size, value)
    drawn = grid_prompt(rgb, (9, 9))
    assert drawn.shape == rgb.shape
    assert drawn.dtype == np.uint8
    assert (rgb == value).all()
    assert 0.02 < changed(rgb, drawn).mean() < 0.35


def test_lines_are_at_the_borders_of_the_bands():
    rgb = flat(300, 600)
    drawn = changed(rgb, grid_prompt(rgb, (3, 4)))
    rows = np.flatnonzero(drawn.mean(axis=1) > 0.9)
    columns = np.flatnonzero(drawn.mean(axis=0) > 0.9)
    assert rows.tolist() == [99, 100, 199, 200]
    assert columns.tolist() == [149, 150, 299, 300, 449, 450]


def test_lines_are_translucent():
    for value in (0, 255):
        line = grid_prompt(flat(300, 600, value), (3, 4))[99:101, 320]
        assert 30 < np.abs(line.astype(int) - value).max() < 180


@pytest.mark.parametrize("value", [0, 90, 128, 200, 255])
def test_numbers_contrast_with_any_background(value):
    rgb = flat(450, 450, value)
    drawn = grid_prompt(rgb, (9, 9)).astype(int)
    for margin in (drawn[55:95, 2:30], drawn[2:30, 55:95]):
        assert np.ptp(margin.sum(axis=-1)) > 300  # bright digits, dark outline


def test_every_band_has_a_number_at_the_margins_only():
    rgb = flat(400, 400)
    drawn = changed(rgb, grid_prompt(rgb, (8, 8)))
    for band in range(8):
        inner = slice(band * 50 + 3, band * 50 + 47)
        assert drawn[inner, 2:40].any(), f"row {band + 1} has no number"
        assert drawn[2:40, inner].any(), f"column {band + 1} has no number"
    assert not drawn[60:95, 60:95].any()


def test_a_grid_of_one_band_and_one_with_more_bands_than_pixels():
    assert grid_prompt(flat(40, 40), (1, 1)).shape == (40, 40, 3)
    assert grid_prompt(flat(5, 3), (9, 9)).shape == (5, 3, 3)
    assert grid_prompt(flat(1, 1), (50, 50)).shape == (1, 1, 3)


@pytest.mark.benchmarks
def test_the_grid_is_fast_enough_to_draw_on_every_training_image():
    rgb = flat(240, 240)
    grid_prompt(rgb, (9, 9))
    times = []
    for _ in range(30):
        start = time.perf_counter()
        grid_prompt(rgb, (9, 9))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.003


# -- overlay


def test_a_mask_is_tinted_and_the_rest_is_unchanged():
    rgb = flat(400, 600)
    drawn = overlay(rgb, [target((200, 150, 400, 300), (400, 600))])
    inside = drawn[225, 300].astype(int)
    assert 0 < np.abs(inside - 128).max() < 100
    assert np.argmax(inside) == np.argmax(PALETTE[0])
    assert (rgb == 128).all()
    outside = changed(rgb, drawn)
    outside[120:305, 195:405] = False
    assert not outside.any()


def test_the_contour_is_solid():
    drawn = overlay(flat(400, 600), [target((200, 150, 400, 300), (400, 600))])
    np.testing.assert_allclose(drawn[250, 200], PALETTE[0], atol=1)
    np.testing.assert_allclose(drawn[299, 300], PALETTE[0], atol=1)


def test_the_box_is_drawn_where_the_mask_is_not():
    one = Target("x", Box(50, 50, 350, 250), 0.5, PackedMask.pack(np.zeros((300, 400), bool)))
    drawn = changed(flat(300, 400), overlay(flat(300, 400), [one]))
    assert drawn[150, 50]
    assert drawn[249, 200]
    assert not drawn[150, 200]


@pytest.mark.parametrize("under", PALETTE[:3], ids=str)
def test_a_colour_stands_out_from_what_lies_under_it(under):
    rgb = np.full((120, 160, 3), under, dtype=np.uint8)
    (ink,) = inks(rgb, [target((40, 30, 120, 90), (120, 160)).mask])
    assert contrast(ink.colour, [under]) >= ENOUGH
    assert ink.outline is None
    line = overlay(rgb, [target((40, 30, 120, 90), (120, 160))])[60, 40]
    assert contrast(tuple(line.tolist()), [under]) >= ENOUGH


def test_a_target_keeps_its_own_colour_where_that_stands_out_and_none_comes_twice():
    masks = [target((9 * k, 5, 9 * k + 6, 40), (60, 90)).mask for k in range(9)]
    assert [ink.colour for ink in inks(flat(60, 90), masks)] == [colour_of(k) for k in range(9)]
    red = np.full((60, 90, 3), PALETTE[0], dtype=np.uint8)
    colours = [ink.colour for ink in inks(red, masks)]
    assert PALETTE[0] not in colours[:7]
    assert len(set(colours[:7])) == 7


def test_where_every_colour_lies_under_it_there_is_an_outline():
    stripes = np.array(PALETTE, dtype=np.uint8)[np.arange(160) // 2 % len(PALETTE)]
    rgb = np.repeat(stripes[None], 120, axis=0)
    one = target((40, 30, 120, 90), (120, 160))
    (ink,) = inks(rgb, [one.mask])
    assert ink.outline is not None
    drawn = overlay(rgb, [one])
    assert (drawn[60, 38:40] == ink.outline).all()  # two pixels outside of the contour


def test_several_targets_are_numbered_as_their_masks():
    boxes = [(50, 100, 80, 130), (150, 200, 190, 240)]
    two = [target(box, (300, 400)) for box in boxes]
    where = (font_of(10), 2, (300, 400))
    assert _tag_texts(two, 0, *where) == ["0  cup  0.90", "1  cup  0.90"]
    assert _tag_texts(two[:1], 0, *where) == ["cup  0.90"]
    assert _tag_texts(two[:1], 1, *where) == ["1  cup  0.90"]


def test_targets_have_different_colours():
    colours = [colour_of(i) for i in range(30)]
    assert len(set(colours)) == 30
    assert all(0 <= channel <= 255 for colour in colours for channel in colour)


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (64, 64), (200, 8)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_small_images(size, count):
    rgb = flat(*size)
    targets = [target((0, 0, size[1], size[0]), size, "a long label") for _ in range(count)]
    drawn = overlay(rgb, targets)
    assert drawn.shape == rgb.shape


def test_boxes_at_and_beyond_the_edges():
    rgb = flat(100, 100)
    boxes = [(0, 0, 100, 100), (99.5, 99.5, 100, 100), (0, 99, 0.2, 100), (40, 40, 40.1, 40.1)]
    for box in boxes:
        one = Target("cup", Box(*box), 0.9, PackedMask.pack(np.zeros((100, 100), bool)))
        assert overlay(rgb, [one]).shape == rgb.shape


def test_many_tags_leave_a_small_image_visible():
    size, nothing = (64, 64), np.zeros((64, 64), dtype=bool)
    boxes = [Box(x, y, x + 3, y + 3) for x in (5, 25, 45) for y in (5, 25, 45)]
    many = [Target("a long label", box, 0.9, PackedMask.pack(nothing)) for box in boxes]
    assert changed(flat(*size), overlay(flat(*size), many)).mean() < 0.4


def hundreds_of_targets(size):
    corners = [(x, y) for x in range(0, 600, 30) for y in range(0, 600, 30)]
    return [target((x, y, x + 9, y + 9), size) for x, y in corners]


def test_hundreds_of_targets():
    size = (600, 600)
    drawn = overlay(flat(*size), hundreds_of_targets(size))
    assert changed(flat(*size), drawn).mean() < 0.6


@pytest.mark.benchmarks
def test_hundreds_of_targets_are_drawn_quickly():
    size = (600, 600)
    targets = hundreds_of_targets(size)
    start = time.perf_counter()
    overlay(flat(*size), targets)
    assert time.perf_counter() - start < 4


@pytest.mark.parametrize(
    "label", ["", "杯子", "tasse à café", "a\nb\tc\x00", "x" * 5000, "😀", "🇫🇷\ufe0f"]
)
def test_any_label(label):
    rgb = flat(200, 300)
    assert changed(rgb, overlay(rgb, [target((50, 100, 80, 130), (200, 300), label)])).any()


def test_accents_are_dropped_and_other_scripts_are_no_boxes():
    def drawn(label):
        return overlay(flat(200, 300), [target((50, 100, 80, 130), (200, 300), label)])

    np.testing.assert_array_equal(drawn("tasse à café"), drawn("tasse a cafe"))
    np.testing.assert_array_equal(drawn("杯子"), drawn("target"))


def test_without_targets_only_a_notice_is_drawn():
    rgb = flat(300, 400)
    where = changed(rgb, overlay(rgb, ()))
    assert 0 < where.mean() < 0.05
    assert not where[:250].any()
    assert where[-1, 0]


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(BadInput, match="mask"):
        overlay(flat(10, 20), [target((0, 0, 5, 5), (20, 10))])


# -- positions of tags


def overlap(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def test_a_tag_is_above_its_box_or_below_or_inside():
    size, image = (60, 20), (300, 400)
    assert place_tag(size, Box(100, 100, 200, 200), image, []) == (100, 80, 160, 100)
    assert place_tag(size, Box(100, 5, 200, 200), image, []) == (100, 200, 160, 220)
    assert place_tag(size, Box(100, 5, 200, 290), image, []) == (100, 5, 160, 25)


def test_tags_stay_inside_the_image_and_do_not_overlap_while_positions_are_free():
    random = np.random.default_rng(0)
    size, (height, width) = (60, 20), (400, 500)
    placed = []
    for _ in range(40):
        x, y = random.uniform(0, 400), random.uniform(0, 300)
        box = Box(x, y, x + random.uniform(5, 100), y + random.uniform(5, 100))
        tag = place_tag(size, box, (height, width), placed)
        assert 0 <= tag[0] < tag[2] <= width
        assert 0 <= tag[1] < tag[3] <= height
        assert not any(overlap(tag, other) for other in placed)
        placed.append(tag)


def test_without_a_free_position_the_tag_covers_least():
    placed = [(0, 0, 100, 20), (0, 20, 100, 40)]
    tag = place_tag((100, 20), Box(0, 0, 100, 50), (50, 100), placed)
    assert sum(overlap(tag, other) for other in placed) == 1000
