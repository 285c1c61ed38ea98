"""A benchmark from a plug-in: one file and an entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_folders import line, rectangle, write_lines
from rectangles import A, FakePipeline, filled, write_scenes

from rsvp import registry
from rsvp.cli.main import main
from rsvp.evaluation.compare import compare
from rsvp.evaluation.export import export_run
from rsvp.evaluation.runner import evaluate

ROOT = Path(__file__).parents[2]
PLUGIN = '''
from rsvp.datasets.scenes import SceneDataset
from rsvp.evaluation.benchmarks.masks import MaskBenchmark
from rsvp.evaluation.metrics import SCENES


class Cups(MaskBenchmark):
    """Scenes, and how many samples have any overlap with the truth."""

    reader = SceneDataset
    protocols = (SCENES,)
    splits = ()
    scores_more = True
    export_file = "cups.jsonl"

    def more_numbers(self, outcomes):
        return {"touched": sum(one.overlap.intersection > 0 for one in outcomes)}

    def export_line(self, record):
        return {"cup": record["id"]}
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed distribution with the entry point ``benchmark.cups``."""
    site = tmp_path / "site"
    (site / "rsvp_cups.dist-info").mkdir(parents=True)
    (site / "rsvp_cups.py").write_text(PLUGIN)
    (site / "rsvp_cups.dist-info" / "METADATA").write_text("Name: rsvp-cups\nVersion: 1\n")
    (site / "rsvp_cups.dist-info" / "entry_points.txt").write_text(
        "[rsvp.backends]\nbenchmark.cups = rsvp_cups:Cups\n"
    )
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("rsvp_cups", None)


def test_a_plugged_in_benchmark_is_run_scored_exported_and_compared(plugin, tmp_path, capsys):
    assert "cups" in registry.names("benchmark")
    data, out = write_scenes(tmp_path / "data", 6), tmp_path / "run"
    summary = evaluate("cups", data, FakePipeline({"query 1": [A]}), out, progress=False)
    assert summary.to_dict()["touched"] == 4
    file = write_lines(tmp_path / "p.jsonl", [line("000/0", filled(A))])
    command = ["score", "cups", "--data", str(data), "--predictions", str(file), "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["touched"], found["by_kind"]["name"]["touched"]) == (1, 1)
    (exported,) = export_run(out, tmp_path / "exported")
    assert exported.name == "cups.jsonl"
    assert json.loads(exported.read_text().splitlines()[0]) == {"cup": "000/0"}
    assert compare(out, out).overall.n == 6


def test_a_fresh_process_finds_it_and_knows_its_mistakes(plugin, tmp_path):
    data = write_scenes(tmp_path / "data", 1)
    file = write_lines(tmp_path / "p.jsonl", [line("000/0", rectangle(0, 0, 1, 1))])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugin), str(ROOT)])}
    command = [sys.executable, "-m", "rsvp", "score", "cups", "--data", str(data)]
    command += ["--predictions", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "p.jsonl: line 1, id '000/0': the mask is of size [20, 30]" in done.stderr
    command[4] = "cupz"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "unknown benchmark 'cupz', did you mean 'cups'?" in done.stderr
