"""Where the time of one `rsvp segment` goes.

    python -m eval.speed [--preset NAME] [--mllm SPEC] [--segmenter SPEC]
                         [--image PATH] [--query TEXT] [--cold N] [--warm N]

Cold is the whole command in a process of its own: wall time and peak memory. Warm is every stage in
one process, after a first answer that loaded the models. Medians; docs/speed.md explains the rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import rsvp
from rsvp import presets
from rsvp.cli.options import begin
from rsvp.errors import BadInput, RsvpError

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

_T = TypeVar("_T")

DEMO = Path(rsvp.__file__).parent / "embedded" / "demo.png"
QUERY = "what would you cut the bread with?"
FORMATS = ("json", "overlay", "png")  # what `rsvp segment` writes
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in getrusage's ru_maxrss


class CommandFailed(RsvpError):
    """The measured command failed; its own line, and its own exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.exit_code = code


@dataclass(frozen=True, slots=True)
class Cold:
    """One run of the command.

    Attributes:
        wall: seconds from its start to its end.
        memory: its peak resident set, in bytes.
        timings: seconds of the pipeline's stages, as the command's own result tells them.
    """

    wall: float
    memory: int
    timings: Mapping[str, float]

    @property
    def rest(self) -> float:
        """Seconds outside the pipeline: Python's start, the image, writing."""
        return self.wall - self.timings["total"]


@dataclass(frozen=True, slots=True)
class Warm:
    """One answer in a process that has answered before.

    Attributes:
        seconds: stage -> seconds, in the order of the stages.
        tokens: that the MLLM wrote.
    """

    seconds: Mapping[str, float]
    tokens: int


def cold(command: Sequence[str]) -> Cold:
    """Run `rsvp segment` with these options and --json in a process of its own.

    This process should be small: on Linux a child's peak memory begins with its parent's.

    Raises:
        CommandFailed: it ended with another exit code than 0.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "rsvp", "segment", *command, "--json"], stdout=out, stderr=err
        )
        # subprocess throws the child's resource usage away, so that it is waited for here.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code:
            lines = _text(err).strip().splitlines()
            line = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
            raise CommandFailed(line, code if code > 0 else 1)
        timings = json.loads(_text(out))["timings"]
    return Cold(wall, usage.ru_maxrss * _RSS_UNIT, timings)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def warm(pipeline: Pipeline, image: Path, query: str, folder: Path, runs: int) -> list[Warm]:
    """Answer once to load everything, then `runs` times with a clock on every stage.

    Raises:
        BadInput: the query names nothing in the image, so that the segmenter has no work.
    """
    first = pipeline.segment(image, query)
    if first.no_target:
        raise BadInput(f"{query!r} names nothing in {image}: the segmenter would have no work")
    return [_warm(pipeline, image, query, folder) for _ in range(runs)]


def _warm(pipeline: Pipeline, path: Path, query: str, folder: Path) -> Warm:
    """The sentence of the product, one word at a time; `Pipeline.segment` says it in one breath."""
    from rsvp import writers
    from rsvp.dialogue import Question, converse
    from rsvp.images import load_image

    clock = _Clock()
    started = time.perf_counter()
    image = clock.time("load the image", lambda: load_image(path))
    mllm, strategy = pipeline.mllm, pipeline.strategy
    if mllm is None or strategy is None:
        raise BadInput("there is no MLLM to measure")
    talk = converse(image, query, strategy, pipeline.manner)
    step = clock.time("visual prompt", lambda: next(talk))
    tokens = 0
    while isinstance(step, Question):
        with clock.stage("reason"):
            reply = mllm.reply(step.messages, schema=step.schema)
        with clock.stage("read the reply"):
            step = talk.send(reply)
        tokens += reply.usage.completion_tokens
    proposals = step.reasoning.proposals
    encoding = clock.time("encode", lambda: pipeline.segmenter.encode([image])[0])
    clock.time("segment", lambda: pipeline.segmenter.masks(encoding, proposals))
    stages = time.perf_counter() - started
    result = pipeline.segment(image, query)  # not on the clock: what there is to write
    clock.time("write", lambda: writers.write(result, folder, FORMATS))
    return Warm({**clock.seconds, "total": stages + clock.seconds["write"]}, tokens)


class _Clock:
    """Adds up seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def time(self, name: str, act: Callable[[], _T]) -> _T:
        with self.stage(name):
            return act()


def cold_rows(runs: Sequence[Cold]) -> Iterator[tuple[str, str]]:
    """What the table says of the whole command."""
    yield "wall", _seconds(run.wall for run in runs)
    yield "peak memory", f"{max(run.memory for run in runs) / 1e6:8.0f} MB"
    yield "  outside the pipeline", _seconds(run.rest for run in runs)
    for stage in ("load", "reason", "encode", "segment"):
        yield f"  {stage}", _seconds(run.timings.get(stage, 0.0) for run in runs)


def warm_rows(runs: Sequence[Warm]) -> Iterator[tuple[str, str]]:
    """What the table says of every stage."""
    for stage in runs[0].seconds:
        yield stage, _seconds(run.seconds[stage] for run in runs)
        if stage == "reason" and all(run.tokens for run in runs):
            each = _seconds(run.seconds[stage] / run.tokens for run in runs)
            yield "  per token", f"{each}, {runs[0].tokens} tokens"


def _seconds(values: Iterator[float]) -> str:
    """The median, in milliseconds."""
    return f"{statistics.median(values) * 1000:8.1f} ms"


def _print(title: str, rows: Iterator[tuple[str, str]]) -> None:
    print(title)
    for name, value in rows:
        print(f"  {name:<24}{value}")


def parser() -> argparse.ArgumentParser:
    """The options."""
    top = argparse.ArgumentParser(
        prog="python -m eval.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--preset", default=presets.DEFAULT)
    top.add_argument("--mllm", help="another MLLM's spec")
    top.add_argument("--segmenter", help="another segmenter's spec")
    top.add_argument("--image", type=Path, default=DEMO)
    top.add_argument("--query", default=QUERY)
    top.add_argument("--cold", type=int, default=3, help="runs of the whole command")
    top.add_argument("--warm", type=int, default=5, help="answers after the first")
    return top


def measure(args: argparse.Namespace) -> None:
    """Measure and print; the whole command first, while this process is still small."""
    if args.cold < 1 or args.warm < 1:
        raise BadInput("--cold and --warm are at least 1")
    chosen = {"mllm": args.mllm, "segmenter": args.segmenter}
    command = ["--image", str(args.image), "--query", args.query, "--preset", args.preset]
    for name, spec in chosen.items():
        command += [f"--{name}", spec] if spec else []
    with tempfile.TemporaryDirectory(prefix="rsvp-bench-") as name:
        folder = Path(name)
        command += ["--out", str(folder / "cold")]
        whole = [cold(command) for _ in range(args.cold)]
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; preset {args.preset}\n")
        _print(f"cold: the whole command, median of {args.cold}", cold_rows(whole))

        from rsvp.pipeline import Pipeline

        pipeline = Pipeline.from_preset(args.preset, **chosen)
        stages = warm(pipeline, args.image, args.query, folder / "warm", args.warm)
        _print(f"\nwarm: one answer more, median of {args.warm}", warm_rows(stages))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    args = parser().parse_args(argv)
    begin()
    try:
        measure(args)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
