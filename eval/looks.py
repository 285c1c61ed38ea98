"""Draws answered questions: the image, what was looked at, and the pictures that were shown again.

    python -m eval.looks --data FOLDER --run FOLDER --out FILE.webp [--id ID]... [--count 12]

FOLDER are the scenes and a run of `rsvp eval scenes-qa` on them. Without `--id` the first questions
with a look are drawn, right and wrong ones in turn.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from eval._common import make_parser, run
from rsvp.drawing.tags import font_of
from rsvp.errors import BadInput
from rsvp.evaluation import benchmarks, records
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.records import RECORDS, AnswerRecord
from rsvp.evaluation.report.pictures import look_strip
from rsvp.images import load_image
from rsvp.parsing.answers import LETTERS
from rsvp.platform.files import atomic_write
from rsvp.types import RgbArray

TEXT = 22  # pixels
LINE = 30


def chosen(rows: Sequence[AnswerRecord], ids: Sequence[str], count: int) -> list[AnswerRecord]:
    """The records of these ids; else the first ones with a look, right and wrong ones in turn."""
    if ids:
        by_id = {row.id: row for row in rows}
        if unknown := [one for one in ids if one not in by_id]:
            raise BadInput(f"the run has no question {', '.join(unknown)}")
        return [by_id[one] for one in ids]
    looked = [row for row in rows if any(look.box for look in row.looks)]
    right, wrong = ([row for row in looked if bool(row.right) is ok] for ok in (True, False))
    pairs = itertools.chain.from_iterable(itertools.zip_longest(right, wrong))
    return [row for row in pairs if row is not None][:count]


def captioned(strip: RgbArray, lines: Sequence[str]) -> RgbArray:
    """A picture above lines of text, (h, w, 3) uint8."""
    font = font_of(TEXT)
    width = max(strip.shape[1], *(int(font.getlength(line)) + 8 for line in lines))
    sheet = Pil.new("RGB", (width, strip.shape[0] + LINE * len(lines) + 8), "white")
    sheet.paste(Pil.fromarray(strip))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        draw.text((4, strip.shape[0] + 4 + LINE * row), line, "black", font)
    return np.array(sheet)


def draw_sheet(data: Path, folder: Path, ids: Sequence[str], count: int) -> RgbArray:
    """All chosen questions of a run, two in a row; (h, w, 3) uint8."""
    how = EvalConfig.read(folder).run.settings
    samples = benchmarks.find("scenes-qa").open(data)
    index = {question.id: k for k, question in enumerate(samples.questions)}
    pictures = []
    for row in chosen(list(records.read(folder / RECORDS, AnswerRecord)), ids, count):
        question = samples[index[row.id]]
        strip = look_strip(load_image(question.image), row.looks, how["zoom"], how["background"])
        looked = ", ".join(look.query for look in row.looks) or "nothing"
        true = dict(zip(LETTERS, question.options, strict=False)).get(question.answer or "", "")
        said = f"{row.text} (right)" if row.right else f"{row.text} (it is {true})"
        lines = (
            f"{row.question}  {' / '.join(row.choices)}",
            f"looked at {looked}; answered {said}",
        )
        pictures.append(captioned(strip, lines))
    if not pictures:
        raise BadInput(f"{folder} holds no question with a look")
    height, width = (max(one.shape[axis] for one in pictures) for axis in (0, 1))
    columns = min(2, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for place, one in enumerate(pictures):
        y, x = place // columns * height, place % columns * width
        sheet[y : y + one.shape[0], x : x + one.shape[1]] = one
    return sheet


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("looks", __doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a .webp or .png file")
    parser.add_argument("--id", action="append", help="a question; may be given several times")
    parser.add_argument("--count", type=int, default=12)
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    kinds: dict[str, dict[str, Any]] = {
        ".webp": {"format": "WEBP", "quality": 80},
        ".png": {"format": "PNG"},
    }
    if args.out.suffix not in kinds:
        raise BadInput(f"--out ends in {' or '.join(kinds)}, found {args.out}")
    buffer = io.BytesIO()
    sheet = draw_sheet(args.data, args.run, args.id or (), args.count)
    Pil.fromarray(sheet).save(buffer, **kinds[args.out.suffix])
    atomic_write(args.out, buffer.getvalue())


if __name__ == "__main__":
    raise SystemExit(main())
