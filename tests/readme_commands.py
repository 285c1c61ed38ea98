"""The README's commands as a reader would type them, and what each of them is expected to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:rsvp|python -m|pip install|make|accelerate) [^`]+)`")

# Not run, as they concern something else than the installed program.
ELSEWHERE = {
    "make ": "a checkout",
    "pip install ": "the package registry",
    "python -m eval.": "a checkout",
    "accelerate launch ": "several GPUs",
}
# Run as far as they get without what is not here: exit code, and what the error says.
LACKING = {
    "--preset api": (4, "sam2.1_hiera_large.pt"),
    "rsvp train --data refcoco": (2, "data/refcoco"),
    "vlsm:runs/vlsm/best": (4, "no VLSM weights"),
    "--preset local": (4, "hf download "),
}
# Written short, or too long for a test.
TYPED = {"rsvp prompts NAME": "rsvp prompts full/boxes.cot", "--n 500": "--n 2"}


def python_blocks() -> list[str]:
    """The Python of the README."""
    return [text for kind, text in _BLOCK.findall(README.read_text("utf-8")) if kind == "python"]


def commands() -> Iterator[str]:
    """Every command, in order: the lines of shell blocks, and what the text names in passing."""
    text = README.read_text(encoding="utf-8")
    for found in re.finditer(f"{_BLOCK.pattern}|{_INLINE.pattern}", text, _BLOCK.flags):
        kind, block, inline = found.groups()
        lines = block.replace("\\\n", " ").splitlines() if kind == "bash" else [inline or ""]
        yield from (line for line in map(_typed, lines) if line)


def _typed(line: str) -> str:
    """The line without its comment, as it is typed here."""
    line = shlex.join(shlex.split(line, comments=True))
    for written, typed in TYPED.items():
        line = line.replace(written, typed)
    return line
