"""Scoring is fast, lean and right: beside the same rules in float64 numpy."""

import tracemalloc

import numpy as np
import pytest
from benchmark_folders import write_lines

from eval import scoring_speed
from rsvp import registry
from rsvp.datasets import Sample
from rsvp.evaluation.benchmarks.masks import MaskBenchmark
from rsvp.evaluation.metrics import LISA
from rsvp.evaluation.score import score
from rsvp.masks import encode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own


def test_both_ways_count_the_same_pixels():
    for case in scoring_speed.cases(5, seed=3):
        truth, _ = case
        assert truth.mask.any()
        found = scoring_speed.ours(case)
        assert found == scoring_speed.straightforward(case)
        assert found.intersection > 0


class Squares:
    """As many samples of half a megapixel as asked for, made when they are asked for."""

    digest = ""

    def __init__(self, folder):
        self._count = int(folder.name)

    def __len__(self):
        return self._count

    def sample_id(self, index):
        return str(index)

    def __getitem__(self, index):
        mask = np.zeros((500, 1000), dtype=np.bool_)
        mask[index % 400 : index % 400 + 50, 100:900] = True
        return Sample(str(index), f"{index}.png", "?", "all", mask)


class SquaresBenchmark(MaskBenchmark):
    reader = Squares
    protocols = (LISA,)


def peak_of(count, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).random((500, 1000)) < 0.5
    encoded = encode_rle(noise)  # some 400 KB of text
    (tmp_path / str(count)).mkdir()
    file = write_lines(
        tmp_path / f"{count}.jsonl", ({"id": str(i), "masks": [encoded]} for i in range(count))
    )
    target = f"{__name__}:SquaresBenchmark"
    monkeypatch.setitem(registry.BUILT_IN["benchmark"], "squares", target)
    tracemalloc.start()
    score("squares", tmp_path / str(count), file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, monkeypatch):
    few, many = (peak_of(count, tmp_path, monkeypatch) for count in (5, 45))
    assert many - few < 40 * 4000  # a mask is 500 KB, its text as much


@pytest.mark.benchmarks
def test_scoring_is_at_least_5_times_faster_than_float64_numpy():
    found = scoring_speed.compare(60)
    print(scoring_speed.format_comparison(found))
    assert found.ours.giou == pytest.approx(found.straightforward.giou, abs=1e-12)
    assert found.ours.ciou == pytest.approx(found.straightforward.ciou, abs=1e-12)
    assert found.speedup >= 5
    assert found.ours.peak_mb <= found.straightforward.peak_mb / 5
