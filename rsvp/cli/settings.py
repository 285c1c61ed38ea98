"""Defaults of the user: `RSVP_…` variables, which are options of `rsvp.cli.options`, and a file.

The file is TOML. A key is an option's name without dashes; at the top it holds for every command
that has the option, in a table for the command of that name:

    preset = "local"

    [segment]
    format = "json,coco"

The command line wins over the environment, the environment over the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from rsvp import presets
from rsvp.errors import BadInput
from rsvp.platform.files import readable

FILE = "RSVP_CONFIG"
PREFIX = "RSVP_"
VARIABLES = (
    "RSVP_PRESET", "RSVP_MLLM", "RSVP_STRATEGY", "RSVP_SEGMENTER", "RSVP_FRAME", "RSVP_BUDGET",
    presets.API_MODEL, FILE,
)  # fmt: skip
TOKEN = "RSVP_TOKEN"  # of `rsvp serve`; never shown


def path() -> Path:
    named = os.environ.get(FILE, "").strip()
    return Path(named) if named else Path(typer.get_app_dir("rsvp"), "config.toml")


def read() -> dict[str, Any]:
    """The file's content; empty where there is none.

    Raises:
        BadInput: it is not TOML, or the one that `RSVP_CONFIG` names is missing.
    """
    file = path()
    if not file.is_file() and not os.environ.get(FILE, "").strip():
        return {}
    try:
        with readable(file):
            return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8 is a ValueError too
        raise BadInput(f"{file}: broken TOML: {error}") from None


def default_map(app: typer.Typer) -> dict[str, dict[str, Any]] | None:
    """The file's defaults as click takes them: command -> parameter -> value.

    Raises:
        BadInput: see `read`; or a key that is no command's option.
    """
    content = read()
    if not content:
        return None
    group: Any = typer.main.get_command(app)
    found: dict[str, dict[str, Any]] = {name: {} for name in group.commands}
    for key, value in content.items():
        commands = [key] if isinstance(value, dict) else list(group.commands)
        pairs = value.items() if isinstance(value, dict) else [(key, value)]
        for option, default in pairs:
            takers = [name for name in commands if option in _options(group, name)]
            if not takers:
                where = f"[{key}] " if isinstance(value, dict) else ""
                raise BadInput(f"{path()}: {where}{option} is no option of a command (see --help)")
            for name in takers:
                found[name][_options(group, name)[option]] = default
    return found


def _options(group: Any, command: str) -> dict[str, str]:
    """The options of a command by their names without dashes -> the names of the parameters."""
    parameters = group.commands[command].params if command in group.commands else ()
    return {o.lstrip("-"): p.name for p in parameters for o in p.opts if o.startswith("--")}


def in_force(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """What is set now: ``(name, value, problem)``; no value of a variable that is not rsvp's."""
    for name in sorted(n for n in environment if n.startswith(PREFIX) and environment[n].strip()):
        if name == TOKEN:
            yield name, "(set)", ""
        elif name in VARIABLES:
            yield name, environment[name], ""
        else:
            yield name, "", f"no setting of rsvp; there are {', '.join(VARIABLES)}"
    for key, value in read().items():
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        for option, default in pairs:
            yield ".".join(filter(None, (key, option))), f"{default} in {path()}", ""
