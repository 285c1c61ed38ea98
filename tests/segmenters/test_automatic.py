"""Automatic masks: beside the `sam2` package's generator, and piece by piece."""

from __future__ import annotations

import inspect
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packages import needs_sam2
from tiny_sam2 import small_sam2

from rsvp import registry
from rsvp.detectors import Detector
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.platform.machine import holds_weights
from rsvp.segmenters.automatic import (
    AutomaticDetector,
    AutomaticMasks,
    automatic_masks,
    crop_windows,
)
from rsvp.segmenters.mask_filter import (
    AutomaticSettings,
    MaskFilter,
    box_nms,
    filter_size,
    mask_nms,
    tight_boxes,
)
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.transforms import Window

# Random weights draw masks all over the image, sure of nothing: a low bar, and no box is a double.
LOW = {
    "points_per_side": 6, "points_per_batch": 10, "min_iou": 0.45, "min_stability": 0.1,
    "stability_offset": 0.5, "overlap": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def segmenter() -> Sam2Segmenter:
    return Sam2Segmenter.from_network(small_sam2(), Preprocessing(128), device="cpu")


def pixels(found: AutomaticMasks) -> np.ndarray:
    """(n, H, W) bool."""
    return np.stack([mask.unpack() for mask in found.masks])


def by_place(found: AutomaticMasks) -> list[int]:
    """Rows in an order that rounding cannot change: by point, then by area."""
    areas = [mask.area for mask in found.masks]
    return sorted(range(len(found)), key=lambda row: (*found.points[row].round(3), areas[row]))


def assert_same(ours: AutomaticMasks, theirs: AutomaticMasks) -> None:
    assert len(ours) == len(theirs) > 0
    a, b = by_place(ours), by_place(theirs)
    np.testing.assert_allclose(ours.points[a], theirs.points[b], atol=1e-3)
    assert (pixels(ours)[a] == pixels(theirs)[b]).mean(axis=(1, 2)).min() > 0.9999
    np.testing.assert_allclose(ours.scores[a], theirs.scores[b], atol=1e-5)
    np.testing.assert_allclose(ours.stability[a], theirs.stability[b], atol=1e-3)
    assert (np.abs(ours.boxes[a] - theirs.boxes[b]).max(axis=1) == 0).mean() > 0.9


# ---------------------------------------------------------------- beside the package


@needs_sam2
@pytest.mark.parametrize("overlap", [1.0, 0.93])
@pytest.mark.parametrize("crop_layers", [0, 1])
@pytest.mark.parametrize("shape", [(75, 111), (160, 90)])
def test_the_same_masks_as_the_package(segmenter, make_image, shape, crop_layers, overlap) -> None:
    from eval.official_sam2 import PackageGenerator

    settings = AutomaticSettings(
        **{**LOW, "overlap": overlap}, crop_layers=crop_layers, judged_side=None
    )
    image = make_image(*shape)
    theirs = PackageGenerator.of(segmenter, settings)(image)
    ours = automatic_masks(segmenter, image, settings)
    assert_same(ours, theirs)
    assert overlap < 1 or len(ours) > 20


@needs_sam2
@pytest.mark.skipif(
    not holds_weights(registry.embedded_folder("segmenter")), reason="no embedded weights"
)
def test_trained_weights_find_the_same_objects_without_doubles(make_image) -> None:
    from eval.official_sam2 import PackageGenerator

    embedded = Sam2Segmenter("embedded", device="cpu")
    settings = AutomaticSettings(
        points_per_side=10, min_iou=0.1, min_stability=0.3, judged_side=None
    )
    image = make_image(120, 170)
    theirs = PackageGenerator.of(embedded, settings)(image)
    assert len(theirs) >= 5
    assert_same(automatic_masks(embedded, image, settings), theirs)


@needs_sam2
def test_the_packages_segmenter_can_be_asked_too(segmenter, make_image) -> None:
    from eval.official_sam2 import official_network
    from rsvp.segmenters.sam2_package import Sam2PackageSegmenter

    theirs = Sam2PackageSegmenter.from_network(
        official_network(segmenter.net), Preprocessing(128), device="cpu"
    )
    settings = AutomaticSettings(**LOW, crop_layers=1)
    image = make_image(80, 60)
    assert_same(
        automatic_masks(segmenter, image, settings), automatic_masks(theirs, image, settings)
    )


@needs_sam2
def test_images_made_in_another_way_are_not_compared(sam2_folder) -> None:
    from eval.official_sam2 import PackageGenerator

    grey = Preprocessing(128, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    other = Sam2Segmenter.from_network(small_sam2(), grey, name="sam2:grey", device="cpu")
    with pytest.raises(BadInput, match="sam2:grey"):
        PackageGenerator.of(other)


@needs_sam2
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("size", [(75, 111), (480, 640), (33, 1000)])
def test_the_crops_are_the_packages(size, layers) -> None:
    from rsvp.segmenters.sam2_package import load_package

    load_package()
    from sam2.utils.amg import generate_crop_boxes

    boxes, numbers = generate_crop_boxes(size, layers, 512 / 1500)
    ours = list(crop_windows(size, AutomaticSettings(crop_layers=layers)))
    assert [(layer, list(window)) for layer, window in ours] == list(
        zip(numbers, boxes, strict=True)
    )


# ---------------------------------------------------------------- what is promised


def test_scores_boxes_and_order(segmenter, make_image) -> None:
    image = make_image(90, 130)
    found = automatic_masks(segmenter, image, AutomaticSettings(**LOW))
    assert pixels(found).shape == (len(found), 90, 130)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores > LOW["min_iou"]).all()
    assert (found.stability >= LOW["min_stability"]).all()
    for mask, box in zip(pixels(found), found.boxes, strict=True):
        assert mask_to_box(mask).xyxy == tuple(box)
    cells = (found.points / (130 / 6, 90 / 6) - 0.5).round(4)
    assert (cells == cells.round()).all()


def test_judged_small_they_are_the_same_masks(segmenter, make_image) -> None:
    """What is thrown away may differ at the threshold; what is kept is as exact as ever."""
    image = make_image(300, 400)
    exact = automatic_masks(segmenter, image, AutomaticSettings(**LOW, judged_side=None))
    fast = automatic_masks(segmenter, image, AutomaticSettings(**LOW, judged_side=64))
    shared = sum(mask in set(exact.masks) for mask in fast.masks)
    assert shared >= 0.9 * max(len(exact), len(fast))


def test_one_encoding_and_full_batches(segmenter, make_image) -> None:
    calls = {"encoder": 0, "decoder": 0}

    def count(name: str, module: torch.nn.Module):
        return module.register_forward_hook(lambda *_: calls.__setitem__(name, calls[name] + 1))

    hooks = [
        count("encoder", segmenter.net.vision_encoder),
        count("decoder", segmenter.net.mask_decoder),
    ]
    automatic_masks(
        segmenter, make_image(60, 80), AutomaticSettings(points_per_side=6, points_per_batch=9)
    )
    for hook in hooks:
        hook.remove()
    assert calls == {"encoder": 1, "decoder": 4}


def test_only_what_stays_is_brought_to_the_photos_size(segmenter, make_image, monkeypatch) -> None:
    large = 0
    real = F.interpolate

    def watch(tensor, *args, **kwargs):
        nonlocal large
        result = real(tensor, *args, **kwargs)
        large += result.shape[0] if result.shape[-2:] == (500, 700) else 0
        return result

    monkeypatch.setattr(F, "interpolate", watch)
    settings = AutomaticSettings(**LOW, judged_side=64, limit=7)
    assert len(automatic_masks(segmenter, make_image(500, 700), settings)) == large == 7


def test_nothing_found_is_no_mask(segmenter, make_image) -> None:
    found = automatic_masks(
        segmenter, make_image(40, 50), AutomaticSettings(min_iou=1.0, crop_layers=1)
    )
    assert found.masks == ()
    assert found.boxes.shape == (0, 4)
    assert found.points.shape == (0, 2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (2, 3)])
def test_the_smallest_images(segmenter, make_image, shape) -> None:
    found = automatic_masks(segmenter, make_image(*shape), AutomaticSettings(**LOW))
    assert all(mask.size == shape for mask in found.masks)


def test_everything_can_be_switched_off(segmenter, make_image) -> None:
    off = AutomaticSettings(points_per_side=3, min_iou=0, min_stability=0, overlap=1)
    found = automatic_masks(segmenter, make_image(40, 50), off)
    assert len(found) == 27  # three masks at nine points; random ones are not empty


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"points_per_side": 0}, "points_per_side is at least 1, found 0"),
        ({"min_iou": 1.5}, "min_iou is 0 to 1"),
        ({"overlap": -0.1}, "overlap is 0 to 1"),
        ({"by": "colour"}, "by is boxes or masks"),
        ({"crop_layers": -1}, "crop_layers is 0 or more"),
        ({"crop_overlap": 1.0}, "crop_overlap is 0 to below 1"),
        ({"stability_offset": 0}, "stability_offset is above 0"),
        ({"limit": 0}, "limit is at least 1, or None"),
    ],
)
def test_settings_that_mean_nothing(wrong, said) -> None:
    with pytest.raises(BadInput, match=said):
        AutomaticSettings(**wrong)


def test_more_crops_than_pixels() -> None:
    with pytest.raises(BadInput, match="leaves no pixel"):
        list(crop_windows((3, 4), AutomaticSettings(crop_layers=4)))


# ---------------------------------------------------------------- the pieces


def test_tight_boxes() -> None:
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4, 6] = True
    assert tight_boxes(masks).tolist() == [[2, 1, 6, 3], [6, 4, 7, 5], [0, 0, 0, 0]]


def test_a_mask_that_a_crop_cut_off_is_left_to_the_others() -> None:
    logits = torch.full((1, 3, 8, 8), -9.0)
    logits[0, 0, 2:6, 2:6] = 9  # inside
    logits[0, 1, 2:6, 2:] = 9  # to the crop's right border
    logits[0, 2, 2:6, :4] = 9  # to its left border, which is the image's
    crop = Window(0, 0, 400, 400)
    mask_filter = MaskFilter((400, 900), crop, AutomaticSettings(min_iou=0, min_stability=0))
    assert len(mask_filter(logits, torch.ones(1, 3), torch.tensor([[0.5, 0.5]])).scores) == 2
    mask_filter = MaskFilter((400, 400), crop, AutomaticSettings(min_iou=0, min_stability=0))
    assert len(mask_filter(logits, torch.ones(1, 3), torch.tensor([[0.5, 0.5]])).scores) == 3


def test_stability_is_the_iou_at_two_thresholds() -> None:
    logits = torch.full((1, 1, 4, 4), -9.0)
    logits[0, 0, :, 0], logits[0, 0, :, 1] = 5, 0.5
    mask_filter = MaskFilter(
        (4, 4), Window(0, 0, 4, 4), AutomaticSettings(min_iou=0, min_stability=0)
    )
    assert mask_filter(logits, torch.ones(1, 1), torch.zeros(1, 2)).stability.tolist() == [0.5]


def test_filter_size() -> None:
    assert filter_size((480, 640), 256) == (192, 256)
    assert filter_size((480, 640), None) == (480, 640)
    assert filter_size((48, 64), 256) == (48, 64)
    assert filter_size((1, 5000), 256) == (1, 256)


def plain_nms(overlap: np.ndarray, scores: np.ndarray, limit: float) -> list[int]:
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if all(overlap[row, other] <= limit for other in kept):
            kept.append(int(row))
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_suppression_by_boxes_and_by_masks(seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = np.zeros((60, 24, 24), dtype=np.bool_)
    for mask in masks:
        y, x = random.integers(0, 12, 2)
        h, w = random.integers(2, 12, 2)
        mask[y : y + h, x : x + w] = np.tri(h, w, dtype=bool) if random.random() < 0.5 else True
    scores = random.integers(0, 20, 60) / 20  # with ties
    boxes = tight_boxes(torch.from_numpy(masks))
    filled = np.zeros_like(masks)
    for fill, (x0, y0, x1, y1) in zip(filled, boxes.int().tolist(), strict=True):
        fill[y0:y1, x0:x1] = True
    for limit in (0.3, 0.7):
        kept = box_nms(boxes, torch.tensor(scores), limit)
        assert kept.tolist() == plain_nms(ious(filled), scores, limit)
        kept = mask_nms(torch.from_numpy(masks), boxes, torch.tensor(scores), limit)
        assert kept.tolist() == plain_nms(ious(masks), scores, limit)


def ious(masks: np.ndarray) -> np.ndarray:
    flat = masks.reshape(len(masks), -1).astype(float)
    shared = flat @ flat.T
    areas = flat.sum(axis=1)
    return shared / (areas[:, None] + areas[None] - shared)


def test_different_things_in_one_box_are_no_doubles_by_masks() -> None:
    upper = torch.ones(1, 20, 20, dtype=torch.bool).triu(1)
    lower = torch.ones(1, 20, 20, dtype=torch.bool).tril(-1)
    masks = torch.cat([upper, lower])
    boxes, scores = tight_boxes(masks), torch.tensor([0.9, 0.8])
    assert box_nms(boxes, scores, 0.7).tolist() == [0]
    assert mask_nms(masks, boxes, scores, 0.7).tolist() == [0, 1]


# ---------------------------------------------------------------- as candidates


def test_they_are_candidates(segmenter, make_image) -> None:
    detector = AutomaticDetector(segmenter, **{**LOW, "limit": 5})
    assert isinstance(detector, Detector)
    assert detector.name == "automatic:sam2:network"
    assert detector.settings.by == "masks"
    found = detector.candidates(make_image(60, 80), ["a cup"])
    assert len(found) == 5
    assert found.phrases == ("",) * 5
    assert [mask.size for mask in found.masks] == [(60, 80)] * 5


def test_a_detector_by_its_spec(sam2_folder, make_image) -> None:
    detector = registry.make("detector", f"automatic:sam2:{sam2_folder}", min_iou=1.0)
    assert len(detector.candidates(make_image(30, 30), ())) == 0


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("box", {}, "the segmenter box gives no automatic masks"),
        ("box", {"colour": 1}, "'colour'"),
        ("box", {"min_iou": 7}, "min_iou is 0 to 1"),
    ],
)
def test_invalid_detectors_are_refused(spec, options, message) -> None:
    with pytest.raises(BadInput, match=message):
        registry.make("detector", f"automatic:{spec}", **options)


def test_the_options_of_the_detector_are_the_settings() -> None:
    options = inspect.signature(AutomaticDetector).parameters
    settings = asdict(AutomaticSettings(by="masks"))
    assert settings == {name: options[name].default for name in settings}
    assert [*settings] == [name for name in options if name != "segmenter"]
