"""Bootstrap intervals: exact where the answer is known, close to theory elsewhere."""

import numpy as np
import pytest

from rsvp.errors import BadInput
from rsvp.evaluation import stats
from rsvp.evaluation.stats import (
    mean_interval,
    paired_difference,
    paired_ratio_difference,
    ratio_interval,
)


def test_equal_values_leave_no_doubt():
    assert mean_interval([0.25] * 7) == stats.Interval(0.25, 0.25, 0.25)
    assert ratio_interval([1.0] * 5, [4.0] * 5) == stats.Interval(0.25, 0.25, 0.25)


def test_the_interval_of_a_mean_is_that_of_theory(monkeypatch):
    values = np.random.default_rng(1).normal(5, 2, 400)
    monkeypatch.setattr(stats, "RESAMPLES", 4000)
    found = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_intervals_cover_the_truth_about_95_times_in_100(monkeypatch):
    rng = np.random.default_rng(2)
    samples = rng.exponential(1.0, size=(300, 80))
    monkeypatch.setattr(stats, "RESAMPLES", 500)
    found = [mean_interval(s) for s in samples]
    covered = np.mean([i.low <= 1.0 <= i.high for i in found])
    assert 0.89 <= covered <= 0.98


def test_a_ratio_of_sums_weighs_samples_by_their_size():
    found = ratio_interval([1, 90], [10, 100])
    assert found.mean == pytest.approx(91 / 110, abs=1e-15)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.9)


def test_a_ratio_without_a_denominator_is_what_the_caller_says():
    assert ratio_interval([0, 0], [0, 0]).mean == 1.0
    assert ratio_interval([0, 0], [0, 0], empty=0.0) == stats.Interval(0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(monkeypatch):
    values = np.linspace(0, 1, 50) ** 2
    found = mean_interval(values)
    assert mean_interval(values) == found
    monkeypatch.setattr(stats, "SEED", 1)
    assert mean_interval(values) != found


def test_drawing_in_chunks_changes_nothing(monkeypatch):
    values = np.linspace(0, 1, 50) ** 2
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    whole = mean_interval(values)
    monkeypatch.setattr(stats, "_CHUNK", 1000)
    assert mean_interval(values) == whole


def test_pairing_sees_a_small_steady_gain_that_the_intervals_hide():
    rng = np.random.default_rng(3)
    a = rng.uniform(0, 1, 100)
    b = a + 0.02 + rng.normal(0, 0.01, 100)
    assert mean_interval(a).high > mean_interval(b).low
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(b.mean() - a.mean())
    assert 0.015 < found.low < found.high < 0.025
    assert found.better == 1.0
    assert paired_difference(b, a).better == 0.0


def test_a_run_is_as_good_as_itself():
    found = paired_difference([0.1, 0.9], [0.1, 0.9])
    assert found == stats.Difference(0.0, 0.0, 0.0, better=0.5)


def test_the_difference_of_ratios_is_paired():
    a, b = ([1, 2, 30], [10, 10, 100]), ([2, 3, 40], [10, 10, 100])
    found = paired_ratio_difference(a, b)
    assert found.mean == pytest.approx(45 / 120 - 33 / 120)
    assert found.low == pytest.approx(0.1)  # every sample gains a tenth, or nearly
    assert found.better == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([0.5, float("nan")]),
        lambda: mean_interval([[0.5]]),
        lambda: ratio_interval([1, 2], [1]),
        lambda: paired_difference([1, 2], [1]),
        lambda: paired_ratio_difference(([1], [1]), ([1, 2], [1, 2])),
    ],
)
def test_values_that_have_no_interval_are_refused(call):
    with pytest.raises(BadInput):
        call()
