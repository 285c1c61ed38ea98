"""The help of every command as one page of Markdown.

python -m rsvp.cli.help docs/help.md             write it
python -m rsvp.cli.help --check docs/help.md     exit with 1 when it is out of date
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from rsvp.cli.main import app, main

_INTRODUCTION = """\
# Command line

<!-- Written by `python -m rsvp.cli.help docs/help.md`; edit the commands, not this page. -->
"""


def page() -> str:
    """The page, the same on every terminal."""
    commands = [[], *([command.name] for command in app.registered_commands if command.name)]
    return "\n".join([_INTRODUCTION, *(_section(words) for words in commands)])


def _section(words: list[str]) -> str:
    title = " ".join(["rsvp", *words])
    return f"## {title}\n\n```text\n{_help_of(words)}\n```\n"


def _help_of(words: list[str]) -> str:
    columns = {"COLUMNS": "102"}  # help leaves two of them free
    with patch.dict(os.environ, columns), contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*words, "--help"])
    return printed.getvalue().strip()


def run(
    arguments: Sequence[str], page: Callable[[], str] = page, module: str = "rsvp.cli.help"
) -> int:
    """The script of a generated page; returns the exit code."""
    return write_or_check(arguments, lambda path: {path: page()}, f"{module} [--check] PAGE.md")


def write_or_check(
    arguments: Sequence[str], files: Callable[[Path], Mapping[Path, str]], usage: str
) -> int:
    """The script of generated files; returns the exit code.

    Args:
        files: what there has to be for the path that the arguments give.
        usage: the module, and how it is called.
    """
    check, paths = "--check" in arguments, [a for a in arguments if a != "--check"]
    if len(paths) != 1:
        print(f"python -m {usage}", file=sys.stderr)
        return 2
    made = files(Path(paths[0]))
    old = [p for p, text in made.items() if not p.is_file() or p.read_text("utf-8") != text]
    for path in old:
        if check:
            command = f"python -m {usage.split(maxsplit=1)[0]} {paths[0]}"
            print(f"{path} is out of date: {command}", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
