"""Points and boxes -> mask on a small folder and on scenes."""

import json

import numpy as np
import pytest
from PIL import Image as Pil

from eval import points
from rsvp.masks import encode_rle
from rsvp.types import Masks, Point


class SquarePainter:
    """Fills a proposal's box, and without one a square around its point."""

    name = "painter"

    def encode(self, images):
        return list(images)

    def masks(self, encoding, proposals):
        found = np.zeros((len(proposals), encoding.height, encoding.width), np.bool_)
        for mask, proposal in zip(found, proposals, strict=True):
            if proposal.box:
                x0, y0, x1, y1 = (int(v) for v in proposal.box.xyxy)
            else:
                x0, y0 = (round(v) - 10 for v in (proposal.points[0].x, proposal.points[0].y))
                x1, y1 = x0 + 20, y0 + 20
            mask[y0:y1, x0:x1] = True
        return Masks(found, np.ones(len(proposals), np.float32))


@pytest.fixture
def folder(tmp_path):
    """A photo with an object of 20 x 20 pixels."""
    mask = np.zeros((60, 80), np.bool_)
    mask[20:40, 30:50] = True
    (tmp_path / "images").mkdir()
    Pil.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80, "split": "val"}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 9, "segmentation": encode_rle(mask)}
        ],
        "categories": [{"id": 9, "name": "square"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


def test_a_square_by_every_prompt(folder):
    found = points.measure(SquarePainter(), points.AnnotatedPhotos(folder, "val"))
    assert (found["images"], found["objects"]) == (1, 1)
    for name in ("box", "box + middle", "box + centre", "box + random", "centre"):
        assert found[name]["mean"] == 1
    assert 0 < found["random"]["mean"] < 1


def test_the_centre_is_on_the_object():
    mask = np.zeros((10, 20), np.bool_)
    mask[:, [2, 15]] = True
    assert points.center_point(mask, Point(9.5, 4.6)) == Point(15.5, 4.5)


def test_the_command_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(points.registry, "make", lambda kind, spec: SquarePainter())
    assert points.main(["--data", str(folder), "--data", "scenes:7,2"]) == 0
    out = capsys.readouterr().out
    assert "box           1.0000 [1.0000, 1.0000]" in out
    assert "scenes:7,2: " in out
    assert points.main(["--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[str(folder)]["objects"] == 1
    assert points.main(["--data", "scenes:7"]) == 2
    assert "scenes:SEED,N" in capsys.readouterr().err
