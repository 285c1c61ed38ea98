"""`rsvp score` from files to numbers, each worked by hand, and what it refuses."""

import json
import pickle
import subprocess
import sys

import pytest
from benchmark_folders import (
    SIZE,
    instances,
    line,
    polygon,
    rectangle,
    write_grefcoco,
    write_lines,
    write_reasonseg,
)
from rectangles import write_scenes

from rsvp import registry
from rsvp.cli.main import main
from rsvp.errors import BadInput
from rsvp.evaluation import benchmarks
from rsvp.evaluation.score import score
from rsvp.masks import decode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own

# 100 target pixels; 100 of which the right half is to be ignored; nothing; 64, asked at length.
SAMPLES = {
    "a": (False, [polygon("cup", 0, 0, 10, 10)]),
    "b": (False, [polygon("cup", 0, 0, 10, 10), polygon("Ignore this", 5, 0, 10, 10)]),
    "c": (True, []),
    "d": (True, [polygon("pan", 10, 4, 18, 12), polygon("Flag", 0, 0, 9, 9)]),
}
# Half of a; all of b and 10 pixels beyond; rightly nothing for c; d in two masks that overlap.
LINES = [
    line("d", rectangle(10, 4, 16, 12), rectangle(14, 4, 18, 12)),
    line("a", rectangle(0, 0, 10, 5)),
    line("c"),
    line("b", rectangle(0, 0, 10, 11)),
]


@pytest.fixture
def reasonseg(tmp_path):
    return write_reasonseg(tmp_path / "val", SAMPLES)


@pytest.fixture
def predicted(tmp_path):
    return write_lines(tmp_path / "predictions.jsonl", LINES)


def means(numbers):
    return {
        name: value.get("mean") if isinstance(value, dict) else value
        for name, value in numbers.items()
    }


@pytest.mark.parametrize(
    ("protocol", "ious", "ciou"),
    [
        # b: 50 target pixels, of the prediction 60 outside the ignored half
        (
            "lisa",
            [50 / 100.00001, 50 / 60.00001, 1, 64 / 64.00001],
            (50 + 50 + 64) / (100 + 60 + 64),
        ),
        ("seg-zero", [0.5, 100 / 110, None, 1], (50 + 100 + 64) / (100 + 110 + 64)),
        ("visionreasoner", [0.5, 100 / 110, 0, 1], (50 + 100 + 64) / (100 + 110 + 64)),
        ("reasonseg-x", [0.5, 100 / 110, 1, 1], (50 + 100 + 64) / (100 + 110 + 64)),
    ],
)
def test_reasonseg_by_every_protocol(reasonseg, predicted, protocol, ious, ciou):
    found = score("reasonseg", reasonseg, predicted, protocol=protocol).to_dict()
    counted = [one for one in ious if one is not None]
    epsilon = 1e-5 if protocol == "lisa" else 0
    assert found["giou"]["mean"] == pytest.approx(sum(counted) / (len(counted) + epsilon))
    assert found["ciou"]["mean"] == pytest.approx(ciou)
    assert (found["n"], found["skipped"], found["missing"]) == (4, 4 - len(counted), 0)
    assert found["protocol"] == protocol
    short, long = found["by_kind"]["short"], found["by_kind"]["long"]
    assert (short["n"], long["n"]) == (2, 2)
    assert short["giou"]["mean"] == pytest.approx((ious[0] + ious[1]) / 2, abs=1e-5)
    for one in (found["giou"], found["ciou"]):
        assert one["low"] <= one["mean"] <= one["high"]


def test_lisa_is_the_default(reasonseg, predicted):
    found = score("reasonseg", reasonseg, predicted)
    assert found == score("reasonseg", reasonseg, predicted, protocol="lisa")


def test_the_order_of_the_file_changes_nothing(reasonseg, predicted, tmp_path):
    turned = write_lines(tmp_path / "turned.jsonl", LINES[::-1])
    assert score("reasonseg", reasonseg, turned) == score("reasonseg", reasonseg, predicted)


def test_a_missing_prediction_is_an_empty_one_and_said(reasonseg, tmp_path, capsys):
    some = write_lines(tmp_path / "some.jsonl", LINES[:1])
    empty = write_lines(tmp_path / "empty.jsonl", [LINES[0], line("a"), line("b"), line("c")])
    command = ["score", "reasonseg", "--data", str(reasonseg), "--predictions", str(some), "--json"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.err.strip() == "warning: no prediction, scored as empty: a, b, c"
    found = json.loads(shown.out)
    assert found.pop("missing") == 3
    whole = score("reasonseg", reasonseg, empty).to_dict()
    assert whole.pop("missing") == 0
    assert found == whole
    assert found["giou"]["mean"] == pytest.approx((1 + 1) / 4, abs=1e-5)


def test_scenes_are_scored_by_tag_too_and_failures_are_counted(tmp_path):
    data = write_scenes(tmp_path / "data", 3)
    wrong = line("000/0", failure={"error": "MLLMFailed", "message": "no"})
    file = write_lines(tmp_path / "records.jsonl", [wrong, line("001/0"), line("002/0")])
    found = score("scenes", data, file).to_dict()
    assert found["failed"] == 1
    assert found["giou"]["mean"] == pytest.approx(1 / 3)  # the absent one
    assert found["seen"]["n"] == 2
    assert set(found["by_kind"]) == {"name", "all", "absent"}


def test_grefcoco_asks_first_whether_there_is_a_target(tmp_path):
    masks = {
        5: [[0, 0, 10, 0, 10, 10, 0, 10]],  # 100 pixels
        6: [[5, 0, 15, 0, 15, 10, 5, 10]],  # 100, 50 of them the same
    }
    refs = [(1, [5, 6]), (2, [5]), (3, [-1]), (4, [-1]), (5, [6])]
    data = write_grefcoco(tmp_path / "grefcoco", refs, masks)
    file = write_lines(
        tmp_path / "p.jsonl",
        [
            line(1, rectangle(0, 0, 15, 8)),  # an id may be a number: 120 of 150
            line("2", rectangle(0, 0, 7, 10)),  # 70 of 100
            line("3", rectangle(0, 0, 0, 0)),  # rightly none: a mask without a pixel says so too
            line("4", rectangle(0, 0, 4, 5)),  # 20 where there is nothing
            line("5"),  # wrongly none
        ],
    )
    found = score("grefcoco", data, file).to_dict()
    assert means(found)["giou"] == pytest.approx((0.8 + 0.7 + 1 + 0 + 0) / 5)
    assert means(found)["ciou"] == pytest.approx((120 + 70) / (150 + 100 + 0 + 20 + 100))
    assert means(found)["n_acc"] == 0.5
    assert means(found)["t_acc"] == pytest.approx(2 / 3)
    precisions = [means(found)[f"precision@{t}"] for t in (0.7, 0.8, 0.9)]
    assert precisions == pytest.approx([2 / 3, 1 / 3, 0])  # over the targeted, and from 0.7 on
    assert found["by_kind"]["no-target"]["t_acc"] is None


def test_refcoco_takes_the_value_2_for_neither(tmp_path):
    data = tmp_path / "refcoco"
    data.mkdir()
    overlapping = [[0, 0, 10, 0, 10, 10, 0, 10], [5, 0, 15, 0, 15, 10, 5, 10]]
    sentences = [{"sent_id": 9, "sent": " The Cup"}]
    ref = {"split": "testA", "image_id": 1, "ann_id": 5, "sentences": sentences}
    (data / "refs(unc).p").write_bytes(pickle.dumps([ref], protocol=0))
    (data / "instances.json").write_text(json.dumps(instances({5: overlapping})))
    file = write_lines(tmp_path / "p.jsonl", [line("9", rectangle(0, 0, 15, 10))])
    found = means(score("refcoco", data, file, split="testA").to_dict())
    # 100 pixels are covered once, 50 twice; all 150 are predicted.
    assert found["giou"] == pytest.approx(100 / 150, abs=1e-5)
    assert (found["miou"], found["precision@0.6"], found["precision@0.7"]) == (100 / 150, 1, 0)
    whole = score("refcoco", data, file, split="testA", protocol="seg-zero").to_dict()
    assert whole["giou"]["mean"] == 1.0
    with pytest.raises(BadInput, match=r"unknown split 'test'; known here: train, val, testA"):
        score("refcoco", data, file, split="test")


# ---------------------------------------------------------------- the command line


def test_the_table_shows_all_and_each_kind(reasonseg, predicted, capsys):
    assert (
        main(["score", "reasonseg", "--data", str(reasonseg), "--predictions", str(predicted)]) == 0
    )
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "reasonseg (lisa): 4 samples, 0 without a prediction" in shown.out
    assert "giou     0.833 [" in shown.out
    assert "\nshort  2  0.667 [" in shown.out


GOOD = LINES[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 2: broken JSON"),
        ("[" * 100_000, "line 2: broken JSON"),
        ("[]", "line 2: a prediction is"),
        ('{"masks": []}', "line 2: a prediction is"),
        ('{"id": "b"}', "line 2, id 'b': neither masks nor text"),
        ('{"id": "b", "masks": 3}', "line 2, id 'b': masks is a list of RLE"),
        ('{"id": "b", "masks": [3]}', "line 2, id 'b': a mask is COCO RLE"),
        (
            '{"id": "b", "masks": [{"size": [20, 31], "counts": "0"}]}',
            "line 2, id 'b': the mask is",
        ),
        ('{"id": "b", "masks": [{"size": [20, 30], "counts": [7]}]}', "line 2, id 'b': the runs"),
        ('{"id": "b", "masks": [], "scores": [1]}', "line 2, id 'b': 0 masks need as many scores"),
        ('{"id": "b", "masks": [], "text": 5}', "line 2, id 'b': text is a text"),
        (json.dumps(GOOD), "line 2, id 'a': line 1 is of the same sample"),
        ('{"id": "z", "masks": []}', "line 2, id 'z': the benchmark has no sample of this id"),
    ],
)
def test_malformed_predictions_are_one_line_with_file_line_and_id(
    reasonseg, tmp_path, capsys, text, said
):
    file = tmp_path / "broken.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + text + "\n")
    command = ["score", "reasonseg", "--data", str(reasonseg), "--predictions", str(file), "--json"]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert f"{file}: {said}" in shown.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "reasonsegg"}, "did you mean 'reasonseg'"),
        ({"protocol": "liza"}, "unknown protocol 'liza'; known here: lisa, seg-zero"),
        ({"predicted": "nowhere.jsonl"}, "there are no predictions nowhere.jsonl"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_not_there_is_named(reasonseg, predicted, change, said):
    asked = {"name": "reasonseg", "data": reasonseg, "predicted": predicted, **change}
    with pytest.raises(BadInput, match=said):
        score(**asked)


def test_scoring_loads_no_model_library():
    heavy = "{'torch', 'transformers', 'cv2', 'pyarrow', 'scipy', 'ray', 'pydantic', 'jinja2'}"
    modules = "rsvp.evaluation.score, rsvp.evaluation.report.text"
    code = f"import sys, {modules}; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", registry.names("benchmark"))
def test_every_benchmark_can_be_opened_and_refuses_a_folder_that_is_not_there(name, tmp_path):
    with pytest.raises(BadInput):
        benchmarks.find(name).open(tmp_path / "nowhere")


def test_a_mask_of_two_runs_in_plain_numbers_is_a_mask(reasonseg, tmp_path):
    plain = {"id": "a", "masks": [{"size": list(SIZE), "counts": [0, 600]}]}
    file = write_lines(tmp_path / "p.jsonl", [plain])
    full = decode_rle(plain["masks"][0], SIZE, "here")
    assert score("reasonseg", reasonseg, file) == score(
        "reasonseg", reasonseg, write_lines(tmp_path / "q.jsonl", [line("a", full)])
    )
