"""`rsvp eval` on reasoning paths: VRT-Bench end to end, rendered scenes by hops, oracle, limits."""

from __future__ import annotations

import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image as Pil
from pyarrow import parquet
from scipy.optimize import linear_sum_assignment
from scripted import Recorder, Script
from tfd_utils.pb2 import Example
from tfd_utils.writer import TFRecordWriter

from rsvp.embedded import scenes
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation.benchmarks.vrt import Vrt
from rsvp.evaluation.report.text import format_summary
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.score import score
from rsvp.masks import decode_rle, encode_rle
from rsvp.pipeline import Pipeline
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Reply, Usage

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
HEIGHT, WIDTH = 40, 60
METRICS = ("r_lq", "r_sq", "a_miou", "r_miou", "a_lq", "a_sq", "r_precision")


class Knows(Script):
    """Replies by the question that it finds in the prompt."""

    def __init__(self, replies: dict[str, str]) -> None:
        super().__init__("")
        self.replies = replies

    def reply(self, messages, *, schema=None):
        text = messages[-1].parts[-1]
        asked = re.search(r"^=== question \w+ ===\n(.*)\n=== ", text, re.MULTILINE)
        assert asked
        reply = self.replies[asked[1]]
        if reply == "down":
            raise MLLMFailed("cannot connect")
        return Reply(reply, Usage(100, 10, 1))


def run(name: str, data: Path, out: Path, replies: dict[str, str], **options: Any) -> dict:
    pipeline = Pipeline(Knows(replies), BoxesStrategy(), Recorder(), frame="pixels")
    return evaluate(name, data, pipeline, out, progress=False, **options).to_dict()


def path(steps: list[list[dict]], answer: list[dict]) -> str:
    entries = [{"text": f"step [SEG] {n}", "objects": one} for n, one in enumerate(steps)]
    return json.dumps({"path": entries, "answer": "it", "answer_objects": answer})


# ------------------------------------------------------------ VRT-Bench


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def boxes(rng: np.random.Generator, n: int) -> list[list[int]]:
    corners = rng.integers(0, (WIDTH - 24, HEIGHT - 20), size=(n, 2))
    return [[int(x), int(y), int(x + rng.integers(8, 24)), int(y + rng.integers(8, 20))]
            for x, y in corners]  # fmt: skip


def moved(rng: np.random.Generator, box: list[int]) -> list[int]:
    """Nearly the same box."""
    return [int(v + rng.integers(-5, 6)) for v in box[:2]] + box[2:]


def questions(n: int) -> tuple[list[dict], dict[str, str]]:
    """Rows of the benchmark, and replies that are partly right."""
    rng = np.random.default_rng(3)
    picture = io.BytesIO()
    Pil.new("RGB", (WIDTH, HEIGHT)).save(picture, "PNG")
    rows, replies = [], {}
    for number in range(n):
        true = boxes(rng, 5)
        objects = {str(k): {"mask": encode_rle(rectangle(*box))} for k, box in enumerate(true)}
        reasoning, answer = list(range(int(rng.integers(1, 5)))), [int(rng.integers(0, 5))]
        rows.append({
            "key": f"k{number}", "image": picture.getvalue(), "question": f"Which one, {number}?",
            "objects_info_json": json.dumps(objects), "human_labeled_r_objs": reasoning,
            "human_labeled_a_objs": answer, "class_ids": [("#loc", "#func")[number % 2]],
        })  # fmt: skip
        said = [
            {"label": f"o{k}", "box": moved(rng, true[k])} for k in reasoning if rng.random() < 0.8
        ]
        said += [{"label": "extra", "box": box} for box in boxes(rng, int(rng.integers(0, 3)))]
        said += [{"label": "nowhere"}] * int(rng.integers(0, 2))
        steps = [said[:2], said[2:], said[:1]]  # an object returns
        replies[f"Which one, {number}?"] = path(steps, [
            {"label": "a", "box": moved(rng, true[k])} for k in answer
        ])  # fmt: skip
    return rows, replies


def write_tfrecord(rows: list[dict], folder: Path) -> Path:
    folder.mkdir()
    with TFRecordWriter(str(folder / "vrt_eval.tfrecord")) as writer:
        for row in rows:
            message = Example()
            for name, value in row.items():
                feature = message.features.feature[name]
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, int):
                        feature.int64_list.value.append(one)
                    else:
                        feature.bytes_list.value.append(
                            one if isinstance(one, bytes) else one.encode()
                        )
            writer.write(message.SerializeToString())
    return folder


def write_parquet(rows: list[dict], folder: Path) -> Path:
    folder.mkdir()
    rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test.parquet")
    return folder


def official(rows: list[dict], records: list[dict]) -> dict[str, float]:
    """What `vrt_eval_single.py` computes, on whole arrays, from the text and its masks."""
    size = (HEIGHT, WIDTH)
    pooled: dict[str, list[float]] = {"r": [], "a": []}
    for row, record in zip(rows, records, strict=True):
        assert row["key"] == record["id"]
        masks = [decode_rle(mask, size, "") for mask in record["masks"]]
        objects = json.loads(row["objects_info_json"])
        found = re.search(r"<answer>.*?</answer>", record["text"], re.DOTALL)
        places = [m.start() for m in re.finditer(r"\[SEG\]", record["text"])]
        parts = {"r": [], "a": []}
        for place, mask in zip(places, masks, strict=True):
            parts["r" if found is None or place < found.start() else "a"].append(mask)
        for name, ids in ("r", row["human_labeled_r_objs"]), ("a", row["human_labeled_a_objs"]):
            true = np.stack([decode_rle(objects[str(k)]["mask"], size, "") for k in ids])
            ious = np.zeros(len(true))
            if parts[name]:
                said = np.stack(parts[name])[:, None]
                both, either = (said & true).sum((2, 3)), (said | true).sum((2, 3))
                matrix = np.zeros(both.shape, np.float32)
                np.divide(both, either, out=matrix, where=either > 0)
                lines, columns = linear_sum_assignment(1 - matrix)
                ious[columns] = matrix[lines, columns]
            pooled[name] += ious.tolist()
    r, a = np.array(pooled["r"]), np.array(pooled["a"])
    return {
        "r_lq": (r > 0.5).mean(), "r_sq": r[r > 0.5].mean(), "r_miou": r.mean(),
        "a_miou": a.mean(), "a_lq": (a > 0.5).mean(), "a_sq": a[a > 0.5].mean(),
    }  # fmt: skip


def test_sixty_questions_end_to_end_score_as_the_official_code(tmp_path: Path) -> None:
    rows, replies = questions(60)
    data = write_tfrecord(rows, tmp_path / "tf")
    found = run("vrt", data, tmp_path / "out", replies)
    records = [json.loads(line) for line in (tmp_path / "out/records.jsonl").open()]
    expected = official(rows, records)
    for name, value in expected.items():
        assert found[name]["mean"] == pytest.approx(value, abs=1e-6), name
    assert 0.3 < found["r_lq"]["mean"] < 1
    assert found["r_precision"]["mean"] < found["a_precision"]["mean"]
    assert found["by_kind"].keys() == {"#loc", "#func", "all"}
    assert found["failed"] == 0
    again = score("vrt", data, tmp_path / "out/records.jsonl").to_dict()
    other = run("vrt", write_parquet(rows, tmp_path / "parquet"), tmp_path / "p", replies)
    for name in METRICS:
        assert found[name] == again[name] == other[name]
    assert found["oracle_r_lq"]["mean"] == found["oracle_a_miou"]["mean"] == 1.0
    assert records[0]["text"].count("[SEG]") == len(records[0]["masks"])


def test_some_of_the_questions_are_scored_too_and_a_failure_counts(tmp_path: Path) -> None:
    rows, replies = questions(6)
    replies["Which one, 1?"] = "down"
    found = run("vrt", write_parquet(rows, tmp_path / "data"), tmp_path / "out", replies, limit=2)
    assert (found["n"], found["failed"]) == (2, 1)
    assert found["a_lq"]["mean"] == 0.5
    assert found["by_kind"]["#func"]["r_lq"]["mean"] == 0.0


def test_the_references_are_those_of_the_recipe() -> None:
    recipe = Path(__file__).parents[2] / "eval/vrt.toml"
    theirs = tomllib.loads(recipe.read_text())["reference"]
    assert len(theirs) == len(Vrt.references)
    for row, line in zip(theirs, Vrt.references, strict=True):
        numbers = [f"{row[name] / 100:.3f}" for name in ("r_lq", "r_sq", "a_miou")]
        assert all(number in line for number in numbers)


# ------------------------------------------------------------ rendered scenes


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    words = ["--task", "trace", "--n", "12", "--seed", "5", "--size", "160", "--out", str(folder)]
    assert scenes.main(words) == 0
    return folder


def truth(folder: Path, *, surplus: bool = False) -> dict[str, str]:
    """True replies; with an object too many in each path."""
    replies = {}
    for scene in json.loads((folder / "scenes.json").read_text())["scenes"]:
        objects = [{"label": o["name"], "box": o["box"]} for o in scene["objects"]]
        for q in scene["questions"]:
            steps = [[objects[i] for i in step["objects"]] for step in q["path"]]
            named = {i for step in q["path"] for i in step["objects"]}
            others = [o for i, o in enumerate(objects) if i not in named]
            steps += [others[:1]] if surplus else []
            replies[q["text"]] = path(steps, [objects[i] for i in q["answer_objects"]])
    return replies


def test_true_boxes_score_as_the_oracle_by_hops(rendered: Path, tmp_path: Path) -> None:
    found = run("scenes", rendered, tmp_path, truth(rendered))
    for name in ("r_lq", "r_sq", "a_miou"):
        assert found[name] == pytest.approx(found[f"oracle_{name}"], abs=1e-6)
        assert found[name]["low"] <= found[name]["mean"] <= found[name]["high"]
    assert found["giou"]["mean"] == pytest.approx(found["oracle"]["mean"])
    assert {"1 hop", "2 hops", "3 hops", "absent", "chain"} <= found["by_kind"].keys()
    assert all("r_precision" in found["by_kind"][f"{n} hops"] for n in (2, 3))
    for group in ("2 hops", "3 hops", "chain"):
        one = found["by_kind"][group]
        for name in ("r_lq", "r_sq", "a_miou"):
            assert one[name] == pytest.approx(one[f"oracle_{name}"], abs=1e-6)
    assert found["absent_detected"]["mean"] == 1.0
    page = (tmp_path / "report.html").read_text()
    assert "oracle R-LQ" in page


def test_the_text_has_the_oracle_by_hops(rendered: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(Knows(truth(rendered)), BoxesStrategy(), Recorder(), frame="pixels")
    found = evaluate("scenes", rendered, pipeline, tmp_path, progress=False)
    _, table = format_summary(found).split("\ntrue boxes ")
    heads, *rows = table.split("\n\n")[0].splitlines()
    assert re.split(r" {2,}", heads.strip()) == ["oracle R-LQ", "oracle R-SQ", "oracle A-mIoU"]
    assert {"1 hop", "2 hops", "3 hops"} <= {row.split("  ")[0] for row in rows}


def test_objects_too_many_cost_precision_alone(rendered: Path, tmp_path: Path) -> None:
    exact = run("scenes", rendered, tmp_path / "a", truth(rendered))
    noisy = run("scenes-trace", rendered, tmp_path / "b", truth(rendered, surplus=True))
    assert noisy["r_lq"]["mean"] >= exact["r_lq"]["mean"]
    assert noisy["r_precision"]["mean"] < exact["r_precision"]["mean"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["questions"][0]["path"][0].update(objects=[99]), r"99.* of \d+ objects"),
        (lambda s: s["questions"][0].update(answer_objects=[-1]), r"-1.* of \d+ objects"),
        (lambda s: s["questions"][0].pop("path"), "path"),
    ],
)
def test_broken_truth_is_refused(rendered: Path, tmp_path: Path, change, message) -> None:
    document = json.loads((rendered / "scenes.json").read_text())
    change(document["scenes"][0])
    (tmp_path / "scenes.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match=message):
        run("scenes", tmp_path, tmp_path / "out", {})
