"""The embedding cache: an image is encoded once, and proposals with masks need no segmenter."""

from __future__ import annotations

import numpy as np
import pytest

import rsvp
from rsvp.errors import BadInput
from rsvp.segmenters import embedding_cache
from rsvp.segmenters.box import BoxSegmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.types import Box, PackedMask, Proposal


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
