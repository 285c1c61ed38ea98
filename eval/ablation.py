"""The paper's ablation (RSVP, ACL 2025) on a preset: what each part of the pipeline is worth.

    python -m eval.ablation --data S --out DIR [--preset NAME] [--strategy NAME]

    full                        chain of thought, located by the MLLM, masks by the VLSM
    without chain of thought    the MLLM is asked for the targets alone
    without the visual prompt   the MLLM's words alone: its boxes are thrown away, the VLSM is given
                                the whole image and the label
    without the VLSM            SAM 2 with the same boxes, the words unread
    single-stage                the MLLM's box, filled, is the mask

runs the benchmark once a row, each in a folder of its own under `--out` (a second call goes on
where a first one stopped), and prints gIoU, cIoU, and each row's difference to the full pipeline
with its paired bootstrap interval.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsvp import presets, registry
from rsvp.errors import BadInput, RsvpError
from rsvp.evaluation.compare import compare
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.summary import Summary
from rsvp.pipeline import Pipeline
from rsvp.segmenters import Segmenter
from rsvp.types import Box, Image, Masks, Proposal


class WordsAlone:
    """A segmenter that is told what to look for, not where: every box is the whole image."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.name = f"{segmenter.name} without boxes"

    def encode(self, images: Sequence[Image]) -> list[Any]:
        """The segmenter's encodings, with the images' sizes."""
        sizes = [(image.height, image.width) for image in images]
        return list(zip(self.segmenter.encode(images), sizes, strict=True))

    def masks(self, encoding: tuple[Any, tuple[int, int]], proposals: Sequence[Proposal]) -> Masks:
        """The segmenter's masks of the proposals' labels in the whole image."""
        inner, (height, width) = encoding
        everything = Box(0, 0, width, height)
        return self.segmenter.masks(inner, [replace(p, box=everything) for p in proposals])


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        folder: its run's, under the output folder.
        cot: ask for the chain of thought.
        segmenter: what stage 2 is, made from the full pipeline's.
    """

    name: str
    folder: str
    cot: bool
    segmenter: Callable[[Segmenter], Segmenter]


def rows(base: str) -> tuple[Row, ...]:
    """The table's rows; `base` is the spec of the segmenter without the words."""
    return (
        Row("full", "full", True, lambda full: full),
        Row("without chain of thought", "no-cot", False, lambda full: full),
        Row("without the visual prompt", "no-visual-prompt", True, WordsAlone),
        Row("without the VLSM", "no-vlsm", True, lambda _: registry.make("segmenter", base)),
        Row("single-stage", "single-stage", True, lambda _: registry.make("segmenter", "box")),
    )


def run(
    data: Path, out: Path, preset: str, *, strategy: str | None, base: str, limit: int | None
) -> dict[str, Summary]:
    """Run every row; the summaries by the rows' names.

    Raises:
        BadInput: the preset's segmenter does not read labels, malformed data, or a folder that
            holds other runs.
    """
    whole = Pipeline.from_preset(preset, strategy=strategy)
    if not getattr(whole.segmenter, "reads_labels", False):
        raise BadInput(f"the {preset} preset's segmenter reads no labels: there is no VLSM in it")
    done: dict[str, Summary] = {}
    for row in rows(base):
        pipeline = Pipeline(whole.mllm, whole.strategy, row.segmenter(whole.segmenter), cot=row.cot)
        print(f"{row.name} …", file=sys.stderr)
        done[row.name] = evaluate(
            "scenes", data, pipeline, out / row.folder, limit=limit, resume=True, oracle=False,
            settings={"preset": preset},
        )  # fmt: skip
    return done


def table(out: Path, summaries: dict[str, Summary], base: str) -> str:
    """The rows as text."""
    lines = [f"{'':<27}{'gIoU':<24}{'cIoU':<24}gIoU - full"]
    for row in rows(base):
        found = summaries[row.name]
        gain = ""
        if row.folder != "full":
            gain = str(compare(out / "full", out / row.folder).overall.giou)
        lines.append(f"{row.name:<27}{found.giou!s:<24}{found.ciou!s:<24}{gain}".rstrip())
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = Path(args.out)
    try:
        done = run(
            Path(args.data), out, args.preset,
            strategy=args.strategy, base=args.base, limit=args.limit,
        )  # fmt: skip
        print(table(out, done, args.base))
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="a folder of rendered scenes")
    parser.add_argument("--out", required=True, help="where the runs go")
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--strategy", help="instead of the preset's own, e.g. grid")
    parser.add_argument("--base", default="sam2:embedded", help="the segmenter without the words")
    parser.add_argument("--limit", type=int, help="only the first N samples")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
