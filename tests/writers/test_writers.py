"""Files: exact contents, strict JSON, written atomically."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pydantic import ValidationError

from rsvp import writers
from rsvp.errors import BadInput
from rsvp.result import Result
from rsvp.types import Box, Image, ModelNames, PackedMask, Proposal, Reasoning, Step, Target, Usage
from rsvp.writers.document import ResultDocument

HEIGHT, WIDTH = 30, 50
RAW = (100.0, 200.0, 400.0, 533.0)  # as a model wrote a box, 0 to 1000


def mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    filled = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    filled[y0:y1, x0:x1] = True
    return filled


def result(*boxes: tuple[int, int, int, int], **changes) -> Result:
    rgb = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    targets = tuple(
        Target(
            f"cup {i % 2}", Box(*map(float, box)), 0.912345, PackedMask.pack(mask(*box)), None, RAW
        )
        for i, box in enumerate(boxes)
    )
    proposals = tuple(Proposal(t.label, t.box) for t in targets)
    steps = (Step("look", (Box(1.23456, 2, 3, 4),)), Step("so"))
    values = {
        "image": Image(rgb, "ab" * 32, "kitchen.png"),
        "query": "die Tasse „links“ 杯子",
        "reasoning": Reasoning(steps, proposals, "it is a cup", '{"targets": …}'),
        "targets": targets,
        "models": ModelNames("openai:gpt-5.1", "boxes", "sam2:x", "cd" * 32),
        "usage": Usage(5, 6, 1),
        "timings": {"reason": 0.123456, "total": 1.0},
        "warnings": ("careful",),
    }
    return Result(**{**values, **changes})


def strict(text: str):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_result_json_is_the_contract(tmp_path: Path) -> None:
    result((5, 6, 20, 16)).save(str(tmp_path))
    found = strict((tmp_path / "result.json").read_text(encoding="utf-8"))
    target = found["targets"][0]
    decoded = coco_mask.decode(target.pop("mask")).astype(bool)
    np.testing.assert_array_equal(decoded, mask(5, 6, 20, 16))
    assert found == {
        "schema_version": 1,
        "image": {"path": "kitchen.png", "width": 50, "height": 30, "sha256": "ab" * 32},
        "query": "die Tasse „links“ 杯子",
        "no_target": False,
        "understood": True,
        "reason": "it is a cup",
        "reply": '{"targets": …}',
        "steps": [
            {"text": "look", "boxes": [[1.23, 2.0, 3.0, 4.0]]},
            {"text": "so", "boxes": []},
        ],
        "targets": [
            {
                "label": "cup 0",
                "box": [5.0, 6.0, 20.0, 16.0],
                "raw": [100.0, 200.0, 400.0, 533.0],
                "score": 0.9123,
            }
        ],
        "agreement": None,
        "rounds": 0,
        "verdicts": [],
        "round_costs": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "calls": 1},
        "timings": {"reason": 0.1235, "total": 1.0},
        "models": {
            "mllm": "openai:gpt-5.1",
            "strategy": "boxes",
            "segmenter": "sam2:x",
            "prompt_sha256": "cd" * 32,
        },
        "warnings": ["careful"],
    }


def test_presence_is_there_only_where_it_is_known() -> None:
    one = result((5, 6, 20, 16))
    assert "presence" not in one.to_dict()["targets"][0]
    known = replace(one, targets=(replace(one.targets[0], presence=0.12345),))
    assert known.to_dict()["targets"][0]["presence"] == 0.1235


def test_the_model_reads_the_file_back_and_refuses_other_keys(tmp_path: Path) -> None:
    reasoning = Reasoning((), (), "not of this kind", "{}", understood=False)
    for one in (result((5, 6, 20, 16)), result(reasoning=reasoning)):
        one.save(str(tmp_path), ["json"])
        values = strict((tmp_path / "result.json").read_text("utf-8"))
        assert ResultDocument.model_validate(values).model_dump() == values
        with pytest.raises(ValidationError, match="colour"):
            ResultDocument.model_validate({**values, "colour": 1})


def test_masks_are_0_and_255_in_the_order_of_the_targets(tmp_path: Path) -> None:
    one = result((5, 6, 20, 16), (0, 0, 3, 3))
    paths = writers.write(one, tmp_path / "deep" / "out")
    folder = tmp_path / "deep" / "out"
    assert [p.relative_to(folder).as_posix() for p in paths] == [
        "result.json", "overlay.png", "masks/000.png", "masks/001.png",
    ]  # fmt: skip
    for number, target in enumerate(one.targets):
        image = Pil.open(folder / "masks" / f"{number:03d}.png")
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), target.mask * np.uint8(255))
    np.testing.assert_array_equal(np.asarray(Pil.open(folder / "overlay.png")), one.overlay())


def test_no_target_is_written_like_any_answer(tmp_path: Path) -> None:
    paths = writers.write(result(), tmp_path, ["json", "overlay", "png", "coco"])
    assert {p.name for p in paths} == {"result.json", "overlay.png", "coco.json"}
    found = strict((tmp_path / "result.json").read_text())
    assert found["no_target"] is True
    assert found["targets"] == []


def test_masks_of_an_earlier_result_are_removed(tmp_path: Path) -> None:
    writers.write(result((0, 0, 5, 5), (5, 5, 9, 9), (9, 9, 12, 12)), tmp_path)
    (tmp_path / "masks" / "mine.png").write_bytes(b"x")
    writers.write(result((0, 0, 5, 5)), tmp_path)
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["000.png", "mine.png"]


def test_coco_is_read_by_pycocotools(tmp_path: Path, capsys) -> None:
    one = result((5, 6, 20, 16), (0, 0, 3, 3), (30, 10, 40, 20))
    writers.write(one, tmp_path, ["coco"])
    coco = COCO(str(tmp_path / "coco.json"))
    capsys.readouterr()
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["cup 0", "cup 1"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [a["category_id"] for a in annotations] == [1, 2, 1]
    for annotation, target in zip(annotations, one.targets, strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), target.mask)
        assert annotation["area"] == target.mask.sum()
    assert annotations[0]["bbox"] == [5, 6, 15, 10]


def test_coco_of_an_empty_mask_and_label() -> None:
    empty = Target("", Box(1, 2, 3, 5), 0.5, PackedMask.pack(mask(0, 0, 0, 0)))
    found = result(targets=(empty,)).to_coco()
    assert found["annotations"][0]["bbox"] == [1, 2, 2, 3]
    assert found["annotations"][0]["area"] == 0
    assert found["categories"] == [{"id": 1, "name": "target"}]


def test_a_file_name_that_is_not_utf_8_is_written_as_json(tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9.png")
    image = Image(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), "0" * 64, path)
    writers.write(result(image=image), tmp_path, ["json", "coco"])
    assert strict((tmp_path / "result.json").read_text("utf-8"))["image"]["path"] == path
    assert strict((tmp_path / "coco.json").read_text("utf-8"))["images"][0]["file_name"] == path


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        writers.write(result(timings={"total": float("nan")}), tmp_path, ["json"])
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_survives_a_failed_write(tmp_path: Path, monkeypatch) -> None:
    writers.write(result((0, 0, 5, 5)), tmp_path)
    before = (tmp_path / "result.json").read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BadInput, match="No space left on device"):
        writers.write(result(), tmp_path, ["json"])
    monkeypatch.undo()
    assert (tmp_path / "result.json").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("formats", [[], ["gif"], ["json", "html5"]])
def test_unknown_formats_are_refused_before_anything_is_written(tmp_path, formats) -> None:
    with pytest.raises(
        BadInput, match="json, overlay, png, prompt, looks, index, coco, labelme, yolo"
    ):
        writers.write(result(), tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for act in (writers.prepare, lambda folder: writers.write(result(), folder)):
        with pytest.raises(BadInput, match="cannot write "):
            act(tmp_path / "file")


def test_prepare_creates_only_the_folder(tmp_path: Path) -> None:
    writers.prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
