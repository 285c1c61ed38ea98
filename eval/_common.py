"""What the experiments share: their command line and how they report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping

from rsvp.errors import RsvpError


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m eval.NAME`; the description is shown as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m eval.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(work: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run an experiment; the exit code, after one line on stderr where it fails."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        work(args)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def show_progress(done: int, total: int) -> None:
    """A counter of images on stderr, if that is a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr)


def format_interval(interval: Mapping[str, float], digits: int = 3) -> str:
    """``mean [low, high]``."""
    mean, low, high = (f"{interval[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
