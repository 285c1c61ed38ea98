"""The same global batch at every step for any number of processes, parts and workers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time

import pytest
import torch
from accelerate.utils import send_to_device
from hypothesis import given
from hypothesis import strategies as st
from painted import Painted, sampling_dataset
from torch.utils.data import Dataset

from rsvp.errors import BadInput
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.point_prompts import BOTTOM_RIGHT, TOP_LEFT
from rsvp.training.batches import TrainingBatch, collate, micro_batches
from rsvp.training.config import TrainConfig
from rsvp.training.samples import TrainingDataset


def make(broken=(), **mix) -> TrainingDataset:
    return sampling_dataset(Painted(6, broken), Preprocessing(32), batch=4, seed=3, **mix)


def config(batch=4, accumulate=1, steps=5) -> TrainConfig:
    return TrainConfig(
        data=(), segmenter="", text_encoder="", batch=batch, accumulate=accumulate, steps=steps
    )


class Positions(Dataset):
    """Records which positions are taken, instead of making samples."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []

    def __getitems__(self, positions: list[int]) -> list:
        self.taken.append(positions)
        return []


def positions_of(monkeypatch, config: TrainConfig, first: int, **process: int) -> list[list[int]]:
    """The positions of each micro-batch of one process, from a step on."""
    monkeypatch.setattr("rsvp.training.batches.collate", lambda samples: None)
    dataset = Positions()
    list(micro_batches(dataset, config, first, workers=0, **process))
    return dataset.taken


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.integers(1, 4)
)
def test_each_position_is_taken_by_one_process(processes, accumulate, micro, first, count) -> None:
    batch = processes * accumulate * micro
    settings = config(batch, accumulate, steps=first + count)
    with pytest.MonkeyPatch.context() as monkeypatch:
        taken = [
            positions_of(monkeypatch, settings, first, processes=processes, process_index=rank)
            for rank in range(processes)
        ]
    for step in range(count):
        here = [
            position
            for own in taken
            for part in own[step * accumulate : (step + 1) * accumulate]
            for position in part
        ]
        start = (first + step) * batch
        assert sorted(here) == list(range(start, start + batch))
    assert {len(part) for own in taken for part in own} == {micro}


def test_a_resumed_process_continues_where_it_was(monkeypatch) -> None:
    settings, process = config(12, 3, steps=5), {"processes": 2, "process_index": 1}
    whole = positions_of(monkeypatch, settings, 0, **process)
    assert positions_of(monkeypatch, settings, 3, **process) == whole[3 * 3 :]
    assert positions_of(monkeypatch, settings, 5, **process) == []


@pytest.mark.parametrize(("batch", "processes", "accumulate"), [(10, 4, 1), (8, 2, 3), (1, 1, 2)])
def test_a_batch_that_is_not_divisible_is_refused(batch, processes, accumulate) -> None:
    with pytest.raises(BadInput, match=f"a batch of {batch} is not divisible by {processes} "):
        config(batch, accumulate).micro_batch(processes)


def test_a_batch_holds_its_samples() -> None:
    dataset = make(points=0.0, proposals=3)
    made = collate([dataset[p] for p in range(4)])
    assert made.indices == tuple(dataset.image_index(p) for p in range(4))
    assert made.pixels.shape == (4, 3, 32, 32)
    assert made.view.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert made.prompts.coords.shape == (12, 2, 2)
    assert made.prompts.labels.tolist() == [[TOP_LEFT, BOTTOM_RIGHT]] * 12
    assert made.texts == tuple(text for p in range(4) for text in dataset[p].texts)
    torch.testing.assert_close(made.targets[3:6], dataset[1].targets)
    moved = send_to_device(made, torch.device("cpu"))
    assert isinstance(moved, TrainingBatch)
    assert moved.texts == made.texts
    assert torch.equal(moved.prompts.coords, made.prompts.coords)
    same = [[a == b for b in made.texts] for a in made.texts]
    assert (made.text_ids[:, None] == made.text_ids[None]).tolist() == same
    points = collate([make(points=1.0)[0]])
    assert points.prompts.single_point
    assert points.prompts.labels.unique().tolist() == [1]


def test_the_causes_of_skipped_images_are_in_the_batch() -> None:
    dataset = make(broken=(2,))
    made = collate([dataset[p] for p in range(6)])
    assert made.broken == ("image 2: file 2.png is truncated",)


def texts_of(made: list[TrainingBatch]) -> list[tuple[str, ...]]:
    return [batch.texts for batch in made]


def test_workers_make_the_same_batches_and_end_with_them() -> None:
    settings = config(accumulate=2, steps=4)
    without = list(micro_batches(make(), settings, 1, workers=0))
    assert len(without) == 6
    with_workers = list(micro_batches(make(), settings, 1, workers=2))
    assert texts_of(with_workers) == texts_of(without)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(without, with_workers, strict=True))
    stream = micro_batches(make(), config(steps=100), 0, workers=2)
    next(stream)
    workers = children()
    assert len(workers) >= 2
    stream.close()
    assert not workers & children()


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_one_line(workers) -> None:
    with pytest.raises(BadInput) as caught:
        list(micro_batches(make(broken=range(6)), config(), 0, workers=workers))
    assert str(caught.value).startswith("no image can be used; the first: image ")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


ORPHANS = """
import os, signal, sys, multiprocessing
sys.path[:0] = sys.argv[1:]
from test_batches import config, make, micro_batches
stream = micro_batches(make(), config(steps=10**6), 0, workers=2)
next(stream)
for child in multiprocessing.active_children():
    os.kill(child.pid, signal.SIGINT)   # Ctrl-C reaches them too
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


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_workers_ignore_signals_and_end_with_a_killed_run() -> None:
    paths = [p for p in sys.path if p]
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS, *paths], capture_output=True, text=True, check=False
    )
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2, done.stderr
    deadline = time.monotonic() + 30  # they check every five seconds
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))
