"""Printing: results on stdout, everything else on stderr, no control characters."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_out(text: str = "") -> None:
    """A line of the result."""
    print(text)


def print_err(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr)


def as_json(value: Any) -> None:
    """One JSON object on stdout, in ASCII, so that no terminal's encoding can break it."""
    print(json.dumps(value, indent=2, allow_nan=False))


def plain(text: str) -> str:
    """A model's or a file's own words on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
