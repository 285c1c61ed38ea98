"""What `rsvp segment`, `answer` and `trace` share: their image, their folder, what they print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsvp import presets, registry
from rsvp.cli import console, options
from rsvp.errors import BadInput

if TYPE_CHECKING:
    from rsvp.result import Result
    from rsvp.types import Box

DEFAULT_OUT = "rsvp-out"
STDIN = "-"


def source(image: str) -> str | bytes:
    """The image of `--image`: its path, or its bytes from standard input."""
    if image == STDIN:
        if sys.stdin.isatty():
            raise BadInput("--image - reads an image from standard input: cat a.png | rsvp …")
        return options.read_stdin()
    if Path(image).is_dir():
        batch = "batch" in registry.names("command")
        instead = f"rsvp batch --input {image} takes folders" if batch else "give one image of it"
        raise BadInput(f"{image} is a folder, not an image file; {instead}")
    return image


def folder(out: str | None, as_json: bool) -> Path | None:
    """Where the files go, None for nowhere; BadInput where the name is empty."""
    if out is not None and not out.strip():
        raise BadInput("--out is the name of a folder, found an empty one")
    if out is None and as_json:
        return None
    return Path(out or DEFAULT_OUT)


def no_answer(result: Result) -> str:
    """Why nothing found does not mean that nothing is there; empty where it does mean that."""
    from rsvp.pipeline import UNSURE

    if not result.no_target or result.reasoning.proposals:
        return ""
    if words := result.reasoning.unknown_words:
        return f"no answer: this model does not know {', '.join(map(repr, words))}"
    if not result.reasoning.understood or any(w.startswith(UNSURE) for w in result.warnings):
        return "no answer: this model cannot read images of this kind, so nothing is known of it"
    return ""


def pixels(box: Box) -> str:
    """A box in whole pixels."""
    return ",".join(f"{value:.0f}" for value in box.xyxy)


def print_verdicts(result: Result) -> None:
    """What verification decided, but for what was right as it was."""
    done = {"correct": "corrected", "reject": "rejected", "add": "added"}
    for one in result.verdicts:
        if one.verdict in done:
            name = console.plain(one.label) or f"target {one.target}"
            why = f": {console.plain(one.reason)}" if one.reason else ""
            console.print_out(f"round {one.round}: {name} {done[one.verdict]}{why}")


def print_written(paths: Sequence[Path]) -> None:
    """Every file that was written, but of numbered pictures only the folder."""
    if paths:
        shown = dict.fromkeys(str(p.parent if p.stem.isdecimal() else p) for p in paths)
        console.print_out()
        console.print_out(f"written: {', '.join(map(console.plain, shown))}")


def warn(result: Result, preset: presets.Preset) -> None:
    """The warnings on stderr, and another preset where the default one was unsure."""
    from rsvp.pipeline import UNSURE

    for warning in result.warnings:
        console.warn(warning)
    unsure = any(warning.startswith(UNSURE) for warning in result.warnings)
    if unsure and preset.name == presets.DEFAULT:
        better = presets.get(presets.PHOTOGRAPHS)
        console.print_err(
            f"for photographs: --preset {better.name} ({presets.needs(better)}); "
            "`rsvp models` lists what can run here, and --box needs no reasoner"
        )
