"""Printing: results on stdout, everything else on stderr, control characters as escapes."""

from __future__ import annotations

import json
import sys
from typing import Any

from rsvp.errors import printable


def print_out(text: str = "") -> None:
    """A line of the result, or several."""
    print(printable(text))


def print_err(text: str) -> None:
    """A line for people, or several, on stderr."""
    print(printable(text), file=sys.stderr)


def as_json(value: Any) -> None:
    """One JSON object on stdout, in ASCII, so that no terminal's encoding can break it."""
    print(json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f"))


def plain(text: str) -> str:
    """A model's or a file's own words on one line, control characters as escapes."""
    return printable(" ".join(text.split()))
