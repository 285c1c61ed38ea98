"""Training samples: the boxes, the texts, their targets, and the tensors."""

from __future__ import annotations

import functools
import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import SIZE, Painted, sampling_dataset

from rsvp.embedded.pictures import SceneImages
from rsvp.errors import BadInput
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.transforms import Window, crop_to_square, margin_box
from rsvp.training.config import BOX_STYLES, SamplingConfig
from rsvp.training.data import AnnotatedImage, Annotation
from rsvp.training.samples import (
    INSIDE,
    OUTSIDE,
    ProposalSampler,
    TrainingDataset,
    TrainingProposal,
    TrainingSample,
    downsampled_mask,
    draw_box,
    make_sample,
)
from rsvp.types import Box

SCENES = SceneImages("5,40")
WHOLE, CROPS = Preprocessing(64), Preprocessing(64, crop_margin=0.25)
SEEDS = st.integers(0, 2**32 - 1)
NO_STYLE = dict.fromkeys(BOX_STYLES, 0.0)
scene = functools.cache(SCENES.__getitem__)


def annotation(x0: int, y0: int, x1: int, y1: int, *texts: str, size=SIZE) -> Annotation:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return Annotation(texts or ("it",), mask, Box(x0, y0, x1, y1))


def image_of(*annotations: Annotation) -> AnnotatedImage:
    return AnnotatedImage("x", np.zeros((*SIZE, 3), np.uint8), annotations)


# ------------------------------------------------------------ boxes


@settings(max_examples=60)
@given(st.integers(0, 11), SEEDS, st.sampled_from(BOX_STYLES))
def test_every_box_lies_on_the_image_and_holds_what_it_should(index, seed, style) -> None:
    image, rng = scene(index), np.random.default_rng(seed)
    height, width = image.size
    target = image.annotations[seed % len(image.annotations)]
    others = image.with_other_names(target)
    box = draw_box(style, target, image, rng)
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
    if style == "clean":
        assert box.xyxy == target.box.xyxy
    elif style == "bands":
        assert target.fraction_inside(box) == 1
        # No more than a band beyond each side, and a fifth of that all for padding.
        assert box.width <= (target.box.width + 2 * width / 9) * 1.4 + 1e-6
    elif style == "shared" and others:
        assert target.fraction_inside(box) == 1
        assert any(other.fraction_inside(box) == 1 for other in others)
    elif style == "jittered":
        for found, true, side in zip(
            box.xyxy, target.box.xyxy, (target.box.width, target.box.height) * 2, strict=True
        ):
            assert abs(found - true) <= max(side, 4.0) * 0.16 * 6


def test_jitter_has_the_documented_spread_in_both_directions() -> None:
    target, rng = annotation(20, 15, 44, 33), np.random.default_rng(0)
    drawn = [draw_box("jittered", target, image_of(target), rng) for _ in range(3000)]
    shifts = np.array([[b.x0 - 20, b.x1 - 44] for b in drawn]) / 24
    assert np.abs(shifts.mean(0)).max() < 0.01
    expected = (0.7 * 0.08**2 + 0.3 * 0.16**2) ** 0.5
    assert shifts.std(0) == pytest.approx([expected, expected], rel=0.07)


def test_boxes_of_slivers_at_the_border_stay_on_the_image() -> None:
    rng = np.random.default_rng(0)
    for corners in ((0, 0, 1, 1), (63, 47, 64, 48), (0, 20, 64, 21)):
        target = annotation(*corners)
        for _ in range(200):
            box = draw_box("jittered", target, image_of(target), rng)
            assert 0 <= box.x0 < box.x1 <= 64
            assert 0 <= box.y0 < box.y1 <= 48


def test_a_shared_box_is_around_both_and_near_objects_are_preferred() -> None:
    target = annotation(5, 5, 12, 12)
    near, far = annotation(15, 5, 22, 12, "a"), annotation(50, 40, 60, 46, "b")
    rng, image = np.random.default_rng(0), image_of(target, far, near)
    boxes = [draw_box("shared", target, image, rng).xyxy for _ in range(300)]
    assert set(boxes) == {(5, 5, 22, 12), (5, 5, 60, 46)}
    assert boxes.count((5, 5, 22, 12)) == pytest.approx(180, abs=30)  # 60 %


def test_the_fraction_inside_counts_pixels() -> None:
    target = annotation(10, 10, 20, 20)
    assert target.fraction_inside(Box(0, 0, 64, 48)) == 1
    assert target.fraction_inside(Box(10, 10, 15, 20)) == 0.5
    assert target.fraction_inside(Box(30, 30, 40, 40)) == 0
    assert target.fraction_inside(Box(-5, -5, 12, 11)) == pytest.approx(0.02)


# ------------------------------------------------------------ texts


@settings(max_examples=80)
@given(st.integers(0, 11), SEEDS, st.booleans(), st.booleans())
def test_what_a_text_says_is_true(index, seed, one_box, points) -> None:
    """A negative names nothing in its box; a positive names its target, which is in the box."""
    image, rng = scene(index), np.random.default_rng(seed)
    sampler = ProposalSampler(image, SCENES, SamplingConfig(proposals=6))
    if points:
        drawn = sampler.points(rng)
    else:
        drawn = sampler.boxes(rng, np.random.default_rng(seed + 1), one_box=one_box)
    assert len(drawn) == 6
    for proposal in drawn:
        text, target = proposal.text, proposal.target
        inside = [a for a in image.annotations if a.fraction_inside(proposal.box) > OUTSIDE]
        if target is None:
            assert text.strip()
            assert not any(text in a.texts for a in inside)
            continue
        assert any(target is a for a in image.annotations)
        if not points and target.box.area > 400:
            assert target.fraction_inside(proposal.box) > 0.1
        others = [a for a in inside if a is not target]
        if text:
            assert text in target.texts
        else:  # then the box has to say it
            assert all(other.fraction_inside(proposal.box) < INSIDE for other in others)
        if text and text != target.texts[0]:
            assert not any(text in other.texts for other in others)
    if one_box and not points:
        assert len({proposal.box for proposal in drawn}) == 1


def test_with_one_box_everything_in_it_is_asked_for() -> None:
    image = image_of(annotation(5, 5, 20, 20, "left"), annotation(30, 5, 45, 20, "right"))
    config = SamplingConfig(**{**NO_STYLE, "shared": 1}, wordless=0, other_names=0)
    for seed in range(20):
        rng, text_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
        drawn = ProposalSampler(image, Painted(3), config).boxes(rng, text_rng, one_box=True)
        assert {proposal.text for proposal in drawn[:2]} == {"left", "right"}
        assert {proposal.box.xyxy for proposal in drawn} == {(5, 5, 45, 20)}


def test_texts_have_the_configured_fractions() -> None:
    image = image_of(annotation(2, 5, 12, 20, "left"), annotation(50, 25, 62, 45, "right"))
    rng = np.random.default_rng(0)
    config = SamplingConfig(**{**NO_STYLE, "clean": 1}, absent=0.5, wordless=0.2)
    sampler = ProposalSampler(image, Painted(3), config)
    drawn = [p for _ in range(300) for p in sampler.boxes(rng, rng, one_box=False)]
    assert np.mean([p.target is None for p in drawn]) == pytest.approx(0.5, abs=0.04)
    present = [p for p in drawn if p.target is not None]
    assert np.mean([p.text == "" for p in present]) == pytest.approx(0.2, abs=0.05)
    hard = [p.text in ("left", "right") for p in drawn if p.target is None]
    assert np.mean(hard) == pytest.approx(0.5, abs=0.08)  # another object's name, of this image


def test_box_styles_have_the_configured_fractions(monkeypatch) -> None:
    styles: list[str] = []

    def counted(style, *rest):
        styles.append(style)
        return draw_box(style, *rest)

    monkeypatch.setattr("rsvp.training.samples.draw_box", counted)
    rng, config = np.random.default_rng(0), SamplingConfig(proposals=2000)
    image = image_of(annotation(2, 5, 12, 20, "left"), annotation(50, 25, 62, 45, "right"))
    ProposalSampler(image, Painted(3), config).boxes(rng, rng, one_box=False)
    for style in BOX_STYLES:
        assert styles.count(style) / 2000 == pytest.approx(getattr(config, style), abs=0.04)


def test_a_source_whose_every_text_is_in_the_box_gives_no_false_negative() -> None:
    target = annotation(5, 5, 40, 40, "red", "green", "blue", "a walrus")
    rng = np.random.default_rng(0)
    sampler = ProposalSampler(image_of(target), Painted(3), SamplingConfig(absent=1.0))
    assert all(p.target is target for p in sampler.boxes(rng, rng, one_box=False))


def test_points_lie_on_their_objects() -> None:
    rng = np.random.default_rng(0)
    config = SamplingConfig(proposals=8, absent=0)
    for index in range(8):
        image = scene(index)
        height, width = image.size
        for proposal in ProposalSampler(image, SCENES, config).points(rng):
            x, y = proposal.point
            assert proposal.target.mask[int(y), int(x)]
            assert (x % 1, y % 1) == (0.5, 0.5)
            prompt = make_sample(image, [proposal], WHOLE).points
            expected = torch.tensor([[[x * 64 / width, y * 64 / height]]])
            torch.testing.assert_close(prompt, expected)


# ------------------------------------------------------------ tensors


def test_a_downsampled_mask_by_hand() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0:4, 0:6] = True
    same = downsampled_mask(mask, Window.whole((8, 8)), 8)
    torch.testing.assert_close(same, torch.from_numpy(mask).float())
    # A window may leave the image.
    out = downsampled_mask(mask, Window(-8, -8, 8, 8), 16)
    assert not out[:8].any()
    assert not out[:, :8].any()
    torch.testing.assert_close(out[8:, 8:], torch.from_numpy(mask).float())
    full = downsampled_mask(np.ones((64, 64), dtype=bool), Window.whole((64, 64)), 16)
    torch.testing.assert_close(full, torch.ones(16, 16))
    small = downsampled_mask(mask, Window.whole((8, 8)), 2)
    assert small.sum() == pytest.approx(24 / 16, abs=0.3)


@pytest.mark.parametrize("preprocessing", [WHOLE, CROPS])
def test_the_target_is_the_object_in_the_window(preprocessing) -> None:
    image = scene(3)
    target = max(image.annotations, key=lambda a: a.box.area)
    box = target.box
    proposals = [TrainingProposal(box, "a", target), TrainingProposal(box, "b", None)]
    sample = make_sample(image, proposals, preprocessing)
    window = Window.whole(image.size)
    if preprocessing.crop_margin is not None:
        window = margin_box(box.xyxy, preprocessing.crop_margin)
    side = sample.targets.shape[-1]
    assert sample.targets.shape == (2, side, side)
    assert side in (16, 32)  # a quarter of the view's, or half
    torch.testing.assert_close(sample.targets[0], downsampled_mask(target.mask, window, side))
    assert sample.targets[0].max() > 0.5
    assert not sample.targets[1].any()
    assert sample.present.tolist() == [True, False]
    assert sample.texts == ("a", "b")
    assert sample.pixels.shape == (3, 64, 64)
    # Back in the image, the points are the corners of the box.
    scale = torch.tensor([window.width / 64, window.height / 64])
    corners = sample.points[0] * scale + torch.tensor([window.x0, window.y0])
    torch.testing.assert_close(corners.flatten(), torch.tensor(box.xyxy).float(), atol=1e-3, rtol=0)


def test_a_sample_without_color_jitter_is_what_the_segmenter_sees() -> None:
    image = scene(1)
    height, width = image.size
    proposals = [TrainingProposal(image.annotations[0].box, "a", None)]
    sample = make_sample(image, proposals, WHOLE)
    square, _ = crop_to_square(image.rgb, (0, 0, width, height), 0.0, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (WHOLE.mean, WHOLE.std))
    torch.testing.assert_close(sample.pixels, (square - mean) / std)
    bright = make_sample(image, proposals, WHOLE, (1.0, 0.1, 1.0))
    assert bright.pixels.mean() > sample.pixels.mean()
    grey = make_sample(image, proposals, WHOLE, (1.0, 0.0, 0.0))
    back = grey.pixels * std + mean
    torch.testing.assert_close(back, back[:1].expand(3, -1, -1), atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(st.integers(0, 200), SEEDS, st.sampled_from([WHOLE, CROPS]))
def test_every_sample_is_well_formed(position, seed, preprocessing) -> None:
    dataset = sampling_dataset(Painted(6), preprocessing, seed=seed, proposals=3)
    sample = dataset[position]
    assert sample.points.shape == (3, 1 if dataset.uses_points(position) else 2, 2)
    assert sample.targets.shape[0] == 3
    assert -1e-5 <= sample.targets.min() <= sample.targets.max() <= 1 + 1e-5
    assert sample.pixels.isfinite().all()
    assert len(sample.texts) == 3
    assert not sample.targets[~sample.present].any()
    tolerance = 1e-3
    assert sample.points.min() >= -tolerance
    assert sample.points.max() <= 64 + tolerance


# ------------------------------------------------------------ positions


def same(one: TrainingSample, other: TrainingSample) -> bool:
    return (
        one.texts == other.texts
        and one.broken == other.broken
        and all(
            torch.equal(getattr(one, name), getattr(other, name))
            for name in ("pixels", "points", "targets", "present")
        )
    )


def make(preprocessing=WHOLE, *, seed=1, fixed=False, broken=(), **mix) -> TrainingDataset:
    source = Painted(6, broken)
    return sampling_dataset(source, preprocessing, batch=2, seed=seed, fixed=fixed, **mix)


def _samples_at(positions: list[int]) -> list[tuple]:
    dataset = make()
    return [(p, dataset[p].texts, dataset[p].pixels.sum().item()) for p in positions]


def test_a_position_is_one_sample_in_any_order_and_process() -> None:
    dataset, again = make(), make()
    positions = [0, 7, 3, 30, 3, 1]
    found = {p: dataset[p] for p in positions}
    assert all(same(again[p], found[p]) for p in sorted(positions, reverse=True))
    assert not same(dataset[0], dataset[6 * 5])
    assert not same(make(seed=2)[3], found[3])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        elsewhere = pool.apply(_samples_at, (positions,))
    assert elsewhere == [(p, found[p].texts, found[p].pixels.sum().item()) for p in positions]


def test_every_epoch_takes_each_image_once_in_another_order() -> None:
    dataset = make()
    epochs = [[dataset.image_index(epoch * 6 + i) for i in range(6)] for epoch in range(4)]
    assert all(sorted(one) == list(range(6)) for one in epochs)
    assert len({tuple(one) for one in epochs}) > 1
    assert [dataset[position].index for position in range(6)] == epochs[0]


@pytest.mark.parametrize("preprocessing", [WHOLE, CROPS])
def test_fixed_samples_draw_their_boxes_once_and_their_texts_anew(preprocessing) -> None:
    dataset = make(preprocessing, fixed=True, points=1.0, absent=0.9)
    where = {(p // 6, dataset.image_index(p)): p for p in range(5 * 6)}
    texts = set()
    for image in range(6):
        first = dataset[where[0, image]]
        assert first.points.shape[1] == 2  # points need another view; there are none
        for epoch in range(1, 5):
            later = dataset[where[epoch, image]]
            assert torch.equal(later.pixels, first.pixels)
            if preprocessing is CROPS:
                assert torch.equal(later.points, first.points)
            texts.add(later.texts)
    assert len(texts) > 6
    varied = make(preprocessing)
    assert not torch.equal(varied[where[0, 2]].pixels, varied[where[1, 2]].pixels)


def test_a_step_is_prompted_by_points_or_by_boxes_as_a_whole() -> None:
    dataset = make(points=0.4)
    points = [dataset.uses_points(p) for p in range(400)]
    assert points[0::2] == points[1::2]  # a batch of 2
    assert np.mean(points) == pytest.approx(0.4, abs=0.12)
    for position in range(6):
        assert dataset[position].points.shape[1] == (1 if points[position] else 2)
    assert not any(make(points=0.0).uses_points(p) for p in range(50))


def test_samples_with_points_show_the_whole_image() -> None:
    dataset = make(CROPS, points=1.0, recolor=0.0)
    image = dataset.source[dataset.image_index(0)]
    proposal = TrainingProposal(image.annotations[0].box, "a", None)
    assert torch.equal(dataset[0].pixels, make_sample(image, [proposal], WHOLE).pixels)


def test_a_broken_image_is_skipped_and_named() -> None:
    whole, dataset = make(), make(broken=(2, 3))
    places = {dataset.image_index(p): p for p in range(6)}
    for index, position in places.items():
        sample = dataset[position]
        causes = [f"image {i}: file {i}.png is truncated" for i in (2, 3) if 2 <= index <= i]
        assert list(sample.broken) == causes
        if index not in (2, 3):
            assert same(sample, whole[position])
        else:  # the next whole one, 4, takes its place
            assert torch.equal(sample.pixels, dataset[places[4]].pixels)


def test_a_source_of_broken_images_only_is_refused() -> None:
    with pytest.raises(BadInput, match="no image can be used; the first: image") as caught:
        make(broken=range(6))[0]
    assert "\n" not in str(caught.value)


def test_color_jitter_has_the_configured_strength() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([make(recolor=0.5)._color_jitter(rng) for _ in range(2000)])
    assert drawn.min(0) == pytest.approx([0.75, -0.1, 0.5], abs=0.02)
    assert drawn.max(0) == pytest.approx([1.25, 0.1, 1.3], abs=0.02)
    assert make(recolor=0.0)._color_jitter(rng) == (1, 0, 1)
