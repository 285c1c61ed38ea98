"""Validation: the cases, the metrics, the area under the ROC curve; SAM 2 and VLSM."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from painted import SIZE, Painted, make_config

from rsvp.embedded.pictures import SceneImages
from rsvp.errors import BadInput
from rsvp.segmenters.box import BoxSegmenter
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.vlsm import VlsmSegmenter
from rsvp.training.components import load_components
from rsvp.training.config import Metric
from rsvp.training.data import AnnotatedImage, Annotation
from rsvp.training.samples import OUTSIDE
from rsvp.training.validation import (
    STYLES,
    ValidationResult,
    ValidationSet,
    presence_auc,
    validation_cases,
)
from rsvp.types import Box


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0),
        ([0.1], [0.9, 0.8], 0.0),
        ([0.5], [0.5], 0.5),
        ([0.9, 0.3], [0.5, 0.3], (1 + 1 + 0 + 0.5) / 4),
        ([0.5, 0.5, 0.7], [0.5, 0.6], (0.5 + 0 + 0.5 + 0 + 1 + 1) / 6),
    ],
)
def test_auc_by_hand(positive, negative, expected) -> None:
    assert presence_auc(np.array(positive), np.array(negative)) == pytest.approx(expected)


@given(*[st.lists(st.integers(0, 6), min_size=1, max_size=12)] * 2)
def test_auc_is_the_chance_that_a_positive_is_above(positive, negative) -> None:
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    found = presence_auc(np.array(positive, float), np.array(negative, float))
    assert found == pytest.approx(np.mean(pairs))


def test_auc_without_either_is_nan() -> None:
    one, none = np.array([1.0]), np.array([])
    assert all(
        math.isnan(v)
        for v in (
            presence_auc(one, none),
            presence_auc(none, one),
            presence_auc(one, one * math.nan),
        )
    )


def test_metrics_by_hand() -> None:
    styles = ("clean", "clean", "jittered", "bands", "shared", "absent", "absent")
    nan = math.nan
    outcome = ValidationResult(
        styles,
        np.array([0.8, 0.6, 0.5, 0.4, 0.3, nan, nan]),
        np.array([0.9, 0.4, 0.0, 0.0, 0.0, 0.5, 0.1]),
    )
    result = outcome.metrics()
    assert tuple(result) == get_args(Metric)
    expected = [0.7, 0.5, 0.4, 0.3, 0.4, 3 / 4]
    assert list(result.values()) == pytest.approx(expected)
    assert all(outcome.supports(name) for name in get_args(Metric))


def test_a_style_without_cases_is_nan_and_not_part_of_the_mean() -> None:
    outcome = ValidationResult(("clean", "bands"), np.array([0.8, 0.4]), np.array([0.9, 0.1]))
    result = outcome.metrics()
    assert result["ambiguous"] == 0.4
    assert [name for name in result if math.isnan(result[name])] == [
        "jittered", "shared", "presence_auc",
    ]  # fmt: skip
    assert [name for name in get_args(Metric) if outcome.supports(name)] == [
        "clean",
        "bands",
        "ambiguous",
    ]
    alone = ValidationResult(("clean",), np.array([0.8]), np.array([0.9]))
    assert math.isnan(alone.metrics()["ambiguous"])
    assert not alone.supports("ambiguous")


def test_validation_cases_are_true() -> None:
    scenes = SceneImages("11,30")
    seen = set()
    for index in range(12):
        image = scenes[index]
        height, width = image.rgb.shape[:2]
        for case in validation_cases(image, np.random.default_rng(index)):
            seen.add(case.style)
            box = case.proposal.box
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height
            named = [t for t in image.annotations if t.texts[0] == case.proposal.text]
            if case.style == "absent":
                assert case.proposal.target is None
                assert named  # a hard negative: something else of this image
                assert all(t.fraction_inside(box) <= OUTSIDE for t in named)
                continue
            assert case.proposal.target is not None
            assert case.proposal.text == case.proposal.target.texts[0]
            if case.style == "clean":
                assert box.xyxy == case.proposal.target.box.xyxy
            else:  # no other object that the text could mean as well
                same_name = [t for t in named if t is not case.proposal.target]
                assert all(t.fraction_inside(box) < 0.5 for t in same_name)
    assert seen == {*STYLES, "absent"}


def test_a_box_with_a_second_object_of_the_name_is_no_case() -> None:
    """Around a cat and the dog lies a second cat: neither box nor text says which is meant."""

    def square(name: str, x0: int) -> Annotation:
        mask = np.zeros(SIZE, dtype=bool)
        mask[10:20, x0 : x0 + 10] = True
        return Annotation((name,), mask, Box(x0, 10, x0 + 10, 20))

    cats, dog = (square("cat", 2), square("cat", 22)), square("dog", 42)
    image = AnnotatedImage("x", np.zeros((*SIZE, 3), np.uint8), (*cats, dog))
    shared = set()
    for seed in range(30):
        for case in validation_cases(image, np.random.default_rng(seed)):
            if case.style == "clean" and case.proposal.target is cats[0]:
                shared.add("first cat")
            if case.style == "shared":
                assert case.proposal.target is not cats[0]
                shared.add(case.proposal.text)
    assert shared == {"first cat", "cat", "dog"}


def test_an_image_of_tiny_objects_has_no_cases() -> None:
    mask = np.zeros(SIZE, dtype=bool)
    mask[3, 3] = True
    speck = AnnotatedImage(
        "x", np.zeros((*SIZE, 3), np.uint8), (Annotation(("a",), mask, Box(3, 3, 4, 4)),)
    )
    assert list(validation_cases(speck, np.random.default_rng(0))) == []


def listed(dataset: ValidationSet) -> list[tuple]:
    return [
        (image.id, case.style, case.proposal.text, case.proposal.box.xyxy)
        for image, cases in dataset
        for case in cases
    ]


def test_the_cases_are_the_same_every_time() -> None:
    one = ValidationSet(Painted(6), 4)
    assert listed(one) == listed(one) == listed(ValidationSet(Painted(6), 4))
    assert listed(one) != listed(ValidationSet(Painted(6), 4, seed=1))
    assert len({row[0] for row in listed(one)}) == 4


def test_broken_images_are_skipped_and_the_next_ones_used() -> None:
    dataset = ValidationSet(Painted(6, broken=(0, 2)), 3)
    assert list(dict.fromkeys(row[0] for row in listed(dataset))) == ["p001", "p003", "p004"]
    assert dataset.broken == {
        0: "validation image 0: file 0.png is truncated",
        2: "validation image 2: file 2.png is truncated",
    }
    with pytest.raises(BadInput, match=r"can be used; the first: validation image 0: file 0"):
        list(ValidationSet(Painted(3, broken=range(3)), 2))


def test_the_box_segmenter_evaluated_by_hand() -> None:
    """The box filled: perfect where the box is clean, since the things are rectangles."""
    outcome = ValidationSet(Painted(8), 8).evaluate(BoxSegmenter())
    result = outcome.metrics()
    assert result["clean"] == 1.0
    assert 0.3 < result["jittered"] < 1
    assert result["shared"] < result["bands"] < 1
    assert math.isnan(result["presence_auc"])  # a box says nothing of presence
    assert np.isnan(outcome.ious[[s == "absent" for s in outcome.styles]]).all()
    by_hand = [
        case.proposal.target.box.area / case.proposal.box.area
        for _, cases in ValidationSet(Painted(8), 8)
        for case in cases
        if case.style == "shared" and case.proposal.target is not None
    ]
    assert outcome.ious_of("shared") == pytest.approx(by_hand)


def test_an_untrained_vlsm_scores_as_its_sam2(models) -> None:
    components = load_components(make_config(models, "coco:unused"))
    dataset = ValidationSet(Painted(6), 4)
    base = dataset.evaluate(
        Sam2Segmenter.from_network(components.net.sam2, components.preprocessing)
    )
    vlsm = VlsmSegmenter.from_vlsm(components.net, components.text, components.preprocessing)
    result = dataset.evaluate(vlsm)
    assert result.styles == base.styles
    np.testing.assert_array_equal(result.ious, base.ious)
    assert np.isnan(base.presence).all()
    assert ((result.presence >= 0) & (result.presence <= 1)).all()
    assert math.isfinite(result.metrics()["presence_auc"])
