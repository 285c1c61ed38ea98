"""Does naming the path help the answer? `trace` and `segment` on the same questions, paired.

    python -m eval.trace --data FOLDER [--preset NAME] [--mllm SPEC] [--limit N] [--json]

FOLDER is data of `rsvp eval vrt` or scenes of ``--task trace``. Both ways have the same models, and
each encodes the image anew: seconds are the segmenter's, encoder and decoder. A-mIoU is of the
questions with an answer in the image.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval._common import format_interval, make_parser, run, show_progress
from rsvp import presets
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation import benchmarks
from rsvp.evaluation.metrics.vrt import matched_ious
from rsvp.evaluation.outcomes import open_image
from rsvp.evaluation.stats import mean_interval, paired_difference
from rsvp.masks import encode_rle
from rsvp.pipeline import Pipeline
from rsvp.result import Result, Trace
from rsvp.types import Image

STAGES = ("encode", "segment")  # the segmenter's

Ask = Callable[[Image, str], Result]


def measure(
    ask: Mapping[str, Ask],
    samples: Any,
    count: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """A-mIoU, tokens and the segmenter's seconds of both ways, and their difference.

    Args:
        ask: "segment" and "trace", each answers a question about an image.
        samples: of the benchmark, with `truth`.
        count: how many of them, the first ones.

    Raises:
        BadInput: none of the questions has an answer in its image.
    """
    ious: dict[str, list[float]] = {way: [] for way in ask}
    costs: dict[str, list[tuple[int, float]]] = {way: [] for way in ask}
    for index in range(count):
        sample, truth = samples[index], samples.truth(index)
        image, true = open_image(sample), [one.mask for one in truth.answer]
        for way, call in ask.items():
            try:
                result: Result | None = call(image, sample.query)
            except MLLMFailed:  # scored as no answer
                result = None
            if true:
                found = matched_ious([encode_rle(mask) for mask in answer_masks(result)], true)
                ious[way].append(sum(found) / len(found))
            if result is not None:
                usage = result.usage
                seconds = sum(result.timings.get(stage, 0.0) for stage in STAGES)
                costs[way].append((usage.prompt_tokens + usage.completion_tokens, seconds))
        if progress is not None:
            progress(index + 1, count)
    if not ious["trace"]:
        raise BadInput("none of these questions has an answer in its image")
    return {
        "questions": len(ious["trace"]),
        **{
            way: {
                "a_miou": mean_interval(ious[way]).to_dict(),
                "tokens": _mean([tokens for tokens, _ in costs[way]]),
                "seconds": _mean([seconds for _, seconds in costs[way]]),
            }
            for way in ask
        },
        "difference": paired_difference(ious["segment"], ious["trace"]).to_dict(),
    }


def answer_masks(result: Result | None) -> list[Any]:
    """The (H, W) masks of the answer."""
    if isinstance(result, Trace):
        return [one.target.mask for one in result.answer_objects if one.target]
    return [] if result is None else [target.mask for target in result.targets]


def format_table(outcome: dict[str, Any]) -> str:
    """The outcome as text."""
    lines = [f"{outcome['questions']} questions; A-mIoU [95 % interval], means of the rest"]
    for way in ("segment", "trace"):
        one = outcome[way]
        cost = f"{one['tokens']:.0f} tokens, segmenter {one['seconds']:.3f} s"
        lines.append(f"{way:<10} {format_interval(one['a_miou'])}  {cost}")
    lines.append(f"{'trace - segment':<16} {format_interval(outcome['difference'])}")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("trace", __doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--mllm", metavar="SPEC")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    is_scenes = (args.data / "scenes.json").is_file()
    benchmark = benchmarks.find("scenes-trace" if is_scenes else "vrt")
    samples = benchmark.open(args.data)
    first = Pipeline.from_preset(args.preset, mllm=args.mllm)
    first.check_traces()
    # The same models with embeddings of their own, so that neither profits from the other.
    second = Pipeline(first.mllm, first.strategy, first.segmenter)
    ask: dict[str, Ask] = {"segment": second.segment, "trace": first.trace}
    count = min(len(samples), args.limit or len(samples))
    outcome = measure(ask, samples, count, progress=show_progress)
    print(json.dumps(outcome) if args.json else format_table(outcome))


if __name__ == "__main__":
    raise SystemExit(main())
