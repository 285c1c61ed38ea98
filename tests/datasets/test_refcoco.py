"""RefCOCO and gRefCOCO: phrases, splits, overlapping polygons, hostile pickles."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image as Pil
from pycocotools import mask as coco

from rsvp.datasets import BaseDataset
from rsvp.datasets.refcoco import RefCocoDataset
from rsvp.errors import BadInput
from rsvp.masks import encode_rle

SIZE = (20, 30)


def square(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def official(segmentation):
    """What LISA computes: the sum over the polygons, 2 where two of them overlap."""
    return np.sum(coco.decode(coco.frPyObjects(segmentation, *SIZE)), axis=2)


OVERLAPPING = [square(2, 2, 10, 10), square(6, 6, 14, 14)]
PLAIN = [square(20, 3, 25, 9)]
RUNS = np.zeros(SIZE, dtype=bool)
RUNS[1:4, 2:7] = True

INSTANCES = {
    "images": [
        {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 20, "width": 30},
        {"id": 8, "file_name": "COCO_train2014_000000000008.jpg", "height": 20, "width": 30},
    ],
    "annotations": [
        {"id": 70, "image_id": 7, "category_id": 1, "segmentation": OVERLAPPING},
        {"id": 71, "image_id": 7, "category_id": 2, "segmentation": PLAIN},
        {"id": 80, "image_id": 8, "category_id": 2, "segmentation": encode_rle(RUNS)},
        {"id": 81, "image_id": 8, "category_id": 2, "segmentation": []},
        {"id": 82, "image_id": 9, "category_id": 2, "segmentation": "unused"},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


def ref(split, image, annotation, *sentences):
    spoken = [{"sent_id": number, "sent": text, "raw": text} for number, text in sentences]
    return {"split": split, "image_id": image, "ann_id": annotation, "sentences": spoken}


REFS = [
    ref("val", 7, 70, (1, "  The LEFT cat "), (2, "cat")),
    ref("testA", 8, 80, (3, "dog")),
    ref("val", 7, 71, (4, "the dog")),
    ref("testAB", 8, 81, (5, "nothing drawn")),
    ref("train", 8, 80, (6, "a dog")),
]


def write(folder, refs=REFS, instances=INSTANCES, name="refs(unc).p", images="train2014"):
    folder.mkdir(exist_ok=True)
    data = json.dumps(refs).encode() if name.endswith("json") else pickle.dumps(refs, protocol=0)
    (folder / name).write_bytes(data)
    (folder / "instances.json").write_text(json.dumps(instances))
    if images:
        (folder / images).mkdir(exist_ok=True, parents=True)
        for image in instances["images"]:
            Pil.new("RGB", SIZE[::-1]).save(folder / images / image["file_name"])
    return folder


def test_every_sentence_is_a_sample(tmp_path):
    dataset = RefCocoDataset(write(tmp_path))
    assert isinstance(dataset, BaseDataset)
    assert [dataset.sample_id(i) for i in range(len(dataset))] == ["1", "2", "4"]
    assert [s.query for s in dataset] == ["the left cat", "cat", "the dog"]
    first = dataset[0]
    assert (first.id, first.kind, first.labels) == ("1", "all", ("cat",))
    assert first.image == tmp_path / "train2014" / "COCO_train2014_000000000007.jpg"
    assert first.image.is_file()


def test_polygons_are_summed_and_their_overlap_is_kept(tmp_path):
    dataset = RefCocoDataset(write(tmp_path))
    overlapping, plain = dataset[0], dataset[2]
    total = official(OVERLAPPING)
    assert total.max() == 2
    np.testing.assert_array_equal(overlapping.mask, total > 0)
    np.testing.assert_array_equal(overlapping.overlap_mask, total == 2)
    assert overlapping.boxes[0].xyxy == (2, 2, 14, 14)
    np.testing.assert_array_equal(plain.mask, official(PLAIN) > 0)
    assert plain.overlap_mask is None


@pytest.mark.parametrize(
    ("split", "ids"),
    [("val", "124"), ("train", "6"), ("testA", "35"), ("testB", "5"), ("test", "35")],
)
def test_splits_follow_refers_rule(tmp_path, split, ids):
    assert [s.id for s in RefCocoDataset(write(tmp_path), split=split)] == list(ids)


def test_encoded_and_empty_segmentations(tmp_path):
    encoded, empty = RefCocoDataset(write(tmp_path), split="testA")
    np.testing.assert_array_equal(encoded.mask, RUNS)
    assert empty.absent
    assert empty.objects == ()


def test_a_list_of_encodings_is_summed_like_polygons(tmp_path):
    annotation = {**INSTANCES["annotations"][1], "segmentation": [encode_rle(RUNS)] * 2}
    instances = INSTANCES | {"annotations": [INSTANCES["annotations"][0], annotation]}
    sample = RefCocoDataset(write(tmp_path, instances=instances))[2]
    np.testing.assert_array_equal(sample.mask, RUNS)
    np.testing.assert_array_equal(sample.overlap_mask, RUNS)


GENERAL = [
    ref("val", 7, [70, 71], (1, "Both animals")),
    ref("val", 7, [-1], (2, "the horse")),
    ref("val", 7, [71], (3, "the dog")),
]


@pytest.mark.parametrize("name", ["grefs(unc).json", "refs(unc).p"])
def test_the_general_benchmark_unites_masks_and_knows_absence(tmp_path, name):
    dataset = RefCocoDataset(write(tmp_path, GENERAL, name=name))
    assert dataset.general
    both, none, one = dataset
    expected = (official(OVERLAPPING) > 0) | (official(PLAIN) > 0)
    np.testing.assert_array_equal(both.mask, expected)
    assert [s.kind for s in (both, none, one)] == ["target", "no-target", "target"]
    assert both.overlap_mask is None
    assert both.labels == ("cat", "dog")
    assert none.absent
    assert none.mask.shape == SIZE
    assert none.objects == ()


def test_divisions_are_chosen(tmp_path):
    write(tmp_path, [ref("val", 7, 70, (1, "of google"))], name="refs(google).p")
    assert RefCocoDataset(tmp_path)[0].query == "of google"
    write(tmp_path, [ref("val", 7, 70, (1, "of umd"))], name="refs(umd).p")
    assert RefCocoDataset(tmp_path)[0].query == "of umd"
    assert RefCocoDataset(tmp_path, split_by="google")[0].query == "of google"
    with pytest.raises(BadInput, match=r"no refs\(unc\); found google, umd"):
        RefCocoDataset(tmp_path, split_by="unc")


@pytest.mark.parametrize(
    "images", ["images/mscoco/images/train2014", "../train2014", "images", "train2014"]
)
def test_the_photographs_are_found(tmp_path, images):
    for sample in RefCocoDataset(write(tmp_path / "refcoco", images=images)):
        assert sample.image.is_file()


def test_annotations_alone_are_enough_to_score(tmp_path):
    (tmp_path / "beside").mkdir()
    dataset = RefCocoDataset(write(tmp_path / "beside" / "refcoco", images=None))
    assert dataset[0].mask.any()
    with pytest.raises(BadInput, match="1: no such image file"):
        dataset.check_images()


def test_a_missing_photograph_is_refused_by_name(tmp_path):
    write(tmp_path)
    (tmp_path / "train2014" / "COCO_train2014_000000000007.jpg").unlink()
    with pytest.raises(BadInput, match=r"refs\(unc\)\.p: 1: no such image file: .*0007\.jpg"):
        RefCocoDataset(tmp_path).check_images()


def test_another_split_or_file_has_another_digest(tmp_path):
    digest = RefCocoDataset(write(tmp_path)).digest
    assert RefCocoDataset(tmp_path).digest == digest
    assert RefCocoDataset(tmp_path, split="testA").digest != digest
    write(tmp_path, [*REFS, ref("val", 7, 71, (9, "more"))])
    assert RefCocoDataset(tmp_path).digest != digest


class Hostile:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path, capsys):
    write(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Hostile()], protocol))
        with pytest.raises(BadInput, match=r"refs\(unc\)\.p: not a pickle of plain data.*print"):
            RefCocoDataset(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_pickle_of_python_2_is_read(tmp_path):
    # protocol 0, byte strings ('S') as keys and Unicode ('V') as text, as cPickle wrote them
    write(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(
        b"(lp1\n(dp2\nS'split'\np3\nS'val'\np4\nsS'image_id'\np5\nI7\nsS'ann_id'\np6\nL70L\n"
        b"sS'sentences'\np7\n(lp8\n(dp9\nS'sent_id'\np10\nI1\nsS'sent'\np11\n"
        b"Vcaf\\u00e9 cat\np12\nsS'raw'\np13\nS'caf\\xe9'\np14\nsasa."
    )
    assert [s.query for s in RefCocoDataset(tmp_path)] == ["café cat"]


@pytest.mark.parametrize(
    "data", [b"", b"no pickle", pickle.dumps(REFS)[:-20], b"\x80\x04]\x94h\x09."]
)
def test_a_broken_pickle_is_refused(tmp_path, data):
    write(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(data)
    with pytest.raises(BadInput, match=r"refs\(unc\)\.p: not a pickle of plain data"):
        RefCocoDataset(tmp_path)


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ({}, "expected a list of references, found dict"),
        ([1], "reference 0: expected an object"),
        ([ref(1, 7, 70)], "reference 0: 'split' should be str"),
        ([ref("val", 7, "70", (1, "x"))], "reference 0: 'ann_id' is a number or"),
        ([ref("val", 7, [], (1, "x"))], "reference 0: 'ann_id' is a number or"),
        ([ref("val", 7, 70, (1, None))], "reference 0: 'sentences.0.sent' should be str"),
        ([ref("val", 7, 70, (1, "x"), (1, "y"))], "two samples have the id '1'"),
        ([ref("val", 7, 99, (1, "x"))], "no annotations with the id 99"),
        ([ref("val", 99, 70, (1, "x"))], "no images with the id 99"),
        ([ref("val", 8, 70, (1, "x"))], "annotations 70 is not of image 8, which sentence 1"),
        ([ref("train", 7, 70, (1, "x"))], "no split 'val'; found train"),
    ],
)
def test_references_that_make_no_sense_are_refused(tmp_path, refs, message):
    write(tmp_path, refs)
    with pytest.raises(BadInput, match=message):
        RefCocoDataset(tmp_path)


@pytest.mark.parametrize(
    "segmentation",
    [None, [[1, 2, 3]], [square(0, 0, 1e12, 5)], [["a"] * 6], {"size": [2, 2], "counts": [4]}],
)
def test_a_broken_segmentation_is_refused_by_name(tmp_path, segmentation):
    annotation = {**INSTANCES["annotations"][0], "segmentation": segmentation}
    instances = INSTANCES | {"annotations": [annotation, INSTANCES["annotations"][1]]}
    with pytest.raises(BadInput, match=r"instances\.json: annotations 70: "):
        RefCocoDataset(write(tmp_path, instances=instances))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "'images' should be list"),
        (
            {"images": [{**INSTANCES["images"][0], "height": 10**9}]},
            "images 7: 30x1000000000 pixels",
        ),
        ({"images": [{**INSTANCES["images"][0], "width": 0}]}, "images 7: the size 0x20"),
        ({"images": [{**INSTANCES["images"][0], "file_name": None}]}, "images 7: 'file_name'"),
        ({"categories": [{"id": [], "name": "cat"}]}, "categories at place 0: 'id' should be int"),
        ({"categories": None}, "'categories' should be list"),
        ({"annotations": [{**INSTANCES["annotations"][0], "category_id": {}}]}, "annotations 70: "),
    ],
)
def test_broken_instances_are_refused_by_name(tmp_path, change, message):
    write(tmp_path, REFS[:1])
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES | change))
    with pytest.raises(BadInput, match=rf"instances\.json: {message}"):
        RefCocoDataset(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no refs\(unc\)\.p"):
        RefCocoDataset(tmp_path)
    write(tmp_path)
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(BadInput, match=r"instances\.json: broken JSON"):
        RefCocoDataset(tmp_path)
