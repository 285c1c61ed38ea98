"""The embedding cache: an image is encoded once, and proposals with masks need no segmenter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scripted import hold_until

import rsvp
from rsvp.errors import BadInput
from rsvp.segmenters import embedding_cache
from rsvp.segmenters.box import BoxSegmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.types import Box, PackedMask, Point, Proposal


class Recorder(BoxSegmenter):
    """Fills boxes, and records what it encodes and is prompted with."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded, self.prompted = [], []

    def encode(self, images):
        self.encoded += [image.sha256 for image in images]
        return super().encode(images)

    def masks(self, encoding, proposals):
        self.prompted.append(tuple(proposals))
        return super().masks(encoding, proposals)


def image(seed: int = 0):
    rng = np.random.default_rng(seed)
    return rsvp.load_image(rng.integers(0, 256, (100, 200, 3), dtype=np.uint8))


def test_the_least_recently_used_embedding_is_dropped() -> None:
    segmenter = Recorder()
    cache = EmbeddingCache(segmenter, max_images=2)
    images = [image(seed) for seed in range(3)]
    for seed in (0, 1, 0, 2, 0, 1):
        cache.masks(images[seed], [Proposal("", Box(1, 1, 5, 5))])
    assert segmenter.encoded == [images[seed].sha256 for seed in (0, 1, 2, 1)]


def test_proposals_with_masks_need_no_segmenter() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[20:30, 20:40] = True
    segmenter = Recorder()
    cache = EmbeddingCache(segmenter, 2)
    own = Proposal("a", Box(20, 20, 40, 30), mask=PackedMask.pack(mask), score=0.7)
    found = cache.masks(image(), [own])
    assert (found.encode_seconds, found.decode_seconds) == (0, 0)
    assert segmenter.encoded == []
    np.testing.assert_array_equal(found.masks[0].unpack(), mask)
    assert found.scores.tolist() == pytest.approx([0.7])
    mixed = cache.masks(image(), [Proposal("b", Box(0, 0, 10, 10)), own])
    assert [one.area for one in mixed.masks] == [100, 200]
    assert [p.label for p in segmenter.prompted[0]] == ["b"]
    odd = Proposal("c", Box(0, 0, 5, 5), mask=PackedMask.pack(np.zeros((5, 5), bool)))
    with pytest.raises(BadInput, match="one size"):
        cache.masks(image(), [own, odd])


def test_few_masks_are_arrays_at_a_time(monkeypatch) -> None:
    """Hundreds of masks of a large photo would fill the memory."""
    segmenter = Recorder()
    monkeypatch.setattr(embedding_cache, "_ARRAY_BYTES", 3 * 100 * 200)
    boxes = [Box(n, 10, n + 20, 10 + n) for n in range(1, 9)]
    found = EmbeddingCache(segmenter, 1).masks(image(), [Proposal("", box) for box in boxes])
    assert [len(prompts) for prompts in segmenter.prompted] == [3, 3, 2]
    assert [mask.area for mask in found.masks] == [20 * n for n in range(1, 9)]
    assert found.scores.tolist() == [1] * 8
    assert sum(len(mask.bits) for mask in found.masks) < 8 * 100 * 200 / 20


def test_a_network_that_fails_is_one_line() -> None:
    class Failing(Recorder):
        def masks(self, encoding, proposals):
            raise RuntimeError("sizes contradict\nat a place")

    with pytest.raises(BadInput, match=r"^box fails on this image: sizes contradict$"):
        EmbeddingCache(Failing(), 1).masks(image(), [Proposal("", Box(0, 0, 5, 5))])


# ------------------------------------------------------------ threads

BOXES = [(Proposal("", Box(n, 10, n + 20, 10 + n)),) for n in range(20, 60, 10)]
POINT = Proposal("", None, points=(Point(50, 60),))


def at_once(cache, images, calls):
    """What `masks` returns or raises for each call, all of which wait before the first one runs."""
    hold_until(cache, len(calls))

    def masks(image, proposals):
        try:
            return cache.masks(image, proposals)
        except BadInput as error:
            return str(error)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(masks, images, calls))


def test_threads_on_one_image_share_a_batch_and_get_their_own_masks(sam2_folder) -> None:
    segmenter = Sam2Segmenter(str(sam2_folder), device="cpu")
    calls = [*BOXES, (POINT, *BOXES[0]), BOXES[1] + BOXES[2]]
    expected = [EmbeddingCache(segmenter, 1).masks(image(), call) for call in calls]
    sizes, decode = [], segmenter.masks
    segmenter.masks = lambda made, some: sizes.append(len(some)) or decode(made, some)
    found = at_once(EmbeddingCache(segmenter, 1), [image()] * len(calls), calls)
    assert sizes == [8]
    assert [one.masks for one in found] == [one.masks for one in expected]
    for one, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.scores, alone.scores, rtol=0, atol=1e-6)
    assert sum(one.encode_seconds > 0 for one in found) == 1
    shares = [one.decode_seconds / len(call) for one, call in zip(found, calls, strict=True)]
    assert min(shares) == pytest.approx(max(shares))


def test_a_batch_is_of_one_image_and_has_a_bound(monkeypatch) -> None:
    monkeypatch.setattr(embedding_cache, "_BATCH", 3)
    segmenter, images = Recorder(), [image(0), image(0), image(0), image(0), image(1), image(1)]
    found = at_once(EmbeddingCache(segmenter, 2), images, [*BOXES, *BOXES[:2]])
    assert [one.masks[0].area for one in found] == [400, 600, 800, 1000, 400, 600]
    assert sorted(map(len, segmenter.prompted)) == [1, 2, 3]


def test_proposals_that_fail_do_not_fail_those_of_another_thread() -> None:
    segmenter = Recorder()
    found = at_once(EmbeddingCache(segmenter, 1), [image()] * 4, [*BOXES[:3], (POINT,)])
    assert [len(proposals) for proposals in segmenter.prompted] == [4, 1, 1, 1, 1]
    assert [one.masks[0].area for one in found[:3]] == [400, 600, 800]
    assert found[3] == "the box segmenter fills boxes and cannot use points alone"
