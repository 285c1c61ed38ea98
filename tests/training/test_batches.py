"""The same global batch, however it is split; features that are kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from painted import Painted
from safetensors.torch import load_file

from rsvp.errors import BadInput
from rsvp.segmenters.point_prompts import BOTTOM_RIGHT, TOP_LEFT
from rsvp.segmenters.sam2_weights import Preprocessing
from rsvp.training.batches import Batch, FeatureCache, Share, batches, collate
from rsvp.training.views import Mix, Views


def make(broken=(), **mix) -> Views:
    return Views(Painted(6, broken), Preprocessing(32), Mix(**mix), batch=4, seed=3)


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.integers(1, 4)
)
def test_each_position_is_taken_once_by_someone(processes, pieces, micro, first, count) -> None:
    batch = processes * pieces * micro
    shares = [Share(batch, processes, rank, pieces) for rank in range(processes)]
    taken = [list(share.positions(first, first + count)) for share in shares]
    for step in range(count):
        here = [
            position
            for own in taken
            for piece in own[step * pieces : (step + 1) * pieces]
            for position in piece
        ]
        start = (first + step) * batch
        assert sorted(here) == list(range(start, start + batch))
    assert {len(piece) for own in taken for piece in own} == {micro}


def test_a_resumed_share_goes_on_where_it_was() -> None:
    share = Share(12, processes=2, rank=1, pieces=3)
    whole = list(share.positions(0, 5))
    assert list(share.positions(3, 5)) == whole[3 * 3 :]
    assert list(share.positions(5, 5)) == []


@pytest.mark.parametrize(("batch", "processes", "pieces"), [(10, 4, 1), (8, 2, 3), (1, 1, 2)])
def test_what_does_not_divide_is_refused(batch, processes, pieces) -> None:
    with pytest.raises(BadInput, match=f"a batch of {batch} does not divide into {processes} "):
        Share(batch, processes, 0, pieces)


def test_a_batch_holds_its_views() -> None:
    views = make(points=0.0, proposals=3)
    made = collate([(views.index(p), views[p]) for p in range(4)])
    assert made.indices == tuple(views.index(p) for p in range(4))
    assert made.pixels.shape == (4, 3, 32, 32)
    assert made.view.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert made.prompts.coords.shape == (12, 2, 2)
    assert made.prompts.labels.tolist() == [[TOP_LEFT, BOTTOM_RIGHT]] * 12
    assert not made.pointed
    assert made.texts == tuple(text for p in range(4) for text in views[p].texts)
    torch.testing.assert_close(made.targets[3:6], views[1].targets)
    moved = made.to(torch.device("cpu"))
    assert torch.equal(moved.targets, made.targets)
    same = [[a == b for b in made.texts] for a in made.texts]
    assert (made.names[:, None] == made.names[None]).tolist() == same
    pointed = make(points=1.0)
    lone = collate([(0, pointed[0])])
    assert lone.pointed
    assert lone.prompts.labels.unique().tolist() == [1]


def test_the_causes_of_what_is_broken_come_along() -> None:
    views = make(broken=(2,))
    made = collate([(views.index(p), views[p]) for p in range(6)])
    assert made.broken == ("picture 2: file 2.png is torn",)


def texts_of(made: list[Batch]) -> list[tuple[str, ...]]:
    return [batch.texts for batch in made]


def test_workers_make_the_same_batches_and_end_with_them() -> None:
    share = Share(4, pieces=2)
    alone = list(batches(make(), share, 1, 4, workers=0))
    assert len(alone) == 6
    helped = list(batches(make(), share, 1, 4, workers=2))
    assert texts_of(helped) == texts_of(alone)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(alone, helped, strict=True))
    stream = batches(make(), share, 0, 100, workers=2)
    next(stream)
    workers = children()
    assert len(workers) >= 2
    stream.close()
    assert not workers & children()


def children() -> set[int]:
    import multiprocessing

    return {child.pid for child in multiprocessing.active_children() if child.pid}


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_refuses_is_refused_in_one_line(workers) -> None:
    views = make(broken=range(6))
    with pytest.raises(BadInput) as told:
        list(batches(views, Share(4), 0, 1, workers=workers))
    assert str(told.value).startswith("no picture can be used; the first: picture ")
    assert "\n" not in str(told.value)
    assert "Traceback" not in str(told.value)


ORPHANS = """
import os, signal, sys, multiprocessing
sys.path[:0] = sys.argv[1:]
from test_batches import batches, make, Share
stream = batches(make(), Share(4), 0, 10**6, workers=2)
next(stream)
for child in multiprocessing.active_children():
    os.kill(child.pid, signal.SIGINT)   # Ctrl-C reaches them too, and is not theirs to heed
    os.kill(child.pid, signal.SIGTERM)
for _ in range(12):
    next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
def test_workers_heed_no_signal_and_survive_no_killed_run() -> None:
    paths = [p for p in sys.path if p]
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS, *paths], capture_output=True, text=True, check=False
    )
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2, done.stderr
    deadline = time.monotonic() + 30  # they look every five seconds
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


# ------------------------------------------------------------ the cache


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


def test_a_torn_or_empty_file_is_as_good_as_none(tmp_path) -> None:
    cache = FeatureCache(tmp_path, "key")
    cache.put([0], levels(0, 1))
    (file,) = cache.folder.iterdir()
    whole = file.read_bytes()
    for torn in (whole[:-10], whole[:20], b""):
        file.write_bytes(torn)
        assert cache.get([0]) is None
    cache.put([0], levels(1, 1))  # and is written anew
    found = cache.get([0])
    assert found is not None
    assert torch.equal(found[0], levels(1, 1)[0].bfloat16().float())
    assert len(list(cache.folder.iterdir())) == 1


def test_a_kill_halfway_leaves_no_torn_file(tmp_path, monkeypatch) -> None:
    cache = FeatureCache(tmp_path, "key")

    def killed(tensors, file) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("rsvp.training.batches.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.put([3], levels(0, 1))
    assert cache.get([3]) is None
    assert not list(cache.folder.glob("*.safetensors"))


def test_a_file_holds_one_view_and_no_more(tmp_path) -> None:
    """A slice that is not copied would drag its whole batch along."""
    cache = FeatureCache(tmp_path, "key")
    cache.put([0, 1], levels(0))
    for file in cache.folder.iterdir():
        assert {v.dtype for v in load_file(file).values()} == {torch.bfloat16}
        numbers = 4 * 64 + 8 * 16 + 16 * 4 * 9
        assert file.stat().st_size < 2 * numbers + 2000
