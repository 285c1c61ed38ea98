"""`rsvp eval` on benchmarks other than scenes: their own protocols, their own scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_folders import (
    HEIGHT,
    WIDTH,
    polygon,
    rectangle,
    write_grefcoco,
    write_reasonseg,
    write_seginw_set,
)
from PIL import Image as Pil

from rsvp.errors import BadInput
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.score import score
from rsvp.masks import encode_rle
from rsvp.result import Result
from rsvp.types import Box, ModelNames, PackedMask, Proposal, Reasoning, Target


class Scripted:
    """Answers a query with boxes; masks fill them."""

    mllm = None

    def __init__(self, answers):
        self.answers = answers

    def reason(self, image, query, *, trace=False):
        return SimpleNamespace(query=query, reasoning=SimpleNamespace(raw=""))

    def segment_proposals(self, image, output):
        return self.segment(image, output.query)

    def segment(self, image, query="", boxes=None):
        boxes = self.answers.get(query, []) if boxes is None else boxes
        targets = []
        for box in boxes:
            mask = np.zeros((image.height, image.width), dtype=np.bool_)
            mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
            targets.append(Target("thing", box, 0.5, PackedMask.pack(mask)))
        proposals = tuple(Proposal("thing", box) for box in boxes)
        names = ModelNames("script", "boxes", "filler", "ab" * 32)
        return Result(image, query, Reasoning((), proposals, ""), tuple(targets), names)


def run(name, data, out, pipeline, **options):
    return evaluate(name, data, pipeline, out, progress=False, **options).to_dict()


def test_reasonseg_by_each_protocol(tmp_path):
    data = write_reasonseg(
        tmp_path / "val",
        {
            "a": (True, [polygon("target", 0, 0, 10, 10), polygon("ignore", 10, 0, 20, 10)]),
            "b": (False, []),
        },
    )
    answers = {"what is a?": [Box(0, 0, 20, 10)]}
    lisa = run("reasonseg", data, tmp_path / "lisa", Scripted(answers))
    # The ignored half is no mistake; nothing where nothing is scores 1. Twice LISA's epsilon.
    assert lisa["giou"]["mean"] == pytest.approx((100 / (100 + 1e-5) + 1) / (2 + 1e-5), abs=1e-9)
    assert set(lisa["by_kind"]) == {"long", "short"}
    zero = run("reasonseg", data, tmp_path / "zero", Scripted(answers), protocol="seg-zero")
    assert zero["giou"]["mean"] == 1.0
    assert zero["skipped"] == 1
    for out, found, protocol in (("lisa", lisa, "lisa"), ("zero", zero, "seg-zero")):
        rescored = score("reasonseg", data, tmp_path / out / "records.jsonl", protocol=protocol)
        assert rescored.to_dict()["giou"] == found["giou"]
        assert rescored.to_dict()["ciou"] == found["ciou"]
    page = (tmp_path / "zero" / "report.html").read_text()
    assert "1.000" in page


def test_grefcoco_says_how_often_no_target_is_found_out(tmp_path):
    masks = {1: encode_rle(rectangle(0, 0, 10, 10)), 2: encode_rle(rectangle(10, 0, 20, 10))}
    data = write_grefcoco(tmp_path / "grefcoco", [(7, [1, 2]), (8, [-1]), (9, [-1])], masks)
    (data / "images").mkdir()
    Pil.new("RGB", (WIDTH, HEIGHT)).save(data / "images" / "1.jpg")
    answers = {"phrase 7": [Box(0, 0, 20, 10)], "phrase 9": [Box(0, 0, 5, 5)]}
    found = run("grefcoco", data, tmp_path / "out", Scripted(answers), split="val")
    assert found["n_acc"]["mean"] == 0.5
    assert found["t_acc"]["mean"] == 1.0
    assert found["giou"]["mean"] == pytest.approx(2 / 3)
    with pytest.raises(BadInput, match="its split is 'val', now it is None"):
        run("grefcoco", data, tmp_path / "out", Scripted(answers), resume=True)


def test_seginw_is_scored_by_ap(tmp_path):
    data = write_seginw_set(
        tmp_path / "seginw", "Hand-Metal", [(1, 1, rectangle(0, 0, 10, 10))], images=(1, 2)
    )
    found = run("seginw", data, tmp_path / "out", Scripted({"hand": [Box(0, 0, 10, 10)]}))
    official = score("seginw", data, tmp_path / "out" / "records.jsonl").to_dict()
    assert found["ap"] == official["ap"]
    assert found["mean"] == official["mean"]
    assert found["mean"]["mean"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "AP of each set" in page
    assert "<td>Hand-Metal</td><td>100.0</td>" in page
    # With a limit AP would count the other images as missed; it is left out.
    assert "ap" not in run("seginw", data, tmp_path / "two", Scripted({}), limit=2)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("reasonseg", {"zoom": "box"}, "reasonseg asks for masks: leave out --zoom"),
        ("scenes", {"protocol": "lisa"}, "unknown protocol 'lisa'"),
        ("refcoco", {"split": "testC"}, "unknown split 'testC'"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_written(tmp_path, name, options, said):
    with pytest.raises(BadInput, match=said):
        run(name, tmp_path, tmp_path / "out", Scripted({}), **options)
    assert not (tmp_path / "out").exists()
