"""SegInW read back: every category on every image, and what is broken refused by file and id."""

import copy
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from rsvp.datasets import BaseDataset, instances
from rsvp.datasets.seginw import FILE, SETS, SeginwDataset
from rsvp.errors import BadInput
from rsvp.masks import decode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
HEIGHT, WIDTH = 20, 30
SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [0, 40, 560]}  # the first two columns

DOCUMENT = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH},
        {"id": 3, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
    ],
    "categories": [{"id": 2, "name": "metal"}, {"id": 1, "name": "hand"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0},
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": RUNS},
        {"id": 2, "image_id": 7, "category_id": 2, "segmentation": [SQUARE]},
        {"id": 3, "image_id": 7, "category_id": 2, "segmentation": RUNS, "iscrowd": 1},
    ],
}


def write(folder, document=DOCUMENT, name="Hand-Metal"):
    valid = folder / name / "valid"
    valid.mkdir(parents=True)
    for image in ("a.jpg", "b.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(valid / image)
    (valid / FILE).write_text(json.dumps(document))
    return valid


def changed(path, value):
    """The document with one value replaced; `path` leads there."""
    document = copy.deepcopy(DOCUMENT)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return document


def test_the_table_holds_the_25_official_sets():
    assert len(SETS) == len(set(SETS)) == 25


def test_every_category_is_asked_on_every_image_even_the_empty_one(tmp_path):
    write(tmp_path)
    dataset = SeginwDataset(tmp_path)
    assert isinstance(dataset, BaseDataset)
    ids = [dataset.sample_id(i) for i in range(len(dataset))]
    assert ids == ["7/1", "7/2", "3/1", "3/2"]
    samples = [dataset[i] for i in range(len(dataset))]
    assert [s.id for s in samples] == ids
    assert [s.query for s in samples] == ["hand", "metal", "hand", "metal"]
    assert [s.absent for s in samples] == [False, False, True, True]
    assert {s.kind for s in samples} == {"Hand-Metal"}
    assert all(s.image.is_file() for s in samples)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_masks_are_pycocotools_own(tmp_path):
    write(tmp_path)
    hand = SeginwDataset(tmp_path)[0]
    square = coco.decode(coco.merge(coco.frPyObjects([SQUARE], HEIGHT, WIDTH))).astype(bool)
    columns = np.zeros((HEIGHT, WIDTH), dtype=bool)
    columns[:, :2] = True
    np.testing.assert_array_equal(hand.objects[0].mask, square)
    np.testing.assert_array_equal(hand.objects[1].mask, columns)
    np.testing.assert_array_equal(hand.mask, square | columns)
    assert [b.xyxy for b in hand.boxes] == [(5, 5, 15, 15), (0, 0, 2, 20)]
    assert hand.ignore is None


def test_a_crowd_is_no_object_but_left_out(tmp_path):
    write(tmp_path)
    metal = SeginwDataset(tmp_path)[1]
    assert len(metal.objects) == 1
    assert metal.ignore is not None
    assert metal.ignore.sum() == 40
    assert not (metal.ignore & metal.mask).any()


def test_several_sets_come_in_the_published_order_with_their_names_in_the_ids(tmp_path):
    for name in ("Zebras", "Cows", "Hand-Metal"):
        write(tmp_path, name=name)
    dataset = SeginwDataset(tmp_path)
    assert list(dataset.sets) == ["Hand-Metal", "Cows", "Zebras"]
    assert len(dataset) == 12
    assert dataset.sample_id(4) == dataset[4].id == "Cows/7/1"
    assert dataset.sample_id(7) == "Cows/3/2"
    assert dataset.queries[7] == ("Cows", 3, 2)


def test_one_sets_own_folder_opens_too(tmp_path):
    valid = write(tmp_path, name="Cows")
    for folder in (valid, valid.parent):
        dataset = SeginwDataset(folder)
        assert list(dataset.sets) == ["Cows"]
        assert dataset.sample_id(0) == "7/1"


def test_other_truth_has_another_digest(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two", changed(("annotations", 0, "category_id"), 2))
    one, two = SeginwDataset(tmp_path / "one"), SeginwDataset(tmp_path / "two")
    assert one.digest != two.digest
    assert one.digest == SeginwDataset(tmp_path / "one").digest


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("images",), {}, "'images' should be list, found dict"),
        (("images", 0, "id"), 3, "two images have the id 3"),
        (("images", 0, "height"), True, "images 7: 'height' should be int, found bool"),
        (("images", 0, "height"), 10**9, "images 7: 30x1000000000 pixels are too many"),
        (("images", 0, "width"), 0, "images 7: the size 0x20 is not positive"),
        (("images", 0, "file_name"), "../../b.jpg", "images 7: '../../b.jpg' leads out"),
        (("images", 0, "file_name"), "", "images 7: '' is no file name"),
        (("images", 0, "file_name"), "a\0.jpg", "images 7: .* is no file name"),
        (("images", 0, "file_name"), "a" * 300, "images 7: 'a+' is no file name"),
        (("images", 0, "file_name"), "/etc/passwd", "images 7: '/etc/passwd' leads out"),
        (("categories", 0, "id"), 1, "two categories have the id 1"),
        (("categories", 0, "name"), None, "categories 2: 'name' should be str"),
        (("annotations", 1, "id"), 0, "two annotations have the id 0"),
        (("annotations", 1, "id"), "x", "annotations at place 1: 'id' should be int, found str"),
        (("annotations", 1, "id"), 2**64, "annotations 18446744073709551616: 'id' should be less"),
        (("annotations", 1), 5, "annotations at place 1: expected an object, found int"),
        (("annotations", 1, "image_id"), 9, "annotations 1: there is no image_id 9"),
        (("annotations", 1, "category_id"), 9, "annotations 1: there is no category_id 9"),
        (("annotations", 1, "segmentation"), None, "annotations 1: a mask is COCO RLE"),
        (("annotations", 1, "segmentation"), [], "annotations 1: .* at least three corners"),
        (("annotations", 1, "segmentation"), [[1, 2, 3, 4]], "1: .* at least three corners"),
        (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, 6, 7]], "1: a polygon is a list"),
        (("annotations", 1, "segmentation"), [SQUARE, [1, 2]], "1: a polygon is a list"),
        (("annotations", 1, "segmentation"), ["abcdef"], "1: segmentation: '0' should be list"),
        (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, 1e30]], "far outside the image"),
        (
            ("annotations", 1, "segmentation"),
            [[1, 2, 3, 4, 5, None]],
            "1: segmentation: '0.5' should be",
        ),
        (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, 10**400]], "'0.5' should be float"),
        (("annotations", 1, "segmentation", "size"), [9, 9], r"annotations 1: .* \[9, 9\]"),
        (("annotations", 1, "segmentation", "counts"), [1, 2], "annotations 1: .* cover 3 pixels"),
    ],
)
def test_what_is_broken_is_refused_in_one_line(tmp_path, path, value, said):
    write(tmp_path, changed(path, value))
    with pytest.raises(BadInput, match=said) as caught:
        SeginwDataset(tmp_path)
    assert FILE in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null", "\udcff"])
def test_a_file_that_is_no_instances_file_is_refused(tmp_path, text):
    valid = write(tmp_path)
    (valid / FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=FILE):
        SeginwDataset(tmp_path)


def test_a_folder_without_sets_is_refused(tmp_path):
    with pytest.raises(BadInput, match="_annotations_min1cat"):
        SeginwDataset(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        SeginwDataset(tmp_path / "nowhere")


def test_polygons_are_merged_and_a_line_among_them_is_nothing():
    apart = [SQUARE, [20, 2, 28, 2, 28, 8, 20, 8], [0, 0, 9, 0]]
    merged = decode_rle(instances.encode(apart, (HEIGHT, WIDTH), "here"), (HEIGHT, WIDTH), "here")
    assert merged.sum() == 10 * 10 + 8 * 6
