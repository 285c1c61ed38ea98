"""How fast `rsvp batch` is, and whether its memory stays flat.

    python -m eval.batch_speed [--images N] [--shell N] [--latency SECONDS] [--preset NAME]
                               [--memory N]

Images a second of a batch, beside a loop of `Pipeline.segment` in one process, and beside a shell
loop of `rsvp segment`, which loads the models for every image. With --latency the MLLM is a server
that answers after so long, with the box of the middle: a batch asks several images at once. With
--memory the resident memory of a batch of N images is printed on its way instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval._common import make_parser, run
from rsvp import presets
from rsvp.cli.options import begin
from rsvp.types import Message, Reply, Usage

QUERY = "all animals"
_SHOWN = 100  # images between two measurements of memory


class DistantMLLM:
    """An MLLM that answers after some time, as a server does."""

    name, model, remote = "distant", "qwen3-vl", True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def reply(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        *,
        schema: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Reply:
        """The box of the middle."""
        time.sleep(self._seconds)
        target = {"label": "thing", "box": [250, 250, 750, 750]}
        return Reply(json.dumps({"targets": [target], "reason": "it fits"}), Usage(100, 10, 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("batch_speed", __doc__)
    parser.add_argument("--images", type=int, default=100, metavar="N")
    parser.add_argument("--shell", type=int, default=5, metavar="N", help="of the shell loop")
    parser.add_argument("--latency", type=float, metavar="SECONDS")
    parser.add_argument("--preset", default=presets.DEFAULT, metavar="NAME")
    parser.add_argument("--memory", type=int, metavar="N")
    begin()
    return run(_measure, parser.parse_args(argv))


def _measure(args: argparse.Namespace) -> None:
    from rsvp.batch.items import read_items
    from rsvp.batch.runner import Batch
    from rsvp.embedded import scenes
    from rsvp.pipeline import Pipeline

    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "in"), Path(folder, "out")
        count = args.memory or args.images
        scenes.main(["--n", str(count), "--seed", "77000", "--out", str(data)])
        mllm = None if args.latency is None else DistantMLLM(args.latency)
        pipeline = Pipeline.from_preset(args.preset, mllm=mllm)
        items = read_items(str(data), [QUERY])
        pipeline.segment(items[0].image, QUERY)  # loads the models
        batch = Batch(items, pipeline, out, formats=["coco"])
        if args.memory:
            for n, megabytes in _memory(batch):
                print(f"{n:6,} images: {megabytes:,.0f} MB", flush=True)
            return
        speeds = {"batch": batch.run().rate or 0.0}
        started = time.perf_counter()
        for item in items:
            pipeline.segment(item.image, QUERY)
        speeds["loop of Pipeline.segment"] = count / (time.perf_counter() - started)
        if args.shell and mllm is None:
            images = [item.image for item in items[: args.shell]]
            speeds["shell loop of rsvp segment"] = _shell(images, args.preset, Path(folder))
    for name, speed in speeds.items():
        ratio = speeds["batch"] / speed
        print(f"{name}: {speed:.3f} images a second; the batch is {ratio:.2f} times as fast")


def _memory(batch: Any) -> Iterator[tuple[int, float]]:
    """The number of records, and MB of resident memory, every `_SHOWN` records and at the end."""
    for n, _ in enumerate(batch, start=1):
        if n % _SHOWN == 0:
            yield n, _resident()
    yield batch.tally.n, _resident()


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _shell(images: Sequence[str], preset: str, folder: Path) -> float:
    """Images a second, each by a command of its own."""
    started = time.perf_counter()
    for number, image in enumerate(images):
        words = ["segment", "--image", image, "--query", QUERY, "--preset", preset]
        command = [sys.executable, "-m", "rsvp", *words, "--out", str(folder / str(number))]
        subprocess.run(command, check=True, capture_output=True)
    return len(images) / (time.perf_counter() - started)


if __name__ == "__main__":
    raise SystemExit(main())
