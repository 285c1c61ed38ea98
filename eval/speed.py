"""Where the time of one `rsvp segment` goes.

    python -m eval.speed [--preset NAME] [--mllm SPEC] [--segmenter SPEC]
                         [--image PATH] [--query TEXT] [--cold N] [--warm N]

Cold is the whole command in a process of its own: wall time and peak memory. Warm is every stage in
one process, after a first answer that loaded the models. Medians; docs/speed.md explains the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import rsvp
from eval._common import make_parser, run
from rsvp import presets
from rsvp.cli.options import begin
from rsvp.errors import BadInput, RsvpError

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

DEMO = Path(rsvp.__file__).parent / "embedded" / "demo.png"
QUERY = "what would you cut the bread with?"
FORMATS = ("json", "overlay", "png")  # what `rsvp segment` writes
STAGES = (
    "load the image", "visual prompt", "reason", "read the reply", "encode", "segment", "write",
)  # fmt: skip
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in getrusage's ru_maxrss


class CommandFailed(RsvpError):
    """The measured command failed; with its own message and exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.exit_code = code


@dataclass(frozen=True, slots=True)
class ColdRun:
    """One run of the command.

    Attributes:
        wall: seconds from its start to its end.
        memory: its peak resident set, in bytes.
        cpu: seconds of CPU time, of all its threads.
        result: the command's own.
    """

    wall: float
    memory: int
    cpu: float
    result: Mapping[str, Any]

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds of the pipeline's stages."""
        return self.result["timings"]  # type: ignore[no-any-return]

    @property
    def outside(self) -> float:
        """Seconds outside the pipeline: Python's start, the image, writing."""
        return self.wall - self.timings["total"]


@dataclass(frozen=True, slots=True)
class WarmRun:
    """One answer in a process that has answered before.

    Attributes:
        seconds: stage -> seconds, in the order of `STAGES`, then ``total``.
        tokens: that the MLLM wrote.
    """

    seconds: Mapping[str, float]
    tokens: int


def cold_run(command: Sequence[str], program: Sequence[str] = ("-m", "rsvp", "segment")) -> ColdRun:
    """Run `rsvp segment` with these options and --json in a process of its own.

    This process should be small: on Linux a child's peak memory begins with its parent's.

    Raises:
        CommandFailed: it ended with another exit code than 0.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *program, *command, "--json"], stdout=out, stderr=err
        )
        # subprocess does not return the child's resource usage; wait4 does.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code:
            lines = _text(err).strip().splitlines()
            line = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
            raise CommandFailed(line, code if code > 0 else 1)
        result = json.loads(_text(out))
    cpu = usage.ru_utime + usage.ru_stime
    return ColdRun(wall, usage.ru_maxrss * _RSS_UNIT, cpu, result)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def warm_runs(
    pipeline: Pipeline, image: Path, query: str, folder: Path, runs: int
) -> list[WarmRun]:
    """Answer once to load everything, then `runs` times with every stage timed.

    Raises:
        BadInput: the query names nothing in the image, so that the segmenter has no work.
    """
    first = pipeline.segment(image, query)
    if first.no_target:
        raise BadInput(f"{query!r} names nothing in {image}: the segmenter would have no work")
    return [_warm_run(pipeline, image, query, folder) for _ in range(runs)]


def _warm_run(pipeline: Pipeline, path: Path, query: str, folder: Path) -> WarmRun:
    """The pipeline's own answer, by parts that time their methods; nothing is cached before."""
    from rsvp import writers
    from rsvp.images import load_image
    from rsvp.pipeline import Pipeline as Timed

    timer = StageTimer()
    mllm, strategy, config = pipeline.mllm, pipeline.strategy, pipeline.prompt_config
    if mllm is None or strategy is None:
        raise BadInput("there is no MLLM to measure")
    parts: tuple[Any, Any, Any] = (
        TimedMethods(mllm, timer, {"reply": "reason"}),
        TimedMethods(strategy, timer, {"view": "visual prompt", "read": "read the reply"}),
        TimedMethods(pipeline.segmenter, timer, {"encode": "encode", "masks": "segment"}),
    )
    timed = Timed(*parts, cot=config.cot, frame=config.frame, max_reasks=config.max_reasks)
    started = time.perf_counter()
    image = timer.timed("load the image", load_image)(path)
    result = timed.segment(image, query)
    timer.timed("write", writers.write)(result, folder, FORMATS)
    total = time.perf_counter() - started
    seconds = {stage: timer.seconds[stage] for stage in STAGES}
    return WarmRun({**seconds, "total": total}, result.usage.completion_tokens)


class StageTimer:
    """Sums up seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls counted as this stage."""

        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - started

        return call


class TimedMethods:
    """A part of the pipeline with some methods timed; everything else is the part's own."""

    def __init__(self, part: object, timer: StageTimer, stages: Mapping[str, str]) -> None:
        self._part, self._timer, self._stages = part, timer, stages

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        return self._timer.timed(self._stages[name], value) if name in self._stages else value


def cold_rows(runs: Sequence[ColdRun]) -> Iterator[tuple[str, str]]:
    """The rows about the whole command."""
    yield "wall", _median_ms(run.wall for run in runs)
    yield "peak memory", f"{max(run.memory for run in runs) / 1e6:8.0f} MB"
    yield "  outside the pipeline", _median_ms(run.outside for run in runs)
    for stage in ("load", "reason", "encode", "segment"):
        yield f"  {stage}", _median_ms(run.timings.get(stage, 0.0) for run in runs)


def warm_rows(runs: Sequence[WarmRun]) -> Iterator[tuple[str, str]]:
    """The rows about every stage."""
    for stage in runs[0].seconds:
        yield stage, _median_ms(run.seconds[stage] for run in runs)
        if stage == "reason" and all(run.tokens for run in runs):
            each = _median_ms(run.seconds[stage] / run.tokens for run in runs)
            yield "  per token", f"{each}, {runs[0].tokens} tokens"


def _median_ms(seconds: Iterable[float]) -> str:
    return f"{statistics.median(seconds) * 1000:8.1f} ms"


def print_rows(title: str, rows: Iterator[tuple[str, str]]) -> None:
    """Print a table of names and values below its title."""
    print(title)
    for name, value in rows:
        print(f"  {name:<24}{value}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("speed", __doc__)
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--mllm", help="another MLLM's spec")
    parser.add_argument("--segmenter", help="another segmenter's spec")
    parser.add_argument("--image", type=Path, default=DEMO)
    parser.add_argument("--query", default=QUERY)
    parser.add_argument("--cold", type=int, default=3, help="runs of the whole command")
    parser.add_argument("--warm", type=int, default=5, help="answers after the first")
    args = parser.parse_args(argv)
    begin()
    return run(_run, args)


def _run(args: argparse.Namespace) -> None:
    """Measure and print; the whole command first, while this process is still small."""
    if args.cold < 1 or args.warm < 1:
        raise BadInput("--cold and --warm are at least 1")
    chosen = {"mllm": args.mllm, "segmenter": args.segmenter}
    command = ["--image", str(args.image), "--query", args.query, "--preset", args.preset]
    for name, spec in chosen.items():
        command += [f"--{name}", spec] if spec else []
    with tempfile.TemporaryDirectory(prefix="rsvp-speed-") as name:
        folder = Path(name)
        command += ["--out", str(folder / "cold")]
        cold = [cold_run(command) for _ in range(args.cold)]
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; preset {args.preset}\n")
        print_rows(f"cold: the whole command, median of {args.cold}", cold_rows(cold))

        from rsvp.pipeline import Pipeline

        pipeline = Pipeline.from_preset(args.preset, **chosen)
        warm = warm_runs(pipeline, args.image, args.query, folder / "warm", args.warm)
        print_rows(f"\nwarm: one answer more, median of {args.warm}", warm_rows(warm))


if __name__ == "__main__":
    raise SystemExit(main())
