"""The geometry of the report's charts, in SVG units; the template draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

BINS = 20

_INTERVAL_WIDTH = 120
_MIN_SPAN = 1.5


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """An interval on a scale from 0 to 1, or to 100 where a value is above 1."""

    low: float
    mean: float
    span: float
    width: ClassVar[int] = _INTERVAL_WIDTH

    @classmethod
    def of(cls, interval: Mapping[str, float]) -> IntervalBar:
        """The bar of ``{"mean", "low", "high"}``."""
        top = 100.0 if interval["high"] > 1 else 1.0
        low, mean, high = (
            round(min(max(interval[key] / top, 0.0), 1.0) * cls.width, 1)
            for key in ("low", "mean", "high")
        )
        return cls(low, mean, round(max(high - low, _MIN_SPAN), 1))


class Bar(NamedTuple):
    """A rectangle of the histogram; `kind` is ``failed`` or ``answered``."""

    kind: str
    x: float
    y: float
    width: float
    height: float


class Bin(NamedTuple):
    """The samples of an IoU range: their bars, and their number at (x, y)."""

    title: str
    samples: int
    bars: Sequence[Bar]
    x: float
    y: float


class Tick(NamedTuple):
    """A mark of the axis."""

    label: str
    x: float
    anchor: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many samples have which IoU, in `BINS` equal bins of 0 to 1, the failed ones apart."""

    samples: int
    bins: Sequence[Bin]
    ticks: Sequence[Tick]
    width: ClassVar[int] = 720
    height: ClassVar[int] = 240
    left: ClassVar[int] = 8
    right: ClassVar[int] = 712
    top: ClassVar[int] = 22
    base: ClassVar[int] = 212

    @classmethod
    def of(cls, ious: Sequence[float], failed: Sequence[bool]) -> Histogram:
        """The histogram of at least one sample."""
        counts = {False: [0] * BINS, True: [0] * BINS}  # by failed
        for iou, fell in zip(ious, failed, strict=True):
            counts[fell][min(int(iou * BINS), BINS - 1)] += 1
        pairs = list(zip(counts[False], counts[True], strict=True))
        scale = (cls.base - cls.top) / max(a + b for a, b in pairs)
        bins = [cls._bin(i, *pair, scale) for i, pair in enumerate(pairs) if sum(pair)]
        return cls(len(ious), bins, [cls._tick(value) for value in (0.0, 0.25, 0.5, 0.75, 1.0)])

    @classmethod
    def _bin(cls, index: int, answered: int, failed: int, scale: float) -> Bin:
        count, width = answered + failed, (cls.right - cls.left) / BINS
        x = cls.left + index * width
        title = f"IoU {index / BINS:.2f} to {(index + 1) / BINS:.2f}: {count} samples"
        bars = [
            Bar(
                kind,
                round(x + 1, 1),
                round(cls.base - (below + n) * scale, 1),
                round(width - 2, 1),
                round(n * scale, 1),
            )
            for kind, below, n in (("failed", 0, failed), ("answered", failed, answered))
            if n
        ]
        label_y = cls.base - count * scale - 5
        title += f", {failed} failed" if failed else ""
        return Bin(title, count, bars, round(x + width / 2, 1), round(label_y, 1))

    @classmethod
    def _tick(cls, value: float) -> Tick:
        x = cls.left + value * (cls.right - cls.left)
        return Tick(f"{value:g}", x, {0.0: "start", 1.0: "end"}.get(value, "middle"))
