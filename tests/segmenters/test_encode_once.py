"""An image is encoded once however often it is asked about, and boxes share a decoder batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from packages import needs_sam2
from transformers import Sam2Model

from rsvp.pipeline import Pipeline
from rsvp.segmenters.automatic import automatic_masks
from rsvp.segmenters.mask_filter import AutomaticSettings
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.point_prompts import decoder_batch_size
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.sam2_weights import OFFICIAL_SIZE, official_config
from rsvp.types import Box, Proposal

QUERIES = 10
BOXES = [Box(30 * i, 20 + 5 * i, 30 * i + 150, 300 + 10 * i) for i in range(QUERIES)]


def test_ten_queries_on_one_image_encode_it_once(sam2_folder, make_image) -> None:
    segmenter = Sam2Segmenter(str(sam2_folder), device="cpu")
    calls = []
    segmenter.net.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    pipeline, image = Pipeline(None, None, segmenter), make_image(480, 640).rgb
    for number, box in enumerate(BOXES):
        pipeline.segment(image, f"query {number}", boxes=[box])
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("size", "device", "most", "expected"),
    [
        (128, "cpu", 32, 32),
        (1024, "cpu", 32, 3),  # 3 maps of 8 MiB are kept, 4 are not
        (4096, "cpu", 32, 1),
        (1024, "cuda", 64, 64),
    ],
)
def test_a_batch_is_no_larger_than_what_a_cpu_does_well(size, device, most, expected) -> None:
    assert decoder_batch_size(size // 4, torch.device(device), most) == expected


# ---------------------------------------------------------------- timings


@pytest.fixture(scope="module")
def official_tiny() -> Sam2Segmenter:
    """Hiera tiny at 1024 pixels, as published but for its weights."""
    torch.manual_seed(0)
    net = Sam2Model(official_config("tiny"))
    return Sam2Segmenter.from_network(net, Preprocessing(OFFICIAL_SIZE), device="cpu")


def seconds(act: Callable[[], object], runs: int = 2) -> float:
    """The least of several runs, in seconds of CPU: a busy machine is no property of the code."""
    times = []
    for _ in range(runs):
        started = time.process_time()
        act()
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.benchmarks
def test_ten_queries_cost_one_encoding_and_ten_decoder_passes(official_tiny, make_image) -> None:
    image = make_image(480, 640)

    def ask(number: int) -> None:
        pipeline = Pipeline(None, None, official_tiny)  # anew: nothing is kept from before
        for box in BOXES[:number]:
            pipeline.segment(image.rgb, "a thing", boxes=[box])

    def once() -> None:
        [encoding] = official_tiny.encode([image])
        official_tiny.masks(encoding, [Proposal("a thing", BOXES[0])])

    ask(1)
    [encoding] = official_tiny.encode([image])
    one, ten = seconds(once), seconds(lambda: ask(QUERIES))
    decoder = seconds(lambda: official_tiny.mask_logits(encoding, [Proposal("", BOXES[0])]))
    allowed = one + QUERIES * decoder
    print(
        f"\none query's segmenter {one:.2f} s, a decoder pass {1e3 * decoder:.0f} ms, "
        f"ten queries {ten:.2f} s: {ten / allowed:.2f} times one query and ten passes"
    )
    assert ten <= 1.3 * one + QUERIES * decoder


@pytest.mark.benchmarks
def test_ten_boxes_in_one_decoder_batch(official_tiny, make_image) -> None:
    [encoding] = official_tiny.encode([make_image(480, 640)])
    proposals = [Proposal("a thing", box) for box in BOXES]

    def apart() -> None:
        for proposal in proposals:
            official_tiny.mask_logits(encoding, [proposal])

    apart()
    one_by_one = seconds(apart)
    together = seconds(lambda: official_tiny.mask_logits(encoding, proposals))
    print(
        f"\nten boxes: one batch {together:.2f} s, ten calls {one_by_one:.2f} s, "
        f"ratio {together / one_by_one:.2f}"
    )
    assert together < 1.15 * one_by_one


@pytest.mark.benchmarks
@needs_sam2
def test_automatic_masks_take_no_longer_than_the_packages(official_tiny, make_image) -> None:
    from eval.official_sam2 import PackageGenerator

    # Random weights are sure of nothing: everything is kept, so that neither is spared any work.
    settings = AutomaticSettings(points_per_side=5, min_iou=0, min_stability=0)
    image = make_image(480, 640)
    package = PackageGenerator.of(official_tiny, settings)
    theirs = seconds(lambda: package(image))
    ours = seconds(lambda: automatic_masks(official_tiny, image, settings))
    print(f"\n25 points: {ours:.2f} s, the package {theirs:.2f} s, ratio {ours / theirs:.2f}")
    assert ours <= theirs
