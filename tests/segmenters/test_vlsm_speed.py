"""What the VLSM adds to SAM 2's own time, full size, side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import pytest
import tiny_texts
import torch
from transformers import Sam2Config, Sam2Model

from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.text_encoder import TextEncoder
from rsvp.segmenters.vlsm import VlsmSegmenter, build
from rsvp.types import Box, Proposal

REPEATS = {1: 9, 16: 5}
ENCODINGS = 3


def seconds(call: Callable[[], object]) -> float:
    """Of this process alone where there is no GPU: other programs on the machine do not count."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def proposals(count: int, words: Sequence[str]) -> list[Proposal]:
    return [
        Proposal(words[i % len(words)], Box(30 * i, 20 * i, 30 * i + 200, 20 * i + 300))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sam2Segmenter, VlsmSegmenter]:
    """SAM 2 with hiera tiny at its full size, and a VLSM of the usual size on it."""
    torch.manual_seed(0)
    net = Sam2Model(Sam2Config()).eval()
    table: Path = tiny_texts.bert(tmp_path_factory.mktemp("texts") / "bert")
    text = TextEncoder(f"embeddings:{table}")
    plain = Sam2Segmenter.from_network(net, Preprocessing(1024))
    fused = VlsmSegmenter.from_vlsm(build(net, text), text, plain.preprocessing)
    return plain, fused


@pytest.mark.benchmarks
def test_the_vlsm_adds_at_most_5_percent(pair, make_image) -> None:
    plain, fused = pair
    image = make_image(1024, 1024)
    assert type(fused).encode is type(plain).encode  # one encoder: timed once for both
    [encoding] = plain.encode([image])
    encoder = median(seconds(lambda: plain.encode([image])) for _ in range(ENCODINGS))
    print(f"\nencoder {1e3 * encoder:.0f} ms")
    ratios = []
    for count, repeats in REPEATS.items():
        times: dict[str, list[float]] = {"plain": [], "new": [], "known": []}
        for repeat in range(-1, repeats):  # the first one warms up
            new = proposals(count, [f"the {repeat + 1} {word}" for word in range(count)])
            calls = {"plain": plain, "new": fused, "known": fused}
            for name, segmenter in calls.items():
                took = seconds(lambda s=segmenter, p=new: s.mask_logits(encoding, p))
                if repeat >= 0:
                    times[name].append(took)
        base, new_texts, known_texts = (median(times[name]) for name in ("plain", "new", "known"))
        ratio = (encoder + new_texts) / (encoder + base)
        ratios.append(ratio)
        print(
            f"{count} proposals: SAM 2 decodes in {1e3 * base:.0f} ms, the VLSM in "
            f"{1e3 * new_texts:.0f} ms (texts met before: {1e3 * known_texts:.0f} ms); "
            f"with the encoder {100 * (ratio - 1):+.1f} %"
        )
    assert max(ratios) <= 1.05
