"""Which images the embedded reasoner answers without a warning: scenes, and what is none.

    python -m eval.familiarity --data NAME=FOLDER [--data …] [--strategy NAME] [--limit N]

A folder of scenes, with its `scenes.json`, is asked its own questions; the images of any other
folder are asked questions about scenes. An image is doubted where the result says first that the
reasoner was unsure of it, or where no reply can be read. Wanted: scenes that are not doubted, and
other images that all are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval._common import make_parser, run, show_progress
from rsvp.datasets.scenes import SceneDataset
from rsvp.embedded.backgrounds import PHOTO_SUFFIXES
from rsvp.embedded.scenes import scenes
from rsvp.errors import BadInput, MLLMFailed
from rsvp.pipeline import Pipeline
from rsvp.postprocess import UNSURE

OUTCOMES = ("answered", "no target", "doubted")  # the first two without a warning of the image
QUESTIONS = 200  # different ones that images without questions of their own are asked
SEED = 5

Items = Sequence[tuple[Path, str]]


def measure(
    pipeline: Pipeline, items: Items, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The share of each outcome.

    Args:
        items: image files, each with its query.
        progress: called with the number of images that are done, and of all.

    Returns:
        ``{"images"}`` and a share for each of `OUTCOMES`.
    """
    counts = dict.fromkeys(OUTCOMES, 0)
    for done, (file, query) in enumerate(items, start=1):
        counts[_outcome(pipeline, file, query)] += 1
        if progress is not None:
            progress(done, len(items))
    return {"images": len(items), **{name: n / len(items) for name, n in counts.items()}}


def folder_items(folder: Path, limit: int | None) -> Items:
    """The images of a folder with their queries, at most `limit`, spread over the folder.

    Raises:
        BadInput: there is no image.
    """
    if (folder / "scenes.json").is_file():
        dataset = SceneDataset(folder)
        samples = (dataset[i] for i in range(len(dataset)))
        items = [(dataset.image_file(i), sample.query) for i, sample in enumerate(samples)]
    else:
        files = sorted(p for p in folder.glob("**/*") if p.suffix.lower() in PHOTO_SUFFIXES)
        queries = list(_questions())
        items = [(file, queries[i % len(queries)]) for i, file in enumerate(files)]
    if not items:
        raise BadInput(f"{folder}: no image ({', '.join(sorted(PHOTO_SUFFIXES))})")
    if limit is None or limit >= len(items):
        return items
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, limit)]


def _questions() -> Iterator[str]:
    for scene in scenes(QUESTIONS, SEED, size=96):
        yield scene.queries[0].text


def _outcome(pipeline: Pipeline, file: Path, query: str) -> str:
    try:
        result = pipeline.segment(file, query)
    except MLLMFailed:
        return "doubted"
    if any(warning.startswith(UNSURE) for warning in result.warnings):
        return "doubted"
    return "no target" if result.no_target else "answered"


def format_table(outcome: dict[str, dict[str, Any]]) -> str:
    """The outcome as text, a line for each folder."""
    lines = [f"{'':<24}{'images':>7}" + "".join(f"{name:>11}" for name in OUTCOMES)]
    for name, row in outcome.items():
        shares = "".join(f"{row[key]:>11.3f}" for key in OUTCOMES)
        lines.append(f"{name:<24}{row['images']:>7}{shares}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("familiarity", __doc__)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--mllm", metavar="SPEC", help="instead of the preset's reasoner")
    parser.add_argument("--strategy", default="boxes")
    parser.add_argument("--limit", type=int, metavar="N", help="images of each folder")
    parser.add_argument("--json", action="store_true")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Only the marks need real masks; all others are judged before.
    segmenter = None if args.strategy == "marks" else "box"
    pipeline = Pipeline.from_preset(
        "embedded", mllm=args.mllm, strategy=args.strategy, segmenter=segmenter
    )
    outcome = {}
    for text in args.data:
        name, separator, folder = text.partition("=")
        if not separator or not Path(folder).is_dir():
            raise BadInput(f"--data is NAME=FOLDER, found {text!r}")
        items = folder_items(Path(folder), args.limit)
        outcome[name] = measure(pipeline, items, progress=show_progress)
    print(json.dumps(outcome) if args.json else format_table(outcome))


if __name__ == "__main__":
    raise SystemExit(main())
