"""The paper's ablation (RSVP, ACL 2025) on a preset: how much each part of the pipeline adds.

    python -m eval.ablation --data S --out DIR [--preset NAME] [--strategy NAME]

    full                        chain of thought, located by the MLLM, masks by the VLSM
    without chain of thought    the MLLM is asked for the targets alone
    without the visual prompt   the MLLM's labels alone: its boxes are dropped, the VLSM gets the
                                whole image and the label
    without the VLSM            SAM 2 with the same boxes, without the labels
    single-stage                the MLLM's box, filled, is the mask

runs the benchmark once a row, each in a folder of its own under `--out` (a second call resumes),
and prints gIoU, cIoU, and each row's difference to the full pipeline with its paired bootstrap
interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval._common import make_parser
from eval._common import run as run_command
from rsvp import presets
from rsvp.errors import BadInput
from rsvp.evaluation.compare import compare
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.summary import Summary
from rsvp.pipeline import Pipeline
from rsvp.registry import make
from rsvp.segmenters import Segmenter
from rsvp.types import Box, Image, Masks, Proposal


class LabelsOnly:
    """A segmenter that gets labels without boxes: every box is the whole image."""

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
        whole = Box(0, 0, width, height)
        return self.segmenter.masks(inner, [replace(p, box=whole) for p in proposals])


@dataclass(frozen=True, slots=True)
class AblationRow:
    """A row of the table.

    Attributes:
        folder: of its run, under the output folder.
        cot: ask for the chain of thought.
        segmenter: makes stage 2 from the full pipeline's.
    """

    name: str
    folder: str
    cot: bool
    segmenter: Callable[[Segmenter], Segmenter]


def rows(base: str) -> tuple[AblationRow, ...]:
    """The table's rows; `base` is the spec of the segmenter without labels."""
    return (
        AblationRow("full", "full", True, lambda full: full),
        AblationRow("without chain of thought", "no-cot", False, lambda full: full),
        AblationRow("without the visual prompt", "no-visual-prompt", True, LabelsOnly),
        AblationRow("without the VLSM", "no-vlsm", True, lambda _: make("segmenter", base)),
        AblationRow("single-stage", "single-stage", True, lambda _: make("segmenter", "box")),
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
        found = evaluate(
            "scenes", data, pipeline, out / row.folder, limit=limit, resume=True, oracle=False,
            settings={"preset": preset},
        )  # fmt: skip
        if not isinstance(found, Summary):
            raise BadInput(f"{data} holds no scenes to segment")
        done[row.name] = found
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
    parser = make_parser("ablation", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of rendered scenes")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--strategy", help="instead of the preset's own, e.g. grid")
    parser.add_argument("--base", default="sam2:embedded", help="the segmenter without labels")
    parser.add_argument("--limit", type=int, help="only the first N samples")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    done = run(
        args.data, args.out, args.preset,
        strategy=args.strategy, base=args.base, limit=args.limit,
    )  # fmt: skip
    print(table(args.out, done, args.base))


if __name__ == "__main__":
    raise SystemExit(main())
