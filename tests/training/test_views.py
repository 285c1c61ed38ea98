"""From a picture to a training sample: the boxes, the texts, the truth of both, and the tensors."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import SIZE, Painted

from rsvp.embedded.pictures import ScenePictures
from rsvp.errors import BadInput
from rsvp.segmenters.sam2_weights import Preprocessing
from rsvp.segmenters.transforms import Window, margin_box
from rsvp.training.pictures import Picture, Thing
from rsvp.training.views import (
    INSIDE,
    OUTSIDE,
    STYLES,
    Ask,
    Mix,
    Views,
    asks,
    draw_box,
    held,
    make_view,
    point_asks,
    shrink,
)  # fmt: skip
from rsvp.types import Box

SCENES = ScenePictures("5,40")
WHOLE, CROPS = Preprocessing(64), Preprocessing(64, crop_margin=0.25)
SEEDS = st.integers(0, 2**32 - 1)


def thing(x0: int, y0: int, x1: int, y1: int, *texts: str, size=SIZE) -> Thing:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return Thing(texts or ("it",), mask, Box(x0, y0, x1, y1))


def size_of(picture: Picture) -> tuple[int, int]:
    return picture.rgb.shape[0], picture.rgb.shape[1]


def some_scene(index: int) -> Picture:
    if index not in _SEEN:
        _SEEN[index] = SCENES[index]
    return _SEEN[index]


_SEEN: dict[int, Picture] = {}


# ------------------------------------------------------------ boxes


@settings(max_examples=60)
@given(st.integers(0, 11), SEEDS, st.sampled_from(STYLES))
def test_every_box_lies_on_the_image_and_holds_what_it_should(index, seed, style) -> None:
    picture, rng = some_scene(index), np.random.default_rng(seed)
    height, width = size_of(picture)
    what = picture.things[seed % len(picture.things)]
    others = [other for other in picture.things if other.texts[0] != what.texts[0]]
    box = draw_box(style, what, others, (height, width), rng)
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
    if style == "clean":
        assert box.xyxy == what.box.xyxy
    elif style == "bands":
        assert held(what, box) == 1
        # No more than a band beyond each side, and a fifth of that all for padding.
        assert box.width <= (what.box.width + 2 * width / 9) * 1.4 + 1e-6
    elif style == "shared" and others:
        assert held(what, box) == 1
        assert any(held(other, box) == 1 for other in others)
    elif style == "jittered":
        for found, true, side in zip(
            box.xyxy, what.box.xyxy, (what.box.width, what.box.height) * 2, strict=True
        ):
            assert abs(found - true) <= max(side, 4.0) * 0.16 * 6


def test_jitter_goes_both_ways_and_is_as_large_as_it_says() -> None:
    what, rng = thing(20, 15, 44, 33), np.random.default_rng(0)
    drawn = [draw_box("jittered", what, [], SIZE, rng) for _ in range(3000)]
    moved = np.array([[b.x0 - 20, b.x1 - 44] for b in drawn]) / 24
    assert np.abs(moved.mean(0)).max() < 0.01
    expected = (0.7 * 0.08**2 + 0.3 * 0.16**2) ** 0.5
    assert moved.std(0) == pytest.approx([expected, expected], rel=0.07)


def test_boxes_of_slivers_at_the_border_stay_on_the_image() -> None:
    rng = np.random.default_rng(0)
    for what in (thing(0, 0, 1, 1), thing(63, 47, 64, 48), thing(0, 20, 64, 21)):
        for _ in range(200):
            box = draw_box("jittered", what, [], SIZE, rng)
            assert 0 <= box.x0 < box.x1 <= 64
            assert 0 <= box.y0 < box.y1 <= 48


def test_a_shared_box_is_around_both_and_near_things_are_preferred() -> None:
    what, near, far = thing(5, 5, 12, 12), thing(15, 5, 22, 12, "a"), thing(50, 40, 60, 46, "b")
    rng = np.random.default_rng(0)
    boxes = [draw_box("shared", what, [far, near], SIZE, rng).xyxy for _ in range(300)]
    assert set(boxes) == {(5, 5, 22, 12), (5, 5, 60, 46)}
    assert boxes.count((5, 5, 22, 12)) == pytest.approx(180, abs=30)  # 60 %


def test_held_counts_pixels() -> None:
    what = thing(10, 10, 20, 20)
    assert held(what, Box(0, 0, 64, 48)) == 1
    assert held(what, Box(10, 10, 15, 20)) == 0.5
    assert held(what, Box(30, 30, 40, 40)) == 0
    assert held(what, Box(-5, -5, 12, 11)) == pytest.approx(0.02)


# ------------------------------------------------------------ texts


@settings(max_examples=80)
@given(st.integers(0, 11), SEEDS, st.booleans(), st.booleans())
def test_what_a_text_says_is_true(index, seed, one_box, pointed) -> None:
    """A negative names nothing in its box; a positive names its thing, and that lies in the box."""
    picture, rng = some_scene(index), np.random.default_rng(seed)
    mix = Mix(proposals=6)
    if pointed:
        drawn = point_asks(picture, SCENES, mix, rng)
    else:
        drawn = asks(picture, SCENES, mix, rng, np.random.default_rng(seed + 1), one_box=one_box)
    assert len(drawn) == 6
    for ask in drawn:
        inside = [t for t in picture.things if held(t, ask.box) > OUTSIDE]
        if ask.thing is None:
            assert ask.text.strip()
            assert not any(ask.text in t.texts for t in inside)
            continue
        assert any(ask.thing is t for t in picture.things)
        if not pointed and ask.thing.box.area > 400:
            assert held(ask.thing, ask.box) > 0.1
        if ask.text:
            assert ask.text in ask.thing.texts
        else:  # then the box has to say it
            others = [t for t in inside if t is not ask.thing]
            assert all(held(other, ask.box) < INSIDE for other in others)
        if ask.text and ask.text != ask.thing.texts[0]:
            assert not any(ask.text in t.texts for t in inside if t is not ask.thing)
    if one_box and not pointed:
        assert len({ask.box for ask in drawn}) == 1


def test_with_one_box_everything_in_it_is_asked_for() -> None:
    left, right = thing(5, 5, 20, 20, "left"), thing(30, 5, 45, 20, "right")
    picture = Picture("x", np.zeros((*SIZE, 3), np.uint8), (left, right))
    mix = Mix(clean=0, near=0, jittered=0, bands=0, shared=1, wordless=0, other_names=0)
    for seed in range(20):
        rng, texts = np.random.default_rng(seed), np.random.default_rng(seed + 1)
        drawn = asks(picture, Painted(3), mix, rng, texts, one_box=True)
        assert {ask.text for ask in drawn[:2]} == {"left", "right"}
        assert {ask.box.xyxy for ask in drawn} == {(5, 5, 45, 20)}


def test_the_mix_is_what_comes_out() -> None:
    left, right = thing(2, 5, 12, 20, "left"), thing(50, 25, 62, 45, "right")
    picture = Picture("x", np.zeros((*SIZE, 3), np.uint8), (left, right))
    rng = np.random.default_rng(0)
    mix = Mix(clean=1, near=0, jittered=0, bands=0, shared=0, absent=0.5, wordless=0.2)
    drawn = [a for _ in range(300) for a in asks(picture, Painted(3), mix, rng, rng, one_box=False)]
    assert np.mean([ask.thing is None for ask in drawn]) == pytest.approx(0.5, abs=0.04)
    present = [ask for ask in drawn if ask.thing is not None]
    assert np.mean([ask.text == "" for ask in present]) == pytest.approx(0.2, abs=0.05)
    hard = [ask.text in ("left", "right") for ask in drawn if ask.thing is None]
    assert np.mean(hard) == pytest.approx(0.5, abs=0.08)  # another thing's name, of this picture
    styles = [Mix().style(rng) for _ in range(2000)]
    for style in STYLES:
        share = getattr(Mix(), style)
        assert styles.count(style) / 2000 == pytest.approx(share, abs=0.04)


def test_a_source_whose_every_text_is_in_the_box_gives_no_false_negative() -> None:
    what = thing(5, 5, 40, 40, "red", "green", "blue", "a walrus")
    picture = Picture("x", np.zeros((*SIZE, 3), np.uint8), (what,))
    rng = np.random.default_rng(0)
    drawn = asks(picture, Painted(3), Mix(absent=1.0), rng, rng, one_box=False)
    assert all(ask.thing is what for ask in drawn)


def test_points_lie_on_their_things() -> None:
    rng = np.random.default_rng(0)
    for index in range(8):
        picture = some_scene(index)
        for ask in point_asks(picture, SCENES, Mix(proposals=8, absent=0), rng):
            x, y = ask.point
            assert ask.thing.mask[int(y), int(x)]
            assert (x % 1, y % 1) == (0.5, 0.5)
            assert ask.spots == (ask.point,)


# ------------------------------------------------------------ tensors


def test_the_share_of_each_place_by_hand() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0:4, 0:6] = True
    shrunk = shrink(mask, Window.whole((8, 8)), 8)
    torch.testing.assert_close(shrunk, torch.from_numpy(mask).float())
    # Far from an edge, a place is what it covers; a window may leave the image.
    out = shrink(mask, Window(-8, -8, 8, 8), 16)
    assert not out[:8].any()
    assert not out[:, :8].any()
    torch.testing.assert_close(out[8:, 8:], torch.from_numpy(mask).float())
    full = shrink(np.ones((64, 64), dtype=bool), Window.whole((64, 64)), 16)
    torch.testing.assert_close(full, torch.ones(16, 16))
    assert shrink(mask, Window.whole((8, 8)), 2).sum() == pytest.approx(24 / 16, abs=0.3)


@pytest.mark.parametrize("preprocessing", [WHOLE, CROPS])
def test_the_target_is_the_thing_in_the_window(preprocessing) -> None:
    picture = some_scene(3)
    what = max(picture.things, key=lambda t: t.box.area)
    box = what.box
    view = make_view(picture, [Ask(box, "a", what), Ask(box, "b", None)], preprocessing)
    window = Window.whole(size_of(picture))
    if preprocessing.crop_margin is not None:
        window = margin_box(box.xyxy, preprocessing.crop_margin)
    side = view.targets.shape[-1]
    assert view.targets.shape == (2, side, side)
    assert side in (16, 32)  # a quarter of the square's, or half
    torch.testing.assert_close(view.targets[0], shrink(what.mask, window, side))
    assert view.targets[0].max() > 0.5
    assert not view.targets[1].any()
    assert view.present.tolist() == [True, False]
    assert view.texts == ("a", "b")
    assert view.pixels.shape == (3, 64, 64)
    # Back in the image, the spots are the corners of the box.
    scale = torch.tensor([window.width / 64, window.height / 64])
    corners = view.spots[0] * scale + torch.tensor([window.x0, window.y0])
    torch.testing.assert_close(corners.flatten(), torch.tensor(box.xyxy).float(), atol=1e-3, rtol=0)


def test_a_view_without_recolouring_is_what_the_segmenter_sees() -> None:
    from rsvp.segmenters.transforms import crop_to_square

    picture = some_scene(1)
    height, width = size_of(picture)
    view = make_view(picture, [Ask(picture.things[0].box, "a", None)], WHOLE)
    square, _ = crop_to_square(picture.rgb, (0, 0, width, height), 0.0, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (WHOLE.mean, WHOLE.std))
    torch.testing.assert_close(view.pixels, (square - mean) / std)
    bright = make_view(picture, [Ask(picture.things[0].box, "a", None)], WHOLE, (1.0, 0.1, 1.0))
    assert bright.pixels.mean() > view.pixels.mean()
    grey = make_view(picture, [Ask(picture.things[0].box, "a", None)], WHOLE, (1.0, 0.0, 0.0))
    back = grey.pixels * std + mean
    torch.testing.assert_close(back, back[:1].expand(3, -1, -1), atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(st.integers(0, 200), SEEDS, st.sampled_from([WHOLE, CROPS]))
def test_every_view_is_well_formed(position, seed, preprocessing) -> None:
    views = Views(Painted(6), preprocessing, Mix(proposals=3), batch=4, seed=seed)
    view = views[position]
    points = 1 if views.pointed(position) else 2
    assert view.spots.shape == (3, points, 2)
    assert view.targets.shape[0] == 3
    assert -1e-5 <= view.targets.min() <= view.targets.max() <= 1 + 1e-5
    assert view.pixels.isfinite().all()
    assert len(view.texts) == 3
    assert not view.targets[~view.present].any()
    tolerance = 1e-3
    assert view.spots.min() >= -tolerance
    assert view.spots.max() <= 64 + tolerance


# ------------------------------------------------------------ positions


def same(one, other) -> bool:
    return (
        one.texts == other.texts
        and one.broken == other.broken
        and all(
            torch.equal(getattr(one, name), getattr(other, name))
            for name in ("pixels", "spots", "targets", "present")
        )
    )


def make(preprocessing=WHOLE, *, seed=1, fixed=False, broken=(), **mix) -> Views:
    source = Painted(6, broken)
    return Views(source, preprocessing, Mix(**mix), batch=2, seed=seed, fixed=fixed)


def _views_of(positions: list[int]) -> list[tuple]:
    views = make()
    return [(p, views[p].texts, views[p].pixels.sum().item()) for p in positions]


def test_a_position_is_one_view_in_any_order_and_process() -> None:
    views, again = make(), make()
    positions = [0, 7, 3, 30, 3, 1]
    found = {p: views[p] for p in positions}
    assert all(same(again[p], found[p]) for p in sorted(positions, reverse=True))
    assert not same(views[0], views[6 * 5])
    assert not same(make(seed=2)[3], found[3])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        told = pool.apply(_views_of, (positions,))
    assert told == [(p, found[p].texts, found[p].pixels.sum().item()) for p in positions]


def test_every_pass_takes_each_picture_once_in_another_order() -> None:
    views = make()
    passes = [[views.index(turn * 6 + place) for place in range(6)] for turn in range(4)]
    assert all(sorted(one) == list(range(6)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1


@pytest.mark.parametrize("preprocessing", [WHOLE, CROPS])
def test_fixed_views_draw_their_boxes_once_and_their_texts_anew(preprocessing) -> None:
    views = make(preprocessing, fixed=True, points=1.0, absent=0.9)
    where = {(turn, views.index(turn * 6 + i)): turn * 6 + i for turn in range(5) for i in range(6)}
    texts = set()
    for picture in range(6):
        first = views[where[0, picture]]
        assert first.spots.shape[1] == 2  # points need another view; there are none
        for turn in range(1, 5):
            later = views[where[turn, picture]]
            assert torch.equal(later.pixels, first.pixels)
            if preprocessing is CROPS:
                assert torch.equal(later.spots, first.spots)
            texts.add(later.texts)
    assert len(texts) > 6
    loose = make(preprocessing)
    assert not torch.equal(loose[where[0, 2]].pixels, loose[where[1, 2]].pixels)


def test_a_step_is_pointed_or_not_as_a_whole() -> None:
    views = make(points=0.4)
    pointed = [views.pointed(p) for p in range(400)]
    assert pointed[0::2] == pointed[1::2]  # a batch of 2
    assert np.mean(pointed) == pytest.approx(0.4, abs=0.12)
    for position in range(6):
        assert views[position].spots.shape[1] == (1 if pointed[position] else 2)
    assert not any(make(points=0.0).pointed(p) for p in range(50))


def test_points_look_at_the_whole_picture() -> None:
    views = make(CROPS, points=1.0, recolor=0.0)
    picture = views.pictures[views.index(0)]
    whole = make_view(picture, [Ask(picture.things[0].box, "a", None)], WHOLE)
    assert torch.equal(views[0].pixels, whole.pixels)


def test_a_broken_picture_is_passed_over_and_named() -> None:
    whole, views = make(), make(broken=(2, 3))
    for position in range(6):
        view, index = views[position], views.index(position)
        causes = [f"picture {i}: file {i}.png is torn" for i in (2, 3) if index <= i and index >= 2]
        assert list(view.broken) == causes
        if index not in (2, 3):
            assert same(view, whole[position])
        else:  # the next whole one, 4, takes its place
            assert torch.equal(view.pixels, views[views_position(views, 4)].pixels)


def views_position(views: Views, index: int) -> int:
    return next(p for p in range(6) if views.index(p) == index)


def test_pictures_that_are_broken_throughout_are_refused() -> None:
    with pytest.raises(BadInput, match="no picture can be used; the first: picture") as told:
        make(broken=range(6))[0]
    assert "\n" not in str(told.value)


def test_recolouring_is_as_large_as_the_mix_says() -> None:
    views = make(recolor=0.5)
    rng = np.random.default_rng(0)
    drawn = np.array([views._recolor(rng) for _ in range(2000)])
    assert drawn.min(0) == pytest.approx([0.75, -0.1, 0.5], abs=0.02)
    assert drawn.max(0) == pytest.approx([1.25, 0.1, 1.3], abs=0.02)
    plain = replace(views.mix, recolor=0.0)
    assert Views(views.pictures, WHOLE, plain, batch=1, seed=0)._recolor(rng) == (1, 0, 1)
