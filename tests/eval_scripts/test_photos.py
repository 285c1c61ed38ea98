"""True box -> mask on a small COCO-like folder."""

import json

import numpy as np
import pytest
from PIL import Image as Pil

from eval import photos
from rsvp.datasets import GroundTruthObject
from rsvp.errors import MissingExtra
from rsvp.images import load_image
from rsvp.masks import encode_rle
from rsvp.types import Box, Masks

SIZE = (60, 80)


def disc(cy, cx, ry, rx):
    y, x = np.ogrid[0.5 : SIZE[0], 0.5 : SIZE[1]]
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


@pytest.fixture
def folder(tmp_path):
    """A photo of a bright disc on a dark ground, for val; another, for train."""
    mask = disc(30, 40, 15, 20)
    rgb = np.where(mask[..., None], (230, 200, 40), (20, 30, 60)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 12, rgb.shape, dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Pil.fromarray(rgb + noise).save(tmp_path / "images" / "a.png")
    size = {"height": SIZE[0], "width": SIZE[1]}
    document = {
        "images": [
            {"id": 1, "file_name": "a.png", **size, "split": "val"},
            {"id": 2, "file_name": "missing.png", **size, "split": "train"},
            {"id": 3, "file_name": "unannotated.png", **size, "split": "val"},
        ],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 9, "segmentation": encode_rle(mask)},
            {"id": 6, "image_id": 2, "category_id": 9, "segmentation": encode_rle(mask)},
        ],
        "categories": [{"id": 9, "name": "disc"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


class BoxFiller:
    """A segmenter that fills the left half of every box and records the labels."""

    name = "filler"

    def __init__(self):
        self.labels = []

    def encode(self, images):
        return list(images)

    def masks(self, encoding, proposals):
        found = np.zeros((len(proposals), encoding.height, encoding.width), np.bool_)
        for mask, proposal in zip(found, proposals, strict=True):
            x0, y0, x1, y1 = (int(v) for v in proposal.box.xyxy)
            mask[y0:y1, x0 : (x0 + x1) // 2] = True
            self.labels.append(proposal.label)
        return Masks(found, np.ones(len(proposals), np.float32))


def test_a_disc_by_every_method(folder):
    pytest.importorskip("cv2")
    segmenter = BoxFiller()
    found = photos.measure(segmenter, photos.AnnotatedPhotos(folder, "val"))
    assert (found["images"], found["objects"]) == (1, 1)
    assert found["box"]["mean"] == pytest.approx(np.pi / 4, abs=0.01)
    assert found["ellipse"]["mean"] == 1.0
    assert found["grabcut"]["mean"] > 0.98
    half = found["segmenter"]["mean"]
    # Half of the disc, over the disc and the half box's two corners.
    assert half == pytest.approx((np.pi / 8) / (np.pi / 4 + 0.5 - np.pi / 8), abs=0.01)
    assert segmenter.labels == ["disc"]


def test_grabcut_without_background_is_the_filled_box(folder):
    pytest.importorskip("cv2")
    image = load_image(folder / "images" / "a.png")
    everything = GroundTruthObject("", Box(0, 0, 80, 60), np.ones(SIZE, np.bool_))
    assert photos.grabcuts(image, [everything])[0].all()


def test_missing_opencv_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rsvp-segmentation\[dev\]'"):
        photos.measure(None, photos.AnnotatedPhotos(folder, "val"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("categories"), "categories"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotations 5: a seg"),
        (
            lambda d: d["annotations"][0].update(segmentation=encode_rle(np.zeros(SIZE, np.bool_))),
            "annotations 5: the mask is empty",
        ),
        (lambda d: d["annotations"].pop(0), "no annotated image of split 'val'"),
        (lambda d: d["images"][2].update(split="x") or d["images"][0].update(split="x"), "val"),
        (lambda d: d["images"][0].update(file_name="gone.png"), "gone.png"),
    ],
)
def test_a_broken_folder_is_one_line(folder, capsys, change, said):
    pytest.importorskip("cv2")
    file = folder / "instances.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    assert photos.main(["--data", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_the_command_line(folder, capsys):
    pytest.importorskip("cv2")
    assert photos.main(["--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 1
    assert photos.main(["--data", str(folder)]) == 0
    assert "ellipse    1.0000 [1.0000, 1.0000]" in capsys.readouterr().out
    assert photos.main(["--data", str(folder / "images")]) == 2
    assert capsys.readouterr().err.startswith("error: no such file: ")
