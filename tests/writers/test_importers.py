"""Exports, opened by the importers of the tools that they are for; those that are not here skip.

`pip install --no-deps datumaro label-studio-converter ultralytics`, and what they import.
"""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil
from pycocotools.coco import COCO
from test_exports import HEIGHT, LABELS, WIDTH, blobs, made

from rsvp import writers
from rsvp.cli.main import main


def reader(module: str) -> Any:
    """An importer's module; skips where it is not installed or cannot be imported."""
    pytest.importorskip(module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{module} cannot be imported: {error}")


@pytest.fixture
def ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its data reader. Its torchvision wants `nms`, which builds for another torch lack."""
    pytest.importorskip("ultralytics")
    import torch

    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    library = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "nms"):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield reader("ultralytics.data.utils")
    del library


# ------------------------------------------------------------ COCO


@pytest.mark.parametrize("kind", ["coco", "coco-rle"])
def test_pycocotools_gets_exactly_the_masks(tmp_path: Path, kind: str, capsys) -> None:
    one = made(blobs(), tmp_path / "photo.png")
    (file,) = writers.write(one, tmp_path / "out", [kind])
    found = COCO(str(file))
    assert found.imgs[1]["file_name"] == "photo.png"
    for annotation, target in zip(found.anns.values(), one.targets, strict=True):
        np.testing.assert_array_equal(found.annToMask(annotation).astype(bool), target.mask)
        assert annotation["iscrowd"] == 0
        assert isinstance(annotation["segmentation"], dict if kind == "coco-rle" else list)


def test_datumaro_imports_coco(tmp_path: Path) -> None:
    """In the layout that it looks for: `annotations/instances_*.json` beside `images`."""
    datumaro = reader("datumaro")
    one = made(blobs()[:4], tmp_path / "photo.png")
    (file,) = writers.write(one, tmp_path / "out", ["coco"])
    for source, target in (
        (file, "annotations/instances_default.json"), (tmp_path / "photo.png", "images/photo.png"),
    ):  # fmt: skip
        (tmp_path / "set" / target).parent.mkdir(parents=True)
        shutil.copy(source, tmp_path / "set" / target)
    found = datumaro.Dataset.import_from(str(tmp_path / "set"), "coco_instances")
    (item,) = found
    assert item.media.data.shape == (HEIGHT, WIDTH, 3)
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    assert names == ["cup", LABELS[1], "target"]
    polygons = [a for a in item.annotations if a.type == datumaro.AnnotationType.polygon]
    assert {a.group for a in polygons} == {1, 2, 3, 4}
    for number, target in enumerate(one.targets, start=1):
        parts = [a for a in polygons if a.group == number]
        assert {names[a.label] for a in parts} == {target.label or "target"}
        # Its own area is that of the polygon, exact along the edges of pixels.
        assert sum(a.get_area() for a in parts) == pytest.approx(target.mask.sum())


def test_label_studio_imports_coco(tmp_path: Path) -> None:
    coco = reader("label_studio_converter.imports.coco")
    one = made(blobs()[:4], tmp_path / "photo.png")
    (file,) = writers.write(one, tmp_path / "out", ["coco"])
    coco.convert_coco_to_ls(str(file), str(tmp_path / "tasks.json"), out_type="predictions")
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["image"].endswith("=/photo.png")
    found = [r for r in task["predictions"][0]["result"] if r["type"] == "polygonlabels"]
    labels = [r["value"]["polygonlabels"] for r in found]
    assert labels == [["cup"], [LABELS[1]], ["cup"], ["target"]]
    points = np.array(found[0]["value"]["points"]) * [WIDTH / 100, HEIGHT / 100]
    ys, xs = np.nonzero(one.targets[0].mask)
    np.testing.assert_allclose(points.min(axis=0), [xs.min(), ys.min()])
    np.testing.assert_allclose(points.max(axis=0), [xs.max() + 1, ys.max() + 1])
    parts = np.array(found[2]["value"]["points"])  # this importer takes one part: the largest
    assert parts.min() > 50


# ------------------------------------------------------------ YOLO


def test_ultralytics_reads_a_folder_of_images(ultralytics: Any, tmp_path: Path) -> None:
    for name, labels in (("one", ("cup", "knife")), ("two", ("knife", "spoon"))):
        whole = made(blobs()[:2], tmp_path / f"{name}.png")
        targets = [replace(t, label=v) for t, v in zip(whole.targets, labels, strict=True)]
        writers.write(replace(whole, targets=tuple(targets)), tmp_path / "set", ["yolo"])
    data = ultralytics.check_det_dataset(str(tmp_path / "set" / "data.yaml"), autodownload=False)
    assert data["names"] == {0: "cup", 1: "knife", 2: "spoon"}
    for name, numbers in (("one", [0, 1]), ("two", [1, 2])):
        image = str(Path(data["train"]) / f"{name}.png")
        (label,) = ultralytics.img2label_paths([image])
        _, rows, shape, segments, *counts, why = ultralytics.verify_image_label(
            (image, label, "", False, data["nc"], 0, 0, False)
        )
        assert (counts[1:], why) == ([0, 1, 0, 0], "")  # missing, found, empty, corrupt
        assert rows[:, 0].tolist() == numbers
        assert tuple(shape) == (HEIGHT, WIDTH)
        for segment, mask in zip(segments, blobs()[:2], strict=True):
            polygon = (segment * [WIDTH, HEIGHT]).reshape(-1)
            filled = ultralytics.polygon2mask((HEIGHT, WIDTH), [polygon])
            np.testing.assert_array_equal(filled.astype(bool), mask)


def test_ultralytics_reads_an_image_without_targets(ultralytics: Any, tmp_path: Path) -> None:
    writers.write(made([]), tmp_path, ["yolo"])
    image = str(tmp_path / "images" / "image.png")
    (label,) = ultralytics.img2label_paths([image])
    found = ultralytics.verify_image_label((image, label, "", False, 1, 0, 0, False))
    assert found[5:] == (0, 1, 1, 0, "")  # missing, found, empty, corrupt


@pytest.mark.parametrize("suffix", [".jpg", ".gif"])
def test_the_image_of_a_yolo_folder_is_the_file_or_a_png(tmp_path: Path, suffix: str) -> None:
    photo = tmp_path / f"photo{suffix}"
    Pil.new("RGB", (WIDTH, HEIGHT), "red").save(photo)
    one = made([])
    from rsvp.images import load_image

    writers.write(replace(one, image=load_image(photo)), tmp_path / "out", ["yolo"])
    (image,) = (tmp_path / "out" / "images").iterdir()
    assert image.name == ("photo.jpg" if suffix == ".jpg" else "photo.png")
    assert (image.read_bytes() == photo.read_bytes()) is (suffix == ".jpg")


# ------------------------------------------------------------ one folder, several images


def export(image: Path, out: Path, formats: str) -> int:
    words = ["--box", "3,4,20,30", "--segmenter", "box", "-q", "--format", formats]
    return main(["segment", "--image", str(image), *words, "--out", str(out)])


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_files_of_an_earlier_image_do_not_stay(tmp_path: Path) -> None:
    one, two, out = tmp_path / "one.png", tmp_path / "two.png", tmp_path / "out"
    Pil.new("RGB", (40, 40), "red").save(one)
    Pil.new("RGB", (40, 40), "blue").save(two)
    assert export(one, out, "json,overlay,png,index,coco,coco-rle,labelme,yolo") == 0
    assert {"one.json", "labels/one.txt", "images/one.png", "index.png"} <= {*files(out)}
    (out / "notes.txt").write_text("mine")
    (out / "labels" / "mine.txt").write_text("mine")
    assert export(two, out, "json,yolo") == 0
    assert files(out) == [
        "data.yaml", "images/two.png", "labels/mine.txt", "labels/two.txt", "notes.txt",
        "result.json",
    ]  # fmt: skip


def test_without_result_json_images_gather_in_a_folder(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        Pil.new("RGB", (40, 40), "red").save(tmp_path / f"{name}.png")
        assert export(tmp_path / f"{name}.png", tmp_path / "out", "labelme,yolo") == 0
    assert files(tmp_path / "out") == [
        "data.yaml", "images/one.png", "images/two.png", "labels/one.txt", "labels/two.txt",
        "one.json", "two.json",
    ]  # fmt: skip
    for name in ("three", "four"):  # with it, the file of the earlier image alone is removed
        Pil.new("RGB", (40, 40), "green" if name == "four" else "blue").save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / f"{name}.png")
        assert export(tmp_path / f"{name}.png", tmp_path / "out", "json,yolo") == 0
    assert [name for name in files(tmp_path / "out") if "/" in name] == [
        *("images/four.png", "images/one.png", "images/two.png"),
        *("labels/four.txt", "labels/one.txt", "labels/two.txt"),
    ]


def test_an_image_that_lies_in_the_dataset_is_labelled_there(tmp_path: Path) -> None:
    photo = tmp_path / "images" / "photo.png"
    photo.parent.mkdir()
    Pil.new("RGB", (40, 40)).save(photo)
    content = photo.read_bytes()
    assert export(photo, tmp_path, "json,yolo") == 0
    assert files(tmp_path) == ["data.yaml", "images/photo.png", "labels/photo.txt", "result.json"]
    Pil.new("RGB", (40, 40), "red").save(tmp_path / "other.png")
    assert export(tmp_path / "other.png", tmp_path, "json") == 0
    assert photo.read_bytes() == content
    assert files(tmp_path) == ["images/photo.png", "other.png", "result.json"]


@pytest.mark.parametrize(
    "name", ["photo.json", "data.yaml", "labels/photo.txt", "images/photo.png"]
)
def test_annotations_made_by_hand_are_kept(tmp_path: Path, name: str, capsys) -> None:
    Pil.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    assert export(tmp_path / "photo.png", tmp_path / "out", "json") == 0
    file = tmp_path / "out" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    assert export(tmp_path / "photo.png", tmp_path / "out", "json,labelme,yolo") == 2
    assert f"{file} belongs to no earlier result" in capsys.readouterr().err
    Pil.new("RGB", (40, 40), "red").save(tmp_path / "other.png")
    assert export(tmp_path / "other.png", tmp_path / "out", "json") == 0
    assert file.read_text() == "{}"


def test_an_image_called_result_loses_no_file(tmp_path: Path) -> None:
    Pil.new("RGB", (40, 40)).save(tmp_path / "result.png")
    assert export(tmp_path / "result.png", tmp_path / "out", "json,labelme") == 0
    assert files(tmp_path / "out") == ["result.json", "result.labelme.json"]
    assert "schema_version" in json.loads((tmp_path / "out" / "result.json").read_text())
