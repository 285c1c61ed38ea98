"""COCO's instances as samples."""

import json

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.datasets import BaseDataset
from rsvp.datasets.instances import CocoDataset
from rsvp.errors import BadInput
from rsvp.masks import encode_rle

SIZE = (20, 30)


def block(y0, y1, x0, x1):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


CAT, CAT2, CROWD = block(1, 5, 1, 5), block(4, 9, 4, 9), block(3, 15, 2, 8)


def annotation(number, image, category, segmentation, **more):
    fields = {"id": number, "image_id": image, "category_id": category}
    return {**fields, "segmentation": segmentation, **more}


def document():
    return {
        "images": [
            {"id": 5, "file_name": "five.png", "height": 20, "width": 30, "split": "val"},
            {"id": 2, "file_name": "two.png", "height": 20, "width": 30, "split": "train"},
        ],
        "annotations": [
            annotation(1, 2, 8, [[1, 1, 9, 1, 9, 9, 1, 9]]),
            annotation(2, 5, 8, encode_rle(CAT)),
            annotation(3, 5, 3, encode_rle(CAT2)),
            annotation(4, 5, 8, encode_rle(CAT2), iscrowd=0),
            annotation(5, 5, 8, encode_rle(CROWD), iscrowd=1),
            annotation(6, 2, 3, encode_rle(CROWD), iscrowd=1),
        ],
        "categories": [{"id": 8, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write(file, images):
    for folder in (file.parent, images):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document()))
    for entry in document()["images"]:
        Pil.new("RGB", SIZE[::-1]).save(images / entry["file_name"])


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "instances.json", tmp_path / "images")
    return tmp_path


def test_every_category_of_an_image_is_a_sample(folder):
    dataset = CocoDataset(folder)
    assert isinstance(dataset, BaseDataset)
    assert [dataset.sample_id(i) for i in range(len(dataset))] == ["5/3", "5/8", "2/8"]
    _, cats, polygon = dataset
    assert (cats.id, cats.query, cats.labels) == ("5/8", "cat", ("cat", "cat"))
    assert cats.image == folder / "images" / "five.png"
    assert [b.xyxy for b in cats.boxes] == [(1, 1, 5, 5), (4, 4, 9, 9)]
    np.testing.assert_array_equal(cats.mask, CAT | CAT2)
    assert polygon.boxes[0].xyxy == (1, 1, 9, 9)


def test_a_crowd_is_ignored_outside_of_the_instances(folder):
    dogs, cats, _ = CocoDataset(folder)
    np.testing.assert_array_equal(cats.ignore, CROWD & ~(CAT | CAT2))
    assert dogs.ignore is None


def test_a_split_is_chosen(folder):
    train = CocoDataset(folder, split="train")
    assert [s.id for s in train] == ["2/8"]
    assert train.digest != CocoDataset(folder).digest == CocoDataset(folder).digest
    with pytest.raises(BadInput, match="no image of split 'test'; found train, val"):
        CocoDataset(folder, split="test")


def test_cocos_own_layout(tmp_path):
    file = tmp_path / "annotations" / "instances_val2017.json"
    write(file, tmp_path / "val2017")
    assert all(sample.image.is_file() for sample in CocoDataset(file))


def test_a_missing_file_is_refused_by_name(folder, tmp_path):
    (folder / "images" / "two.png").unlink()
    with pytest.raises(BadInput, match=r"instances\.json: 2/8: no such image file: .*two"):
        CocoDataset(folder).check_images()
    CocoDataset(folder, split="val").check_images()
    with pytest.raises(BadInput, match="no such file"):
        CocoDataset(tmp_path / "images")
