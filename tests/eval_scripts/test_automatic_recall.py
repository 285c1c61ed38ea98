"""Average recall of automatic masks: as COCO counts it, and by the command."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval import automatic
from eval.photos import AnnotatedPhotos
from rsvp import registry
from rsvp.masks import encode_rle
from rsvp.platform.machine import holds_weights
from rsvp.types import PackedMask

SIZE = (40, 50)
needs_weights = pytest.mark.skipif(
    not holds_weights(registry.embedded_folder("segmenter")), reason="no embedded weights"
)
needs_sam2 = pytest.mark.skipif(
    importlib.util.find_spec("sam2") is None and not os.environ.get("CI"),
    reason="the sam2 package is not installed: make setup installs it",
)


def rectangles(number: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    masks = np.zeros((number, *SIZE), dtype=np.bool_)
    for mask in masks:
        y, x = random.integers(0, 25, 2)
        h, w = random.integers(4, 15, 2)
        mask[y : y + h, x : x + w] = True
    return masks


def perturbed(masks: np.ndarray, seed: int) -> np.ndarray:
    """Each mask four times, moved by up to two pixels, among forty others."""
    random = np.random.default_rng(seed)
    moved = [np.roll(m, random.integers(-2, 3, 2), (0, 1)) for m in masks for _ in range(4)]
    return np.concatenate([moved, rectangles(40, seed + 1)])


def coco_recall(truths: np.ndarray, masks: np.ndarray, scores: np.ndarray) -> float:
    """AR@100 by pycocotools, without categories."""
    truth, found = COCO(), COCO()

    def annotation(number: int, mask: np.ndarray) -> dict:
        area = int(mask.sum())
        encoded = encode_rle(mask)
        return {
            "id": number, "image_id": 1, "category_id": 1, "segmentation": encoded, "area": area,
            "iscrowd": 0,
        }  # fmt: skip

    base = {"images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}], "categories": [{"id": 1}]}
    truth.dataset = {**base, "annotations": [annotation(i, m) for i, m in enumerate(truths, 1)]}
    found.dataset = {
        **base,
        "annotations": [
            {**annotation(i, m), "score": float(s)}
            for i, (m, s) in enumerate(zip(masks, scores, strict=True), 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [automatic.MASKS]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return float(evaluation.eval["recall"].mean())


@pytest.mark.parametrize("seed", range(6))
def test_recall_is_cocos(seed: int) -> None:
    truths = rectangles(12, seed)
    masks = perturbed(truths, seed)
    masks = np.concatenate([masks, perturbed(truths, seed + 9)])  # more than count
    scores = np.random.default_rng(seed).permutation(len(masks)).astype(np.float32)
    found = automatic.recalled(truths, masks, scores) / len(truths)
    assert found == pytest.approx(coco_recall(truths, masks, scores))
    assert 0.1 < found < 1


def test_nothing_found_recalls_nothing() -> None:
    none = np.zeros((0, *SIZE), np.bool_)
    assert automatic.recalled(rectangles(3, 0), none, np.zeros(0, np.float32)) == 0


def test_one_mask_matches_one_object_only() -> None:
    (truth,) = rectangles(1, 0)
    scores = np.ones(1, np.float32)
    twice = np.stack([truth, truth])
    assert automatic.recalled(twice, truth[None], scores) == 1
    assert automatic.recalled(twice, twice, np.ones(2, "f")) == 2


@dataclass
class VlsmOutput:
    masks: tuple[PackedMask, ...]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of two bright rectangles each."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in (1, 2, 3):
        masks = rectangles(2, seed=number)
        rgb = np.full((*SIZE, 3), 30, np.uint8)
        for mask, colour in zip(masks, ((230, 60, 40), (40, 200, 80)), strict=True):
            rgb[mask] = colour
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": encode_rle(mask),
                }
            )
        Pil.fromarray(rgb).save(tmp_path / "images" / f"{number}.png")
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1],
             "split": "val"}
        )  # fmt: skip
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "rectangle"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


def test_generators_take_turns_on_the_same_images(folder: Path) -> None:
    order = []

    def generator(name: str, share: int):
        def generate(image):
            order.append(name)
            masks = np.concatenate([rectangles(2, seed) for seed in (1, 2, 3)])[::share]
            return VlsmOutput(tuple(map(PackedMask.pack, masks)), np.ones(len(masks), np.float32))

        return generate

    generators = {"rsvp": generator("rsvp", 1), "sam2": generator("sam2", 2)}
    found = automatic.measure(generators, AnnotatedPhotos(folder, "val"))
    assert order == ["rsvp", "sam2", "rsvp", "sam2", "sam2", "rsvp", "rsvp", "sam2"]
    assert (found["images"], found["objects"]) == (3, 6)
    assert found["rsvp"]["average_recall"]["mean"] == 1
    assert 0 < found["sam2"]["average_recall"]["mean"] < 1
    assert found["sam2"]["masks_per_image"] == 3
    assert found["rsvp"]["seconds"] > 0
    table = automatic.format_table(found)
    assert "rsvp   1.0000 [1.0000, 1.0000]     6.0 masks an image" in table
    assert "times the package's time" in table


@needs_weights
def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(folder), "--points-per-side", "4", "--min-iou", "0"]
    assert automatic.main([*options, "--min-stability", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["points_per_side"] == 4
    assert found["settings"]["min_iou"] == 0
    assert (found["images"], found["objects"]) == (3, 6)
    assert found["rsvp"]["masks_per_image"] > 1
    assert "sam2" not in found


@needs_weights
@needs_sam2
def test_the_command_beside_the_package(folder: Path, capsys) -> None:
    options = ["--data", str(folder), "--points-per-side", "6", "--min-iou", "0.05"]
    assert automatic.main([*options, "--min-stability", "0.2", "--beside-package", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ours, theirs = found["rsvp"], found["sam2"]
    assert ours["masks_per_image"] == theirs["masks_per_image"] > 0
    assert ours["average_recall"] == theirs["average_recall"]  # so small, both judge alike


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--segmenter", "box"], 2, "the segmenter box gives no automatic masks"),
        (["--split", "test"], 2, "no image of split 'test'"),
        (["--points-per-side", "0"], 2, "points_per_side is at least 1"),
    ],
)
def test_errors_are_one_line(folder: Path, capsys, more, code, said) -> None:
    assert automatic.main(["--data", str(folder), *more]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
