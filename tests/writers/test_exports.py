"""Other tools' formats, each read back by its own ecosystem's reader or its documented rules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image as Pil

from rsvp import writers
from rsvp.cli.main import main
from rsvp.errors import MissingExtra
from rsvp.images import load_image
from rsvp.result import Result
from rsvp.types import Box, ModelNames, PackedMask, Reasoning, Target
from rsvp.writers.pictures import to_index_mask

HEIGHT, WIDTH = 61, 87


def blobs() -> list[np.ndarray]:
    """A disc, a ring, two parts of one thing, a single pixel, and no pixel at all."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (x - 20) ** 2 + (y - 30) ** 2 < 150
    distance = (x - 60) ** 2 + (y - 30) ** 2
    ring = (distance < 400) & (distance > 60)
    parts = ((x < 6) & (y < 9)) | ((x > 70) & (y > 50))
    dot = (x == WIDTH - 1) & (y == 0)
    return [disc, ring, parts, dot, np.zeros((HEIGHT, WIDTH), np.bool_)]


LABELS = ("cup", "Tasse: „groß“ 杯 🐕\x85\u2028", "cup", "", "ghost")


def made(masks: list[np.ndarray], path: Path | None = None) -> Result:
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    if path is not None:
        Pil.fromarray(rgb).save(path)
    targets = tuple(
        Target(label, Box(1, 2, 30 + i, 40), 0.5 + i / 10, PackedMask.pack(mask))
        for i, (label, mask) in enumerate(zip(LABELS, masks, strict=False))
    )
    return Result(
        image=load_image(rgb if path is None else path),
        query="what?",
        reasoning=Reasoning((), (), ""),
        targets=targets,
        models=ModelNames(None, None, "box", None),
    )


def test_the_command_line_writes_them(tmp_path: Path, capsys) -> None:
    photo = tmp_path / "photo.png"
    made([], photo)
    words = ["segment", "--image", str(photo), "--box", "3,4,20,30", "--segmenter", "box"]
    out = tmp_path / "out"
    assert main([*words, "--out", str(out), "--format", "index,labelme,yolo"]) == 0
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "data.yaml", "images/photo.png", "index.png", "labels/photo.txt", "photo.json",
    ]  # fmt: skip
    assert "index.png" in capsys.readouterr().out


def test_the_visual_prompt_is_written(tmp_path: Path) -> None:
    shown = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    result = replace(made([]), shown=shown)
    kinds = ["prompt", "json"]
    assert writers.write(result, tmp_path, kinds)[0] == tmp_path / "prompt.png"
    assert (np.asarray(Pil.open(tmp_path / "prompt.png")) == shown).all()
    paths = writers.write(made([]), tmp_path, kinds)  # no MLLM was asked
    assert paths == [tmp_path / "result.json"]
    assert not (tmp_path / "prompt.png").exists()


# ------------------------------------------------------------ LabelMe


@pytest.fixture
def labelme(monkeypatch: pytest.MonkeyPatch) -> Any:
    """LabelMe's own package, with mocks for its GUI libraries, which reading does not need."""
    if importlib.util.find_spec("labelme") is None:
        pytest.skip("labelme is not installed: pip install --no-deps labelme==6.3.1")
    windows = ("PyQt5", "PyQt5.QtCore", "PyQt5.QtGui", "PyQt5.QtWidgets")
    for name in (*windows, "onnxruntime", "imgviz", "imgviz.io", "loguru", "tifffile"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    limit = Pil.MAX_IMAGE_PIXELS  # importing LabelMe removes it
    yield importlib.import_module("labelme")
    Pil.MAX_IMAGE_PIXELS = limit
    for name in [name for name in sys.modules if name.split(".")[0] == "labelme"]:
        del sys.modules[name]


@pytest.mark.parametrize("in_file", [True, False])
def test_labelme_reads_it(labelme: Any, tmp_path: Path, in_file: bool) -> None:
    """With the image as a file of its own, and with the image in the JSON file."""
    one = made(blobs(), tmp_path / "photo.png" if in_file else None)
    writers.write(one, tmp_path / "out", ["labelme"])
    name = "photo.json" if in_file else "image.json"
    read = labelme.LabelFile(str(tmp_path / "out" / name))
    assert read.image_path == ("../photo.png" if in_file else "image.png")
    pixels = labelme.utils.img_data_to_pil(read.image_data)
    np.testing.assert_array_equal(np.asarray(pixels), one.image.rgb)
    assert [shape["label"] for shape in read.shapes] == ["cup", LABELS[1], "cup", "target"]
    names = {shape["label"]: 1 for shape in read.shapes}
    for shape, target in zip(read.shapes, one.targets, strict=False):
        found, _ = labelme.utils.shapes_to_label((HEIGHT, WIDTH), [shape], names)
        np.testing.assert_array_equal(found == 1, target.mask)
        assert shape["other_data"] == {"score": pytest.approx(target.score)}


def test_labelme_without_targets(labelme: Any, tmp_path: Path) -> None:
    writers.write(made([]), tmp_path, ["labelme"])
    assert labelme.LabelFile(str(tmp_path / "image.json")).shapes == []


# ------------------------------------------------------------ YOLO


def read_yolo(folder: Path, stem: str) -> tuple[list[str], list[np.ndarray]]:
    """By https://docs.ultralytics.com/datasets/segment, rasterised as its loader does.

    A row: class, then x y pairs, 0 to 1; at least three, or it would be a box. Coordinates times
    the size, cut to whole numbers, filled by OpenCV (`ultralytics.data.utils.polygon2mask`).
    """
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    labels, masks = [], []
    for line in (folder / "labels" / f"{stem}.txt").read_text().splitlines():
        number, *values = line.split()
        points = np.array(values, dtype=np.float32).reshape(-1, 2)
        assert len(points) >= 3
        assert ((points >= 0) & (points <= 1)).all()
        corners = (points * [WIDTH, HEIGHT]).astype(np.int32)
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(canvas, [corners], color=1)
        labels.append(names[int(number)])
        masks.append(canvas.astype(bool))
    return labels, masks


def test_yolo_rows_are_read_by_their_rules(tmp_path: Path) -> None:
    one = made(blobs(), tmp_path / "photo.jpeg.png")
    paths = writers.write(one, tmp_path, ["yolo"])
    assert [path.name for path in paths] == ["photo.jpeg.txt", "photo.jpeg.png", "data.yaml"]
    labels, masks = read_yolo(tmp_path, "photo.jpeg")
    assert labels == ["cup", LABELS[1], "cup", "target"]
    disc, ring, parts, dot, _ = blobs()
    np.testing.assert_array_equal(masks[0], disc)
    np.testing.assert_array_equal(masks[1], ring)  # its hole is joined along the ring itself
    np.testing.assert_array_equal(masks[3], dot)
    assert (masks[2] >= parts).all()  # nothing lost, but for a line between the parts
    assert 0 < (masks[2] & ~parts).sum() < WIDTH


def test_half_a_character_in_a_class_name_is_readable_yaml(tmp_path: Path) -> None:
    """A reply may end in the middle of an emoji's escape."""
    one = made(blobs()[:1])
    writers.write(
        replace(one, targets=(replace(one.targets[0], label="dog \ud83d"),)), tmp_path, ["yolo"]
    )
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["names"] == {0: "dog \ufffd"}


def test_yolo_without_targets_is_a_background_image(tmp_path: Path) -> None:
    writers.write(made([]), tmp_path, ["yolo"])
    assert (tmp_path / "labels" / "image.txt").read_text() == ""
    read = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert read == {"train": "images", "val": "images", "names": {}}


# ------------------------------------------------------------ index masks


def test_an_index_mask_counts_the_targets(tmp_path: Path) -> None:
    one = made(blobs())
    writers.write(one, tmp_path, ["index"])
    image = Pil.open(tmp_path / "index.png")
    assert image.mode == "P"
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # PASCAL VOC's
    found = np.asarray(image)
    for number, target in enumerate(one.targets, 1):
        np.testing.assert_array_equal(found == number, target.mask)


def test_the_smaller_of_two_overlapping_targets_wins(tmp_path: Path) -> None:
    whole = np.ones((HEIGHT, WIDTH), np.bool_)
    part = blobs()[0]
    for masks in ([whole, part], [part, whole]):
        found = to_index_mask(made(masks))
        number = 1 + [mask is part for mask in masks].index(True)
        np.testing.assert_array_equal(found == number, part)
        assert (found > 0).all()


def test_more_targets_than_palette_entries(tmp_path: Path) -> None:
    rows = [np.zeros((HEIGHT, WIDTH), np.bool_) for _ in range(300)]
    for number, row in enumerate(rows):
        row[number // WIDTH, number % WIDTH] = True
    one = made([])
    targets = tuple(Target("x", Box(0, 0, 1, 1), 1.0, PackedMask.pack(row)) for row in rows)
    writers.write(replace(one, targets=targets), tmp_path, ["index"])
    found = cv2.imread(str(tmp_path / "index.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found.reshape(-1)[:300], np.arange(1, 301))


# ------------------------------------------------------------ supervision


def test_supervision_takes_the_result() -> None:
    sv = pytest.importorskip("supervision")
    one = made(blobs())
    found = one.to_supervision()
    assert isinstance(found, sv.Detections)
    assert len(found) == 5
    np.testing.assert_array_equal(found.mask, [target.mask for target in one.targets])
    np.testing.assert_allclose(found.confidence, [0.5, 0.6, 0.7, 0.8, 0.9], atol=1e-6)
    assert found.class_id.tolist() == [0, 1, 0, 2, 3]
    assert found["class_name"].tolist() == ["cup", LABELS[1], "cup", "target", "ghost"]
    assert found.xyxy.tolist() == [list(target.box.xyxy) for target in one.targets]
    kept = found[found.confidence > 0.65]  # its own selection
    assert kept["class_name"].tolist() == ["cup", "target", "ghost"]
    np.testing.assert_array_equal(found.area, [target.mask.sum() for target in one.targets])
    drawn = sv.MaskAnnotator().annotate(one.image.rgb.copy(), found)
    assert (drawn != one.image.rgb).any()


def test_supervision_takes_a_result_without_targets() -> None:
    pytest.importorskip("supervision")
    found = made([]).to_supervision()
    assert len(found) == 0
    assert found.mask.shape == (0, HEIGHT, WIDTH)


def test_without_supervision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rsvp-segmentation\[supervision\]'"):
        made([]).to_supervision()
