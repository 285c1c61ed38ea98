"""The recipes in eval/: each of their commands is one that this rsvp understands."""

import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from rsvp import presets, registry
from rsvp.cli.main import app
from rsvp.evaluation import benchmarks
from rsvp.evaluation.runner import check

FOLDER = Path(__file__).parents[2] / "eval"
RECIPES = sorted(FOLDER.glob("*.toml"))
KEYS = {"benchmark", "notes", "download", "run", "reference"}


def test_every_benchmark_has_its_recipe():
    assert {file.stem for file in RECIPES} == set(registry.BUILT_IN["benchmark"])


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_what_to_get_and_what_to_run(file):
    recipe = tomllib.loads(file.read_text(encoding="utf-8"))
    assert recipe["benchmark"] == file.stem
    assert set(recipe) <= KEYS
    for download in recipe["download"]:
        assert {"what", "from", "place"} <= set(download)
        assert download.get("gigabytes", 1) > 0
    assert recipe["run"]
    exists = benchmarks.find(file.stem).target_exists()
    assert any("--target-may-be-absent" in note for note in recipe.get("notes", ())) is exists
    outs = [parsed(run["command"], recipe["benchmark"], run["preset"]) for run in recipe["run"]]
    assert len(outs) == len(set(outs))  # no run overwrites another
    for reference in recipe.get("reference", ()):
        numbers = [v for k, v in reference.items() if k not in ("who", "split")]
        assert reference["who"]
        assert numbers
        assert all(isinstance(number, float) for number in numbers)


def parsed(command, benchmark, preset):
    """The command as the parser takes it, without running it; where its results go."""
    program, name, *arguments = shlex.split(command)
    assert program == "rsvp"
    root = typer.main.get_command(app)
    context = root.commands[name].make_context(name, arguments)
    options = context.params
    assert options["name"] == benchmark
    assert options.get("target_exists") is None  # the benchmark's own default
    if name == "eval":
        assert options["preset"] == preset == presets.get(preset).name
        check(benchmark, options["protocol"], options["split"])
    return options.get("out")
