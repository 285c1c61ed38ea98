"""Options that are the fields of a dataclass: declared once, the same in every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from rsvp.cli.main import app as rsvp_app
from rsvp.cli.options import flag, grouped, opt


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    width: Annotated[int, opt("N", "How wide.", min=1)]
    label: Annotated[str | None, opt("TEXT", "What it is called.", "--name")] = None


@dataclass(frozen=True, kw_only=True)
class LoudSizeOptions(SizeOptions):
    loud: Annotated[bool, flag("--loud", "Say it louder.", "-l")] = False


@grouped
def show(*, first: Annotated[str, opt("A", "The first.")], size: LoudSizeOptions) -> None:
    """Show it."""
    print(first, size)


app = typer.Typer(rich_markup_mode=None)
app.command()(show)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--width", "3"], "LoudSizeOptions(width=3, label=None, loud=False)"),
        (["--width", "3", "--name", "x", "-l"], "LoudSizeOptions(width=3, label='x', loud=True)"),
    ],
)
def test_a_function_gets_the_dataclass_of_its_options(words: list[str], printed: str) -> None:
    found = CliRunner().invoke(app, ["--first", "a", *words])
    assert (found.exit_code, found.stdout) == (0, f"a {printed}\n")


@pytest.mark.parametrize("words", [[], ["--width", "0"], ["--width", "3", "--label", "x"]])
def test_fields_are_checked_as_options_are(words: list[str]) -> None:
    assert CliRunner().invoke(app, ["--first", "a", *words]).exit_code == 2


def test_the_help_lists_the_options_in_the_place_of_their_parameter() -> None:
    lines = CliRunner().invoke(app, ["--help"]).stdout.splitlines()
    options = [line.split()[0] for line in lines if line.strip().startswith("-")]
    assert options[:3] == ["--first", "--width", "--name"]
    assert "Show it." in "".join(lines)


def test_an_option_of_several_commands_means_the_same_in_each() -> None:
    commands: Any = typer.main.get_command(rsvp_app)
    asking = [commands.commands[n] for n in ("segment", "answer", "trace", "batch", "eval")]
    own = {"formats", "zoom", "looks", "out", "query"}  # what each says in its own way
    said: dict[str, set[tuple[str, str, str]]] = {}
    for command in asking:
        for one in command.params:
            said.setdefault(one.name, set()).add((one.help, str(one.default), str(one.opts)))
    assert {name for name, ways in said.items() if len(ways) > 1} <= own
