"""Ground truth without image files: scoring needs none, and a run refuses a missing one first."""

import json

import pytest
from benchmark_folders import (
    HEIGHT,
    SIZE,
    WIDTH,
    instances,
    line,
    rectangle,
    write_grefcoco,
    write_lines,
    write_seginw_set,
)
from PIL import Image as Pil

from rsvp.datasets.instances import CocoDataset
from rsvp.datasets.jsonl import JsonlDataset
from rsvp.datasets.refcoco import RefCocoDataset
from rsvp.datasets.scenes import SceneDataset
from rsvp.datasets.seginw import SeginwDataset
from rsvp.errors import BadInput
from rsvp.masks import encode_rle

MASK = rectangle(2, 3, 8, 9)


def image(folder, name="1.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    Pil.new("RGB", (WIDTH, HEIGHT)).save(folder / name)


def coco(folder):
    image(folder / "images")
    (folder / "instances.json").write_text(json.dumps(instances({1: encode_rle(MASK)})))
    return CocoDataset, folder, "1/1"


def seginw(folder):
    write_seginw_set(folder, "Cows", [(1, 1, MASK)], ("cow",), (1,))
    return SeginwDataset, folder, "1/1"


def refcoco(folder):
    write_grefcoco(folder / "grefcoco", [(5, [1])], {1: encode_rle(MASK)})
    image(folder / "grefcoco" / "images")
    return RefCocoDataset, folder / "grefcoco", "5"


def jsonl(folder):
    image(folder)
    file = write_lines(folder / "x.jsonl", [line("a", MASK, image="1.jpg", query="q")])
    return JsonlDataset, file, "a"


def scenes(folder):
    image(folder)
    thing = {"name": "cup", "box": [2, 3, 8, 9], "mask": encode_rle(MASK)}
    query = {"id": "s/0", "kind": "name", "text": "a cup", "targets": [0], "unseen": False}
    size = {"height": HEIGHT, "width": WIDTH}
    scene = {"image": "1.jpg", **size, "objects": [thing], "queries": [query]}
    (folder / "scenes.json").write_text(json.dumps({"version": 1, "scenes": [scene]}))
    return SceneDataset, folder, "s/0"


@pytest.mark.parametrize("write", [coco, seginw, refcoco, jsonl, scenes])
def test_truth_is_the_same_without_the_images_and_the_missing_one_is_named(tmp_path, write):
    reader, source, sample_id = write(tmp_path)
    whole = reader(source)
    whole.check_images()
    (file,) = tmp_path.rglob("*.jpg")
    assert whole[0].image.samefile(file)
    file.unlink()
    dataset = reader(source)
    sample = dataset[0]
    assert (dataset.digest, sample.id, sample.mask.shape) == (whole.digest, sample_id, SIZE)
    assert (sample.mask == MASK).all()
    with pytest.raises(BadInput, match=rf": {sample_id}: no such image file: .*1\.jpg") as caught:
        dataset.check_images()
    assert str(dataset.file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_without_masks_needs_its_image_for_the_size(tmp_path):
    file = write_lines(tmp_path / "x.jsonl", [line("a", image="1.jpg", query="q")])
    with pytest.raises(BadInput, match="line 1, a: no such image file"):
        JsonlDataset(file)
