"""SegInW, VRT-Bench and questions by `rsvp score`: what their scorers do with predictions."""

import json

import pytest
from benchmark_folders import HEIGHT, WIDTH, line, rectangle, write_lines, write_seginw_set

from rsvp.errors import BadInput
from rsvp.evaluation.report.text import format_score
from rsvp.evaluation.score import score
from rsvp.masks import encode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

HAND, METAL = rectangle(0, 0, 10, 10), rectangle(12, 3, 20, 9)


@pytest.fixture
def sets(tmp_path):
    folder = tmp_path / "seginw"
    write_seginw_set(folder, "Hand-Metal", [(1, 1, HAND), (1, 2, METAL)])
    return write_seginw_set(folder, "Cows", [(1, 1, HAND)], categories=("cow",))


def ranked(sample_id, *scored):
    return line(sample_id, *(mask for mask, _ in scored), scores=[s for _, s in scored])


# Hand: exact. Metal: exact, behind a false alarm on the image without annotations. Cow: half of it.
LINES = [
    ranked("Hand-Metal/1/1", (HAND, 0.9)),
    ranked("Hand-Metal/1/2", (METAL, 0.5)),
    ranked("Hand-Metal/2/2", (METAL, 0.8)),
    ranked("Cows/1/1", (rectangle(0, 0, 10, 7), 0.5)),
]
HALF = 100 * (1 + 0.5) / 2
COW = 100 * 5 / 10  # IoU 0.7 passes at .50 .55 .60 .65 .70


def as_official(folder, skip=()):
    """The same predictions as COCO results, a file a set."""
    folder.mkdir()
    by_set = {"Hand-Metal": [], "Cows": []}
    for one in LINES:
        name, image, category = one["id"].split("/")
        for mask, confidence in zip(one["masks"], one["scores"], strict=True):
            result = {"image_id": int(image), "category_id": int(category)}
            by_set[name].append({**result, "segmentation": mask, "score": confidence})
    for name, results in by_set.items():
        if name not in skip:
            (folder / f"seginw_{name}_val.json").write_text(json.dumps(results))
    return folder


def test_seginw_from_our_lines_and_from_the_official_files_is_the_same(sets, tmp_path):
    found = score("seginw", sets, write_lines(tmp_path / "p.jsonl", LINES)).to_dict()
    assert found["ap"] == pytest.approx({"Hand-Metal": HALF, "Cows": COW}, abs=0.01)
    assert found["mean"]["mean"] == pytest.approx((HALF + COW) / 2, abs=0.01)
    assert found["median"] == pytest.approx((HALF + COW) / 2, abs=0.01)
    assert (found["n"], found["missing"]) == (6, 2)
    official = score("seginw", sets, as_official(tmp_path / "official")).to_dict()
    for name in ("ap", "mean", "median"):
        assert official[name] == found[name]
    assert official["missing"] == 0


def test_seginw_is_scored_without_its_pictures(sets, tmp_path):
    predictions = write_lines(tmp_path / "p.jsonl", LINES)
    with_pictures = score("seginw", sets, predictions)
    pictures = list(sets.rglob("*.jpg"))
    assert pictures
    for picture in pictures:
        picture.unlink()
    assert score("seginw", sets, predictions) == with_pictures
    official = as_official(tmp_path / "official")
    assert score("seginw", sets, official).numbers == with_pictures.numbers


def test_a_single_set_is_scored_from_its_own_file(sets, tmp_path):
    folder = as_official(tmp_path / "official")
    found = score("seginw", sets / "Cows", folder / "seginw_Cows_val.json").to_dict()
    assert found["ap"] == pytest.approx({"Cows": COW}, abs=0.01)
    alone = write_lines(tmp_path / "p.jsonl", [{**LINES[3], "id": "1/1"}])
    assert score("seginw", sets / "Cows", alone).to_dict()["ap"] == found["ap"]


def test_a_set_without_its_file_scores_nothing_and_is_named(sets, tmp_path):
    found = score("seginw", sets, as_official(tmp_path / "official", skip=("Cows",)))
    assert found.missing == ("seginw_Cows_val.json",)
    assert found.to_dict()["ap"]["Cows"] == 0.0
    assert "ap Cows" in format_score(found)


def test_masks_without_scores_cannot_be_ranked(sets, tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [line("Cows/1/1", HAND)])
    with pytest.raises(BadInput, match=r"p.jsonl: line 1, id 'Cows/1/1': AP ranks the masks"):
        score("seginw", sets, file)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("seginw_Cows_val.json", "{}", r"seginw_Cows_val.json: COCO results are a list"),
        ("seginw_Cows_val.json", "[", r"seginw_Cows_val.json"),
        ("seginw_Cats_val.json", "[]", r"the data has no set 'Cats'"),
        (
            "seginw_Cows_val.json",
            json.dumps([{"image_id": 9, "category_id": 1, "segmentation": {}, "score": 1}]),
            r"seginw_Cows_val.json: result 0: image_id 9",
        ),
    ],
)
def test_official_files_that_fit_nothing_are_refused(sets, tmp_path, name, text, said):
    folder = as_official(tmp_path / "official")
    (folder / name).write_text(text)
    with pytest.raises(BadInput, match=said):
        score("seginw", sets, folder)


def test_a_folder_without_results_is_refused(sets, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"no seginw_<Name>_val.json of Hand-Metal, Cows"):
        score("seginw", sets, tmp_path / "empty")


# ---------------------------------------------------------------- VRT-Bench


def write_vrt(folder):
    """Two samples: a lamp by a table; and the same, whose prediction will be missing."""
    folder.mkdir()
    objects = {
        "1": {"mask": encode_rle(HAND), "caption": "a table"},
        "2": {"mask": encode_rle(METAL), "caption": "a lamp"},
    }
    row = {
        "image": b"",
        "question": "What lights the table?",
        "objects_info_json": json.dumps(objects),
        "human_labeled_r_objs": [1],
        "human_labeled_a_objs": [2],
    }
    rows = [
        {**row, "key": "k1", "class_ids": ["#loc"]},
        {**row, "key": "k2", "class_ids": ["#func"]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "vrt.parquet")
    return folder


def test_vrt_pools_reasoning_and_answer_apart(tmp_path):
    data = write_vrt(tmp_path / "vrt")
    reply = "<think>the table [SEG] and [SEG]</think><answer>[SEG]</answer> [SEG]"
    # Reasoning: 80 of 100, and one too many; answer: exact; after it: nobody's.
    masks = [rectangle(0, 0, 10, 8), rectangle(20, 0, 22, 2), METAL, HAND]
    file = write_lines(tmp_path / "p.jsonl", [line("k1", *masks, text=reply)])
    found = score("vrt", data, file).to_dict()
    means = {k: v["mean"] for k, v in found.items() if isinstance(v, dict) and "mean" in v}
    assert means["r_lq"] == 0.5
    assert means["r_sq"] == pytest.approx(0.8)
    assert means["a_miou"] == 0.5
    assert means["r_precision"] == 0.5
    assert found["missing"] == 1
    assert found["by_kind"]["#func"]["r_lq"]["mean"] == 0.0


def test_a_vrt_mask_of_another_size_is_named(tmp_path):
    data = write_vrt(tmp_path / "vrt")
    wrong = {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}
    file = write_lines(tmp_path / "p.jsonl", [{"id": "k2", "masks": [wrong], "text": ""}])
    with pytest.raises(BadInput, match=r"p.jsonl: line 1, id 'k2'.*the mask is of size"):
        score("vrt", data, file)


# ---------------------------------------------------------------- questions


def test_pope_is_scored_from_text_lines(tmp_path):
    data = tmp_path / "pope"
    data.mkdir()
    labels = ("yes", "yes", "no", "no")
    asked = [
        {"question_id": i, "image": "i.jpg", "text": "Is there a cup?", "label": label}
        for i, label in enumerate(labels)
    ]
    write_lines(data / "coco_pope_random.json", asked)
    (data / "i.jpg").write_bytes(b"")
    replies = ["Yes, there is", "No.", "It is not there"]
    file = write_lines(
        tmp_path / "p.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(replies)]
    )
    found = score("pope", data, file).to_dict()
    assert found["accuracy"]["mean"] == 0.5  # the fourth was not answered
    assert found["recall"]["mean"] == 0.5
    assert found["precision"]["mean"] == 1.0
    assert (found["n"], found["missing"], found["unanswered"]) == (4, 1, 1)
