"""SegInW's AP against pycocotools run the official way, and against numbers worked by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rsvp.datasets.instances import read_instances
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import ap
from rsvp.masks import encode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
HEIGHT, WIDTH = 40, 60
PERFECT = pytest.approx(100)


def square(x, y, side=10):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return encode_rle(mask)


def result(mask, score, image=1, category=1):
    return {"image_id": image, "category_id": category, "segmentation": mask, "score": score}


def document(annotations, images=2, categories=1):
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": f"c{i}"} for i in range(1, categories + 1)],
        "annotations": [
            {"id": i, "area": 100, "iscrowd": 0, "bbox": [0, 0, 1, 1], **one}
            for i, one in enumerate(annotations, start=1)
        ],
    }


@pytest.fixture
def written(tmp_path):
    def write(content):
        file = tmp_path / "truth.json"
        file.write_text(json.dumps(content))
        return read_instances(file)

    return write


def official(truth, results):
    """AP as a benchmark's own script has it: files in, `summarize` out."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO(str(truth.file))
        evaluation = COCOeval(expected, expected.loadRes(json.loads(json.dumps(results))), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


ONE = [{"image_id": 1, "category_id": 1, "segmentation": square(5, 5)}]


def test_a_perfect_answer_has_100(written):
    assert ap.average_precision(written(document(ONE)), [result(square(5, 5), 0.9)]) == PERFECT


def test_an_iou_of_two_thirds_passes_four_of_ten_thresholds(written):
    # 8 of 10 columns shared: I = 80, U = 120; 0.50, 0.55, 0.60 and 0.65 are below 2/3.
    found = ap.average_precision(written(document(ONE)), [result(square(7, 5), 0.9)])
    assert found == pytest.approx(40)


def test_a_surer_false_alarm_on_an_image_without_annotations_costs_half(written):
    results = [result(square(5, 5), 0.5), result(square(30, 5), 0.9, image=2)]
    truth = written(document(ONE))
    assert ap.average_precision(truth, results) == pytest.approx(50)
    assert ap.average_precision(truth, results) == pytest.approx(official(truth, results))


def test_no_answer_has_0_and_no_object_no_ap(written):
    assert ap.average_precision(written(document(ONE)), []) == 0
    assert ap.average_precision(written(document([])), [result(square(5, 5), 1)]) is None


def test_a_category_without_objects_does_not_count(written):
    truth = written(document(ONE, categories=2))
    results = [result(square(5, 5), 0.9), result(square(5, 5), 0.9, category=2)]
    assert ap.average_precision(truth, results) == PERFECT


def test_at_most_100_predictions_an_image_and_category_count(written):
    misses = [result(square(40, 20), 0.9) for _ in range(100)]
    assert ap.average_precision(written(document(ONE)), [*misses, result(square(5, 5), 0.1)]) == 0


def test_the_truth_may_be_used_again(written):
    truth = written(
        document(
            [{"image_id": 1, "category_id": 1, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}]
        )
    )
    before = json.dumps(list(truth.annotations))
    first = ap.average_precision(truth, [result(square(5, 5), 1)])
    assert first == ap.average_precision(truth, [result(square(5, 5), 1)]) == PERFECT
    assert json.dumps(list(truth.annotations)) == before


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("first_id", [0, 1])
def test_random_answers_score_as_the_official_run(written, seed, first_id):
    """Crowds, several categories, tied scores and annotation ids from 0 as in Roboflow's files."""
    rng = np.random.default_rng(seed)

    def anything():
        x, y, side = rng.integers(0, 6) * 8, rng.integers(0, 4) * 8, rng.integers(5, 16)
        return {
            "image_id": int(rng.integers(1, 5)),
            "category_id": int(rng.integers(1, 4)),
            "segmentation": square(x, y, side),
        }

    content = document([anything() for _ in range(25)], images=4, categories=3)
    for number, one in enumerate(content["annotations"]):
        one["id"] = number + first_id
        one["iscrowd"] = int(rng.random() < 0.15)
    truth = written(content)
    shifted = [{**one, "score": float(rng.integers(3)) / 2} for one in content["annotations"]]
    noise = [{**anything(), "score": float(rng.integers(3)) / 2} for _ in range(15)]
    results = [
        {k: one[k] for k in ("image_id", "category_id", "segmentation", "score")}
        for one in shifted + noise
    ]
    found = ap.average_precision(truth, results)
    assert found == pytest.approx(official(truth, results), abs=1e-6)
    assert 0 < found < 100


def test_nothing_is_printed(written, capsys):
    ap.average_precision(written(document(ONE)), [result(square(5, 5), 0.9)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 9}, "image_id 9 is not in"),
        ({"image_id": "1"}, "image_id '1' is not in"),
        ({"category_id": 9}, "category_id 9 is not in"),
        ({"category_id": True}, "category_id True is not in"),
        ({"score": None}, "the score is a number, found None"),
        ({"score": float("nan")}, "the score is a number, found nan"),
        ({"score": 10**400}, "the score is a number"),
        ({"segmentation": {"size": [9, 9], "counts": "a"}}, r"of size \[9, 9\]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5]}}, "cover 5 pixels"),
        ({"segmentation": [[1, 2, 1e12, 4, 5, 6]]}, "far outside the image"),
    ],
)
def test_a_broken_result_is_refused_by_its_place(written, change, said):
    results = [result(square(5, 5), 1), {**result(square(5, 5), 1), **change}]
    with pytest.raises(BadInput, match=rf"my\.json: result 1: .*{said}"):
        ap.average_precision(written(document(ONE)), results, "my.json")


def test_a_result_that_is_no_object_or_has_no_mask_is_refused(written):
    truth = written(document(ONE))
    with pytest.raises(BadInput, match="result 0: expected an object, found int"):
        ap.average_precision(truth, [7])
    with pytest.raises(BadInput, match="result 0: there is no segmentation"):
        ap.average_precision(truth, [{"image_id": 1, "category_id": 1, "score": 1}])


def test_mean_and_median_over_sets_are_unweighted():
    found = ap.summarize({"Cows": 10.0, "Rail": 20.0, "Hand": 60.0, "Empty": None})
    assert found["mean"].mean == pytest.approx(30)
    assert found["mean"].low >= 10
    assert found["mean"].high <= 60
    assert found["median"] == 20
    assert found["sets"] == 4
    assert found["ap"] == {"Cows": 10.0, "Rail": 20.0, "Hand": 60.0, "Empty": None}


def test_sets_without_objects_have_no_mean():
    found = ap.summarize({"Empty": None})
    assert (found["mean"], found["median"]) == (None, None)
    with pytest.raises(BadInput, match="at least one set"):
        ap.summarize({})


def test_a_samples_prediction_becomes_results(written):
    results = ap.as_results(1, 1, [square(5, 5), square(30, 20)], [0.9, 0.3])
    assert ap.average_precision(written(document(ONE)), results) == PERFECT
