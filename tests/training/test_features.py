"""The cache of the frozen encoder's features on disk."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from rsvp.training.components import FeatureCache


def levels(seed: int, views: int = 2) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = [(4, 8, 8), (8, 4, 4)] + [(16, 2, 2)] * 9  # more than ten: "10" comes after "9"
    return [torch.randn(views, *shape, generator=g) for shape in shapes]


def test_features_come_back_in_bfloat16_and_in_order(tmp_path) -> None:
    cache = FeatureCache(tmp_path, "k" * 64)
    assert cache.get([7, 1_234_567]) is None
    put = levels(0)
    cache.put([7, 1_234_567], put)
    found = cache.get([1_234_567, 7])
    assert found is not None
    for given_level, level in zip(put, found, strict=True):
        assert level.dtype == torch.float32
        assert torch.equal(level, given_level.flip(0).bfloat16().float())
    assert cache.get([7, 8]) is None  # all or nothing
    assert FeatureCache(tmp_path, "l" * 64).get([7]) is None


def test_a_truncated_or_empty_file_counts_as_missing(tmp_path) -> None:
    cache = FeatureCache(tmp_path, "key")
    cache.put([0], levels(0, 1))
    (file,) = cache.folder.iterdir()
    whole = file.read_bytes()
    for content in (whole[:-10], whole[:20], b""):
        file.write_bytes(content)
        assert cache.get([0]) is None
    cache.put([0], levels(1, 1))  # and is written anew
    found = cache.get([0])
    assert found is not None
    assert torch.equal(found[0], levels(1, 1)[0].bfloat16().float())
    assert len(list(cache.folder.iterdir())) == 1


def test_a_kill_while_writing_leaves_no_broken_file(tmp_path, monkeypatch) -> None:
    cache = FeatureCache(tmp_path, "key")

    def killed(self, target) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.put([3], levels(0, 1))
    assert cache.get([3]) is None
    assert not list(cache.folder.glob("*.safetensors"))


def test_a_file_holds_one_view(tmp_path) -> None:
    """A slice that is not copied would store its whole batch."""
    cache = FeatureCache(tmp_path, "key")
    cache.put([0, 1], levels(0))
    for file in cache.folder.iterdir():
        assert {v.dtype for v in load_file(file).values()} == {torch.bfloat16}
        numbers = 4 * 64 + 8 * 16 + 16 * 4 * 9
        assert file.stat().st_size < 2 * numbers + 2000
