"""Confidence intervals (seeded percentile bootstrap at 95 %), of all samples and of groups.

The same values in the same order give the same interval, on every machine. All raise BadInput
where there are no values, one is not finite, or those of two runs differ in number.

Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rsvp.errors import BadInput

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0

_CHUNK = 1_000_000  # indices drawn at once; bounds memory, not results

T = TypeVar("T")
S = TypeVar("S")
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def times(self, factor: float) -> Interval:
        return Interval(self.mean * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """By how much run B is better than run A on the same samples: B - A."""

    better: float  # share of the resamples in which B beats A, ties counted half


def mean_interval(values: ArrayLike) -> Interval:
    """The mean of one value a sample."""
    array = _checked(values)
    means = _resampled(lambda i: array[i].mean(axis=1), len(array))
    return _interval(float(array.mean()), means)


def mean_or_none(values: Sequence[float]) -> Interval | None:
    """`mean_interval`, None where there are no values."""
    return mean_interval(values) if len(values) else None


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, empty: float = 1.0, epsilon: float = 0.0
) -> Interval:
    """Summed numerators over summed denominators, one pair a sample: cIoU, recall over objects.

    Samples are resampled, never the objects in them, so that objects of one image stay together.

    Args:
        empty: the ratio where the denominators sum to 0.
        epsilon: added to the sum of the denominators.
    """
    numerator, denominator = _paired(numerators, denominators)
    ratios = _resampled(
        lambda i: _ratio(numerator[i].sum(axis=1), denominator[i].sum(axis=1) + epsilon, empty),
        len(numerator),
    )
    return _interval(float(_ratio(numerator.sum(), denominator.sum() + epsilon, empty)), ratios)


def paired_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """mean(b) - mean(a) over the same samples in the same order."""
    first, second = _paired(a, b)
    gain = second - first
    gains = _resampled(lambda i: gain[i].mean(axis=1), len(gain))
    return _difference(float(gain.mean()), gains)


def paired_ratio_difference(
    a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike], *, empty: float = 1.0
) -> Difference:
    """The difference b - a of two ratios of sums (cIoU), given as numerators and denominators."""
    above_a, below_a = _paired(*a)
    above_b, below_b = _paired(*b)
    _paired(above_a, above_b)

    def gain(i: Indices) -> Floats:
        first = _ratio(above_a[i].sum(axis=-1), below_a[i].sum(axis=-1), empty)
        return _ratio(above_b[i].sum(axis=-1), below_b[i].sum(axis=-1), empty) - first

    gains = _resampled(gain, len(above_a))
    return _difference(float(gain(np.arange(len(above_a)))), gains)


def _resampled(statistic: Callable[[Indices], Floats], n: int) -> Floats:
    """`statistic` of every resample of n samples; it takes (r, n) indices, returns (r,) values."""
    rng = np.random.default_rng(SEED)
    rows = max(1, _CHUNK // n)
    return np.concatenate(
        [
            statistic(rng.integers(n, size=(min(rows, RESAMPLES - start), n)))
            for start in range(0, RESAMPLES, rows)
        ]
    )


def _ratio(above: ArrayLike, below: ArrayLike, empty: float) -> Floats:
    bottom = np.asarray(below, dtype=np.float64)
    ratio: Floats = np.full(bottom.shape, empty, dtype=np.float64)
    np.divide(above, bottom, out=ratio, where=bottom != 0)
    return ratio


def _interval(estimate: float, resampled: Floats) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _difference(estimate: float, gains: Floats) -> Difference:
    better = float(((gains > 0) + 0.5 * (gains == 0)).mean())
    return Difference(**asdict(_interval(estimate, gains)), better=better)


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _checked(a), _checked(b)
    if len(first) != len(second):
        raise BadInput(f"paired values come in equal numbers, found {len(first)} and {len(second)}")
    return first, second


def _checked(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise BadInput(f"an interval needs at least one value a sample, found {array.shape}")
    if not np.isfinite(array).all():
        raise BadInput("an interval needs finite values")
    return array


class Aggregator(Generic[T, S]):
    """Collects one value a sample and summarizes groups of them.

    Values stay in the order in which they come: it decides the bootstrap's draws. `summarize` gives
    the numbers of some of the values.
    """

    def __init__(self, summarize: Callable[[Sequence[T]], S]) -> None:
        self.values: list[T] = []
        self._summarize = summarize
        self._kinds: dict[str, list[int]] = defaultdict(list)
        self._tags: dict[str, list[int]] = defaultdict(list)
        self._overall: tuple[int, S] | None = None  # (number of values, their numbers)

    def append(self, value: T, kinds: Sequence[str] = (), tags: Sequence[str] = ()) -> None:
        for groups, names in ((self._kinds, kinds), (self._tags, tags)):
            for name in names:
                groups[name].append(len(self.values))
        self.values.append(value)

    def overall(self) -> S:
        if self._overall is None or self._overall[0] != len(self.values):
            self._overall = len(self.values), self._summarize(self.values)
        return self._overall[1]

    def numbers(self) -> S | Mapping[str, Any]:
        """The numbers to report of all samples."""
        return self.overall()

    def by_kind(self) -> dict[str, S]:
        """The numbers of each kind, in the order in which the kinds first appear."""
        return self._grouped(self._kinds)

    def by_tag(self) -> dict[str, S]:
        return self._grouped(self._tags)

    def _grouped(self, groups: Mapping[str, list[int]]) -> dict[str, S]:
        return {
            name: self.overall()  # a group of all samples is not resampled again
            if len(indices) == len(self.values)
            else self._summarize([self.values[i] for i in indices])
            for name, indices in groups.items()
        }
