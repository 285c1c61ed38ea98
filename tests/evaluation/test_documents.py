"""The files of a run: typed, versioned, with a JSON schema, readable in later versions."""

import json

import pytest
from rectangles import FakePipeline, write_scenes

from rsvp.errors import BadInput
from rsvp.evaluation.compare import compare
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.records import Record, read
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.summary import Summary


@pytest.fixture
def run(tmp_path):
    data = write_scenes(tmp_path / "data", 6)
    evaluate("scenes", data, FakePipeline(), tmp_path / "run", progress=False)
    return tmp_path / "run"


def lines_of(run):
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def write_records(run, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    (run / "records.jsonl").write_text(text)


@pytest.mark.parametrize("model", [Record, EvalConfig, Summary])
def test_every_document_has_a_json_schema_with_its_version(model):
    schema = model.model_json_schema(mode="serialization")
    assert json.loads(json.dumps(schema)) == schema
    assert schema["properties"]["schema_version"]["const"] == 1
    assert "official" not in schema["properties"]  # its values stand beside the summary's own


def test_a_runs_files_hold_the_version_and_the_keys_of_the_schemas(run):
    documents = {
        Record: lines_of(run)[0],
        EvalConfig: json.loads((run / "config.json").read_text()),
        Summary: json.loads((run / "summary.json").read_text()),
    }
    for model, document in documents.items():
        schema = model.model_json_schema(mode="serialization")
        assert document["schema_version"] == 1
        optional = {"text"} if model is Record else set()  # only where the path is scored
        assert schema["properties"].keys() - optional <= document.keys()
    assert documents[Summary].keys() - Summary.model_fields.keys() == {"seen", "unseen"}


def test_records_read_back_are_the_lines(run):
    assert [record.to_dict() for record in read(run / "records.jsonl")] == lines_of(run)


def test_a_run_of_an_earlier_version_is_resumed_and_compared(run, tmp_path):
    new_keys = ("schema_version", "raw_numbers")
    write_records(run, [{k: v for k, v in r.items() if k not in new_keys} for r in lines_of(run)])
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({k: config[k] for k in ("run", "environment")}))
    before = (run / "records.jsonl").read_bytes()
    pipeline = FakePipeline()
    evaluate("scenes", tmp_path / "data", pipeline, run, resume=True, progress=False)
    assert pipeline.asked == []
    assert (run / "records.jsonl").read_bytes() == before
    assert compare(run, run).overall.n == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "'schema_version' should be 1"),
        ({"masks": "none"}, "'masks' should be list"),
        ({"iou": None, "intersection": None}, "'intersection' should be int"),
        ({"failure": {"error": "E"}}, "'failure.message' is missing"),
    ],
)
def test_a_record_of_another_shape_is_refused_by_field(run, change, said):
    first, *others = lines_of(run)
    write_records(run, [{**first, **change}, *others])
    with pytest.raises(BadInput, match=rf"records.jsonl: the record of '000/0' is not .*: {said}"):
        list(read(run / "records.jsonl"))


def test_a_config_of_another_shape_is_refused_by_field(run):
    (run / "config.json").write_text('{"run": {"benchmark": "scenes"}, "environment": {}}')
    with pytest.raises(BadInput, match=r"config.json: not a run's: 'run.protocol' is missing"):
        EvalConfig.read(run)
    (run / "config.json").write_text("[]")
    with pytest.raises(BadInput, match=r"config.json: not a run's"):
        EvalConfig.read(run)
