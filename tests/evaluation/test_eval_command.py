"""The options of `rsvp eval` reach the run."""

import json

import pytest
from rectangles import write_scenes
from staged import Server, pipeline

from rsvp.cli.main import main
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation import benchmarks
from rsvp.evaluation.benchmarks import masks
from rsvp.pipeline import Pipeline


@pytest.fixture
def servers(monkeypatch):
    """Every pipeline that a command makes has the next of these reasoners."""
    waiting = [Server(0.01, {1: MLLMFailed("overloaded")}), Server()]
    monkeypatch.setattr(Pipeline, "from_preset", lambda *_, **__: pipeline(waiting.pop(0)))
    return list(waiting)


def test_failed_samples_are_asked_again_on_request(tmp_path, servers, capsys):
    data = write_scenes(tmp_path / "data", 4)
    command = ["eval", "scenes", "--data", str(data), "--out", str(tmp_path / "out"), "--json"]
    assert main([*command, "--concurrency", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 1
    assert servers[0].busiest == 2
    assert main([*command, "--retry-failed"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 0
    assert servers[1].asked == [1]
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("benchmark", "default"),
    [("reasonseg", True), ("refcoco", True), ("refcoco+", True), ("refcocog", True),
     ("grefcoco", False), ("scenes", False), ("seginw", False), ("vrt", False)],
)  # fmt: skip
def test_every_target_exists_in_some_benchmarks(benchmark, default):
    found = benchmarks.find(benchmark)
    assert found.target_exists() is default
    assert found.target_exists(False) is False
    if benchmark in ("grefcoco", "scenes"):
        with pytest.raises(BadInput, match="queries without a target"):
            found.target_exists(True)
    else:
        assert found.target_exists(True) is True


def test_the_default_reaches_the_pipeline_and_is_recorded(tmp_path, monkeypatch):
    given = []

    def make(*_, **options):
        given.append((options["target_exists"], options["options"]))
        return pipeline(Server())

    monkeypatch.setattr(Pipeline, "from_preset", make)
    data = write_scenes(tmp_path / "data", 1)
    monkeypatch.setattr(masks.Scenes, "has_absent", False)
    limit = ["--option", "max_tokens=7"]
    for number, option in enumerate(([], ["--target-may-be-absent", *limit])):
        out = tmp_path / f"out{number}"
        assert main(["eval", "scenes", "--data", str(data), "--out", str(out), *option]) == 0
    assert given == [(True, {}), (False, {"max_tokens": "7"})]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "spark"], "the engine is local or ray, found 'spark'"),
        (["--target-exists"], "this benchmark has queries without a target"),
        (["--concurrency", "-1"], "Invalid value for '--concurrency'"),
        (["--segmenters", "0"], "Invalid value for '--segmenters'"),
        (["--protocol", "lisa"], "unknown protocol 'lisa'; known here: scenes"),
        (["--split", "testA"], "unknown split 'testA'"),
    ],
)
def test_options_that_mean_nothing_are_one_line(tmp_path, options, said, capsys):
    data = write_scenes(tmp_path / "data", 1)
    arguments = ["eval", "scenes", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*arguments, *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_not_understood_is_said_and_is_not_no_target(tmp_path, monkeypatch, capsys):
    strange = '{"targets": [], "understood": false, "reason": "no scene"}'
    made = pipeline(Server(replies=dict.fromkeys(range(3), strange)))
    monkeypatch.setattr(Pipeline, "from_preset", lambda *_, **__: made)
    data, out = write_scenes(tmp_path / "data", 3), tmp_path / "out"
    assert main(["eval", "scenes", "--data", str(data), "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert (summary["failed"], summary["not_understood"]) == (0, 3)
    assert (summary["absent_detected"]["mean"], summary["false_absent"]["mean"]) == (0, 0)
    assert "3 samples, 0 failed, 3 not understood and scored as empty predictions; " in said.err
    assert "warning: 3 of 3 samples were not understood" in said.err
    assert "for photographs: --preset " in said.err
    assert "<b>3</b><span>not understood: " in (out / "report.html").read_text("utf-8")
