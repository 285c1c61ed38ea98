"""The recipes in eval/: each of their commands is one that this rsvp understands, and can run."""

import json
from pathlib import Path

import pytest
import typer
from rectangles import write_scenes
from staged import pipeline

from rsvp import presets, registry
from rsvp.cli import evaluate
from rsvp.cli.main import app, main
from rsvp.evaluation import benchmarks, recipes
from rsvp.pipeline import Pipeline

RUNS = [
    (name, run) for name in recipes.names() for run in recipes.load(name).run
    if run.arguments[0] == "eval"
]  # fmt: skip


def test_every_benchmark_has_its_recipe():
    assert set(recipes.names()) == set(registry.BUILT_IN["benchmark"]) - {*evaluate.OWN}


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_what_to_get_and_what_to_run(name):
    recipe = recipes.load(name)
    assert recipe.benchmark == name
    exists = benchmarks.find(name).target_exists()
    assert any("--target-may-be-absent" in note for note in recipe.notes) is exists
    for run in recipe.run:
        parsed(run.arguments, name, run.preset)
    for reference in recipe.reference:
        numbers = [v for k, v in reference.items() if k not in ("who", "split")]
        assert reference["who"]
        assert numbers
        assert all(isinstance(number, float) for number in numbers)


def test_every_run_has_a_name_of_its_own_which_is_no_recipes():
    names = [run.name for _, run in RUNS]
    assert len(names) == len(set(names))
    assert not set(names) & set(recipes.names())


def parsed(arguments, benchmark, preset):
    """Parse the command without running it."""
    command, *rest = arguments
    root = typer.main.get_command(app)
    options = root.commands[command].make_context(command, rest).params
    assert options["name"] == benchmark
    assert options.get("target_exists") is None  # the benchmark's own default
    if command == "eval":
        assert options["preset"] == preset == presets.get(preset).name
        found = benchmarks.find(benchmark)
        found.protocol(options["protocol"])
        found.check_split(options["split"])


@pytest.mark.parametrize(("name", "run"), RUNS, ids=[run.name for _, run in RUNS])
def test_without_the_data_it_says_how_to_get_it(name, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--recipe", run.name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"there is no {run.arguments[run.arguments.index('--data') + 1]}; get " in said
    assert main(["eval", "--recipe", name, "--preset", run.preset]) == 2
    assert said.removeprefix("error: ").split(";")[0] in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with the data of the recipe `scenes`, and a scripted pipeline."""
    made = []

    def make(preset, **options):
        made.append((preset.name, options["language"]))
        return pipeline()

    monkeypatch.setattr(Pipeline, "from_preset", make)
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    write_scenes(Path("data/scenes"), 6)
    return made


def test_a_recipe_runs_by_name_and_the_command_line_wins(here, capsys):
    assert main(["eval", "--recipe", "scenes", "--limit", "4", "--language", "de", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["n"] == 4
    assert said.err.startswith("scenes-embedded: the table of eval/README.md\n")
    assert here == [("embedded", "de")]
    config = json.loads(Path("runs/scenes-embedded/config.json").read_text("utf-8"))
    assert config["run"]["settings"]["preset"] == "embedded"
    assert main(["eval", "--recipe", "scenes-embedded", "--out", "other", "--limit", "1"]) == 0
    assert len(Path("other/records.jsonl").read_text("utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "nothing"], "unknown recipe 'nothing'"),
        (["--recipe", "scenes", "--preset", "api"], "no run with --preset api: --preset embedded"),
        (["scenes", "--recipe", "scenes"], "leave out NAME"),
        (["--recipe", "reasonseg", "--out", "x"], "are of one run; --recipe takes reasonseg-val-"),
        (["--data", "data/scenes", "--out", "x"], "a run needs NAME, --data and --out"),
        (["scenes", "--data", "data/scenes"], "a run needs NAME, --data and --out"),
    ],
)
def test_what_cannot_be_run_is_one_line(words, said, here, capsys):
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err
