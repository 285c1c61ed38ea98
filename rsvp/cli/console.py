"""Printing: results on stdout, everything else on stderr, no control characters.

Colours are for terminals only, and not where NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import typer

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Print errors and JSON only, until this is called again."""
    global _quiet  # noqa: PLW0603
    _quiet = quiet


def print_out(text: str = "", *, marked: str = "", **style: Any) -> None:
    """A line of the result; see `typer.style` for the style of its beginning `marked`."""
    if not _quiet:
        print(_styled(marked, sys.stdout, style) + text)


def print_err(text: str) -> None:
    """A line for people, on stderr."""
    if not _quiet:
        print(text, file=sys.stderr)


def warn(text: str) -> None:
    """A warning, on stderr."""
    print_err(_styled("warning:", sys.stderr, {"fg": "yellow"}) + f" {plain(text)}")


def error(text: str) -> None:
    """An error, on stderr, printed whatever is asked for."""
    print(_styled("error:", sys.stderr, {"fg": "red"}) + f" {plain(text)}", file=sys.stderr)


def as_json(value: Any) -> None:
    """One JSON object on stdout, in ASCII, so that no terminal's encoding can break it."""
    print(json.dumps(value, indent=2, allow_nan=False))


def _styled(text: str, stream: TextIO, style: dict[str, Any]) -> str:
    colours = bool(text) and stream.isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, **style) if colours and os.environ.get("TERM") != "dumb" else text


def plain(text: str) -> str:
    """A model's or a file's own words on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
