"""Printing: results on stdout, everything else on stderr, control characters as escapes.

Colours are for terminals only, and not where NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import typer

from rsvp.errors import printable

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Print errors and JSON only, until this is called again."""
    global _quiet  # noqa: PLW0603
    _quiet = quiet


def print_out(text: str = "", *, marked: str = "", **style: Any) -> None:
    """A line of the result, or several; see `typer.style` for the style of `marked`, its start."""
    if not _quiet:
        print(_styled(marked, sys.stdout, style) + printable(text))


def print_err(text: str) -> None:
    if not _quiet:
        print(printable(text), file=sys.stderr)


def warn(text: str) -> None:
    if not _quiet:
        _print_marked("warning:", "yellow", text)


def error(text: str) -> None:
    _print_marked("error:", "red", text)


def as_json(value: Any) -> None:
    """One JSON object on stdout, in ASCII, so that no terminal's encoding can break it."""
    print(json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f"))


def _print_marked(mark: str, colour: str, text: str) -> None:
    print(_styled(mark, sys.stderr, {"fg": colour}), plain(text), file=sys.stderr)


def _styled(text: str, stream: TextIO, style: dict[str, Any]) -> str:
    text = printable(text)
    colours = bool(text) and stream.isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, **style) if colours and os.environ.get("TERM") != "dumb" else text


def plain(text: str) -> str:
    """A model's or a file's own words on one line, control characters as escapes."""
    return printable(" ".join(text.split()))
