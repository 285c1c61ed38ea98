"""Two runs compared: numbers by hand, flips, and runs that cannot be compared."""

import json
import shutil

import pytest
from rectangles import A, B, FakePipeline, write_scenes

from rsvp.cli.main import main
from rsvp.errors import BadInput
from rsvp.evaluation.compare import compare
from rsvp.evaluation.runner import evaluate

# Six queries, in turn: A is asked for, A and B, nothing. IoU 1, .25 (1 with both), 1 for nothing.
WORSE = {
    "query 0": [A],
    "query 1": [A],
    "query 2": [A],
    "query 3": [],
    "query 4": [A],
    "query 5": [],
}
BETTER = {**WORSE, "query 2": [], "query 3": [A], "query 0": [], "query 4": [A, B]}


@pytest.fixture
def data(tmp_path):
    return write_scenes(tmp_path / "data", 6)


@pytest.fixture
def runs(data, tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    for folder, answers in zip(folders, (WORSE, BETTER), strict=True):
        evaluate("scenes", data, FakePipeline(answers), folder, oracle=False, progress=False)
    return folders


def test_differences_are_b_minus_a_overall_and_by_kind(runs):
    found = compare(*runs)
    assert found.overall.n == 6
    assert found.overall.a == pytest.approx((1 + 0.25 + 0 + 0 + 0.25 + 1) / 6)
    both = 256 / 320  # B's mask is three quarters of its box
    assert found.overall.b == pytest.approx((0 + 0.25 + 1 + 1 + both + 1) / 6)
    gain = found.overall.giou
    assert gain.mean == pytest.approx(found.overall.b - found.overall.a)
    assert gain.low <= gain.mean <= gain.high
    kinds = {kind: one.giou.mean for kind, one in found.by_kind.items()}
    assert kinds == pytest.approx({"name": 0.0, "all": (both - 0.25) / 2, "absent": 0.5})


def test_what_only_one_run_found_is_listed_with_both_ious(runs):
    found = compare(*runs)
    gained = [(f.id, f.iou_a, f.iou_b) for f in found.gained]
    assert gained == [("002/0", 0, 1), ("003/0", 0, 1), ("004/0", 0.25, 0.8)]
    assert [(f.id, f.iou_a, f.iou_b) for f in found.lost] == [("000/0", 1, 0)]


def test_a_run_is_as_good_as_itself(runs):
    found = compare(runs[0], runs[0])
    assert found.overall.giou.mean == 0
    assert found.overall.giou.better == 0.5
    assert (found.gained, found.lost) == ([], [])


def test_a_steady_gain_has_a_verdict_and_a_mixed_one_has_none(tmp_path, data, capsys):
    for name, answers in (("none", {f"query {i}": [] for i in range(6)}), ("best", BETTER)):
        evaluate("scenes", data, FakePipeline(answers), tmp_path / name, progress=False)
    evaluate("scenes", data, FakePipeline(WORSE), tmp_path / "worse", progress=False)
    assert main(["compare", str(tmp_path / "worse"), str(tmp_path / "best")]) == 0
    assert "Undecided: gIoU of B +" in capsys.readouterr().out
    nothing = {f"query {i}": [A] if i % 3 == 2 else [] for i in range(6)}
    evaluate("scenes", data, FakePipeline(nothing), tmp_path / "zero", progress=False)
    assert main(["compare", str(tmp_path / "zero"), str(tmp_path / "best")]) == 0
    shown = capsys.readouterr().out
    assert "B is better" in shown
    assert "4 found by B only (IoU >= 0.5):" in shown
    assert main(["compare", str(tmp_path / "best"), str(tmp_path / "zero")]) == 0
    assert "A is better" in capsys.readouterr().out


def test_the_json_has_everything(runs, capsys):
    assert main(["compare", str(runs[0]), str(runs[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["giou"]) == {"mean", "low", "high", "better"}
    assert found["by_kind"]["name"]["n"] == 2
    assert found["gained"][0] == {"id": "002/0", "kind": "absent", "iou_a": 0.0, "iou_b": 1.0}


# ---------------------------------------------------------------- refusals


def test_runs_of_other_data_are_refused(runs, tmp_path):
    other = write_scenes(tmp_path / "other", 7)
    evaluate("scenes", other, FakePipeline(WORSE), tmp_path / "c", limit=6, progress=False)
    with pytest.raises(BadInput, match=r"cannot be compared: they differ in the data"):
        compare(runs[0], tmp_path / "c")


def test_runs_of_other_lengths_are_refused(runs, data, tmp_path):
    evaluate("scenes", data, FakePipeline(WORSE), tmp_path / "c", limit=5, progress=False)
    with pytest.raises(BadInput, match=r"they differ in samples \(6 and 5\)"):
        compare(runs[0], tmp_path / "c")


def test_an_unfinished_run_is_refused_by_the_first_id_that_it_lacks(runs, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(runs[1], cut)
    records = (cut / "records.jsonl").read_text().splitlines(keepends=True)
    (cut / "records.jsonl").write_text("".join(records[:4]))
    with pytest.raises(BadInput, match=r"cut has no record of sample '004/0'; finish it"):
        compare(runs[0], cut)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ('{"id": "000/0"}', "the record of '000/0' is not complete"),
        ("{", "line 1 is not a record"),
    ],
)
def test_broken_records_are_named(runs, record, said):
    lines = (runs[0] / "records.jsonl").read_text().splitlines()
    (runs[0] / "records.jsonl").write_text("\n".join([record, *lines[1:]]) + "\n")
    with pytest.raises(BadInput, match=said):
        compare(*runs)


def test_a_folder_without_a_run_is_refused(runs, tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(runs[0])]) == 2
    assert "holds no run" in capsys.readouterr().err
