"""How fast masks are scored, beside a straightforward implementation in float64 numpy.

    python -m eval.scoring_speed [--masks 779] [--json]

The masks are random, in the sizes of ReasonSeg's photographs, 1 to 20 megapixels, with ignored
pixels; 779 is the size of its test split. Both implementations get true (H, W) bool masks, one at a
time, and predictions as COCO RLE, and score by the protocol `lisa`. Each runs in a process of its
own, one after the other; peak memory is what scoring a mask adds to the memory before.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from eval._common import make_parser
from rsvp.evaluation import metrics
from rsvp.evaluation.metrics import LISA, Overlap, Truth, spans
from rsvp.evaluation.metrics.spans import Spans
from rsvp.evaluation.stats import Interval
from rsvp.masks import RLE, decode_rle, rle_runs

MASKS = 779
SEED = 0

_MEGAPIXELS = (1.0, 20.0)
_BLOBS = 3  # at most, in a mask
_MEMORY_EVERY = 8  # masks between two measurements of memory, which slow the next mask down


@dataclass(frozen=True, slots=True)
class Timing:
    """Time, memory and scores of one implementation.

    Attributes:
        seconds: in scoring alone; drawing the masks is left out.
        peak_mb: the most that scoring a mask added to the process's memory; Linux only, else 0.
    """

    seconds: float
    peak_mb: float
    giou: float
    ciou: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both implementations on the same masks."""

    masks: int
    ours: Timing
    straightforward: Timing

    @property
    def speedup(self) -> float:
        """How many times faster ours is."""
        return self.straightforward.seconds / self.ours.seconds


Case = tuple[Truth, RLE]


def cases(masks: int, seed: int = SEED) -> Iterator[Case]:
    """Random truths and predictions, one after the other."""
    rng = np.random.default_rng(seed)
    for number in range(masks):
        size = _size(rng)
        blobs = [_blob(rng, size) for _ in range(rng.integers(1, _BLOBS + 1))]
        truth = decode_rle(_rle(spans.union(blobs), size), size, "truth")
        predicted = spans.union([_perturbed(rng, blob, size) for blob in blobs])
        ignore = None
        if number % 4 == 0:
            ignore = decode_rle(_rle(_blob(rng, size), size), size, "ignored") & ~truth
        yield Truth(truth, ignore), _rle(predicted, size)


def ours(case: Case) -> Overlap:
    """A prediction scored as `rsvp score` does it."""
    truth, predicted = case
    height, width = truth.mask.shape
    runs = rle_runs(predicted, (height, width), "prediction")
    return metrics.overlap_spans(spans.from_runs(runs), truth)


def straightforward(case: Case) -> Overlap:
    """The same in float64 arrays, as the rules read."""
    truth, predicted = case
    prediction = coco.decode(predicted).astype(np.float64)
    target = truth.mask.astype(np.float64)
    if truth.ignore is not None:
        counted = 1 - truth.ignore.astype(np.float64)
        prediction, target = prediction * counted, target * counted
    both = (prediction * target).sum()
    return Overlap(int(both), int(prediction.sum() + target.sum() - both))


IMPLEMENTATIONS: dict[str, Callable[[Case], Overlap]] = {
    "ours": ours,
    "straightforward": straightforward,
}


def measure(name: str, masks: int) -> Timing:
    """Score so many masks in this process."""
    scoring = IMPLEMENTATIONS[name]
    for case in cases(2, seed=SEED + 1):  # warm-up
        scoring(case)
    overlaps, seconds, peak = [], 0.0, 0.0
    for number, case in enumerate(cases(masks)):
        start = time.perf_counter()
        overlaps.append(scoring(case))
        seconds += time.perf_counter() - start
        if number % _MEMORY_EVERY == 0:
            before = _reset_peak()
            scoring(case)
            peak = max(peak, _status("VmHWM") - before)
    numbers = metrics.iou_numbers(overlaps, LISA)
    giou, ciou = numbers["giou"], numbers["ciou"]
    assert isinstance(giou, Interval)
    assert isinstance(ciou, Interval)
    return Timing(seconds, peak, giou.mean, ciou.mean)


def compare(masks: int = MASKS) -> Comparison:
    """Score the same masks with both, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        found = [pool.apply(measure, (name, masks)) for name in IMPLEMENTATIONS]
    return Comparison(masks, *found)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """(H, W) of a photograph: megapixels evenly spread, 3:4, upright or not."""
    pixels = rng.uniform(*_MEGAPIXELS) * 1e6
    short = int((pixels * 3 / 4) ** 0.5)
    size = short, int(pixels / short)
    return size if rng.random() < 0.8 else size[::-1]


def _blob(rng: np.random.Generator, size: tuple[int, int]) -> Spans:
    """An ellipse with a ragged edge, a twentieth to half of the image wide and high."""
    height, width = size
    radii = rng.uniform(0.025, 0.25, 2) * (height, width)
    center = rng.uniform(0.3, 0.7, 2) * (height, width)
    columns = np.arange(int(center[1] - radii[1]), int(center[1] + radii[1]))
    half = radii[0] * np.sqrt(np.maximum(0, 1 - ((columns - center[1]) / radii[1]) ** 2))
    ragged = rng.integers(-3, 4, (2, len(columns)))
    return _columns(columns, center[0] - half + ragged[0], center[0] + half + ragged[1], size)


def _perturbed(rng: np.random.Generator, blob: Spans, size: tuple[int, int]) -> Spans:
    """The blob with another outline, moved a little."""
    height = size[0]
    columns = blob[:, 0] // height
    start, stop = blob[:, 0] % height, (blob[:, 1] - 1) % height + 1
    moved = rng.integers(-height // 50 - 1, height // 50 + 2)
    ragged = rng.integers(-9, 10, (2, len(blob)))
    return _columns(columns, start + moved + ragged[0], stop + moved + ragged[1], size)


def _columns(
    columns: NDArray[np.int64],
    start: NDArray[np.float64] | NDArray[np.int64],
    stop: NDArray[np.float64] | NDArray[np.int64],
    size: tuple[int, int],
) -> Spans:
    """Rows start to stop of each column, as far as they are in the image and not empty."""
    rows = np.clip(np.stack([start, stop], axis=1).astype(np.int64), 0, size[0])
    return spans.union([rows + columns[:, None] * size[0]])


def _rle(mask: Spans, size: tuple[int, int]) -> RLE:
    edges = np.concatenate(([0], mask.ravel(), [size[0] * size[1]]))
    runs = [int(n) for n in np.diff(edges)]
    encoded = coco.frPyObjects({"size": list(size), "counts": runs}, *size)
    return {"size": list(size), "counts": encoded["counts"]}


def _reset_peak() -> float:
    """Reset the process's peak memory; returns its current memory in MB. Linux only, else 0."""
    try:
        # Return freed memory to the system, so that using it again counts.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return 0.0
    return _status("VmRSS")


def _status(name: str) -> float:
    """A line of the process's status in MB; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(one.split()[1]) / 1024 for one in lines if one.startswith(name)), 0.0)


def format_comparison(found: Comparison) -> str:
    """A comparison as text."""
    lines = [f"{found.masks} masks of 1 to 20 megapixels, protocol lisa"]
    for name in IMPLEMENTATIONS:
        one: Timing = getattr(found, name)
        lines.append(
            f"{name:<15}  {one.seconds:8.2f} s  {1000 * one.seconds / found.masks:7.1f} ms a mask  "
            f"peak {one.peak_mb:6.0f} MB  gIoU {one.giou:.9f}  cIoU {one.ciou:.9f}"
        )
    return "\n".join([*lines, f"{found.speedup:.1f} times faster"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("scoring_speed", __doc__)
    parser.add_argument("--masks", type=int, default=MASKS, metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    found = compare(max(1, args.masks))
    document = {**asdict(found), "speedup": found.speedup}
    print(json.dumps(document) if args.json else format_comparison(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
