"""Exports: what a benchmark's own evaluation reads, and what `rsvp score` reads back."""

import json

import pytest
from benchmark_folders import line, rectangle, write_seginw_set
from rectangles import A, FakePipeline, write_scenes

from rsvp.cli.main import main
from rsvp.errors import BadInput
from rsvp.evaluation.export import export
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.score import score

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
MASK = rectangle(0, 0, 10, 10)


def test_seginw_becomes_a_results_file_a_set_that_scores_the_same(tmp_path):
    data = write_seginw_set(tmp_path / "data", "Cows", [(1, 1, MASK)], categories=("cow",))
    write_seginw_set(data, "Phones", [(2, 1, MASK)], categories=("phone",))
    records = [
        line("Cows/1/1", MASK, scores=[0.5]),
        line("Cows/2/1", scores=[]),
        line("Phones/2/1", rectangle(0, 0, 5, 10), scores=[None]),
    ]
    files = export("seginw", records, tmp_path / "out")
    assert [file.name for file in files] == ["seginw_Cows_val.json", "seginw_Phones_val.json"]
    found = json.loads(files[0].read_text())
    assert found == [
        {"image_id": 1, "category_id": 1, "segmentation": records[0]["masks"][0], "score": 0.5}
    ]
    assert score("seginw", data, tmp_path / "out").to_dict()["ap"]["Cows"] == pytest.approx(100)


def test_ids_of_a_single_set_need_its_name(tmp_path):
    records = [line("1/1", MASK, scores=[0.5])]
    (file,) = export("seginw", records, tmp_path, data=tmp_path / "Cows")
    assert file.name == "seginw_Cows_val.json"
    with pytest.raises(BadInput, match="'1/1' is not a sample of a set"):
        export("seginw", records, tmp_path)


@pytest.mark.parametrize("sample_id", ["../Cows/1/1", "a/b/1/1", "Cows/x/1", "Cows"])
def test_an_id_cannot_lead_out_of_the_folder(tmp_path, sample_id):
    with pytest.raises(BadInput, match="of"):
        export(
            "seginw", [line(sample_id, MASK, scores=[1])], tmp_path / "out", data=tmp_path / "Cows"
        )
    assert list(tmp_path.rglob("*.json")) == []


def lines_of(file):
    return [json.loads(text) for text in file.read_text().splitlines()]


def test_replies_to_questions_become_answers(tmp_path):
    records = [{"id": "7", "raw": "<think>hm</think>B"}, {"id": "8", "raw": "long", "text": "A"}]
    (file,) = export("vstar", records, tmp_path)
    assert lines_of(file) == [
        {"question_id": "7", "text": "<think>hm</think>B"},
        {"question_id": "8", "text": "A"},
    ]


def test_masks_without_a_path_are_all_the_answer_of_vrt(tmp_path):
    (file,) = export("vrt", [line("k", MASK, MASK)], tmp_path)
    (found,) = lines_of(file)
    assert found["text"] == "<answer>[SEG] [SEG]</answer>"


def test_a_run_is_exported_and_scores_as_it_did(tmp_path, capsys):
    data = write_scenes(tmp_path / "data", 6)
    summary = evaluate("scenes", data, FakePipeline({"query 1": [A]}), tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    (file,) = capsys.readouterr().out.split()
    found = score("scenes", data, file).to_dict()
    assert found["giou"] == summary.to_dict()["giou"]
    assert found["ciou"] == summary.to_dict()["ciou"]


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "config.json" in capsys.readouterr().err
    with pytest.raises(BadInput, match="a record is not complete"):
        export("scenes", [{"id": "a"}], tmp_path / "out")
