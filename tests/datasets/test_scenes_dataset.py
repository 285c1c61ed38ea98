"""Rendered scenes read back, whole and broken."""

import copy
import json

import numpy as np
import pytest

from rsvp.datasets import BaseDataset
from rsvp.datasets.scenes import SceneDataset
from rsvp.embedded import scenes
from rsvp.embedded.queries import KINDS
from rsvp.errors import BadInput
from rsvp.masks import encode_rle

N, SEED, SIZE = 9, 77, 96


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    arguments = ["--n", N, "--seed", SEED, "--out", folder, "--size", SIZE, "--queries", 2]
    assert scenes.main([str(a) for a in arguments]) == 0
    return folder


def test_every_query_is_a_sample_with_the_renderers_own_truth(rendered):
    dataset = SceneDataset(rendered)
    assert isinstance(dataset, BaseDataset)
    truth = [
        (scene, query)
        for scene in scenes.scenes(N, SEED, size=SIZE, count=2)
        for query in scene.queries
    ]
    assert len(dataset) == len(truth) > N
    for i, (scene, query) in enumerate(truth):
        sample = dataset[i]
        targets = [scene.objects[t] for t in query.targets]
        expected = np.zeros((SIZE, SIZE), dtype=np.bool_)
        for target in targets:
            expected |= target.mask
        np.testing.assert_array_equal(sample.mask, expected)
        assert sample.absent == (query.kind == "absent") == (not targets)
        assert [b.xyxy for b in sample.boxes] == [t.box.xyxy for t in targets]
        assert sample.labels == tuple(t.category.name for t in targets)
        assert (sample.query, sample.kind) == (query.text, query.kind)
        assert sample.tags == (("unseen",) if query.unseen else ("seen",))
        assert sample.image.is_file()
        assert sample.id == dataset.sample_id(i)
    assert {dataset[i].kind for i in range(len(dataset))} == set(KINDS)


def test_ids_are_unique_and_the_end_is_the_end(rendered):
    dataset = SceneDataset(rendered)
    ids = [dataset.sample_id(i) for i in range(len(dataset))]
    assert len(set(ids)) == len(ids)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_other_truth_has_another_digest(copied):
    folder, document = copied
    before = SceneDataset(folder).digest
    document["scenes"][0]["queries"][0]["text"] += "!"
    write(folder, document)
    assert SceneDataset(folder).digest != before


@pytest.fixture
def copied(tmp_path):
    """A folder of one scene of two objects, and its document, to be broken."""
    mask = np.zeros((4, 6), dtype=np.bool_)
    mask[1:3, 2:5] = True
    thing = {"name": "cup", "box": [2, 1, 5, 3], "mask": encode_rle(mask)}
    query = {"id": "a/0", "kind": "name", "text": "a cup", "targets": [0], "unseen": False}
    scene = {
        "image": "a.png",
        "height": 4,
        "width": 6,
        "objects": [thing, copy.deepcopy(thing)],
        "queries": [query, {**query, "id": "a/1"}],
    }
    (tmp_path / "a.png").write_bytes(b"not looked at yet")
    document = {"version": 1, "scenes": [scene]}
    write(tmp_path, document)
    return tmp_path, document


def write(folder, document):
    (folder / "scenes.json").write_text(json.dumps(document), encoding="utf-8")


def change(path, value):
    """Set the value at a path such as ``scenes.0.image``; None removes it."""

    def apply(document):
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for step in way:
            document = document[step]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "said"),
    [
        (change("version", 2), r"version 2, this rsvp reads version 1"),
        (change("scenes", None), r"'scenes' is missing"),
        (change("scenes", []), r"no samples"),
        (change("scenes.0", 3), r"scene 0: expected an object, found int"),
        (change("scenes.0.image", "b.png"), r"a/0: no such image file: .*b\.png"),
        (change("scenes.0.image", "../a.png"), r"scene 0: '../a.png' leads out of the folder"),
        (change("scenes.0.image", "/etc/passwd"), r"leads out of the folder"),
        (change("scenes.0.image", "x" * 5_000), r"scene 0: 'x{60}' is no file name"),
        (change("scenes.0.objects.1.box", [1, 2, 10**400, 3]), r"is not an xyxy box"),
        (change("scenes.0.height", "4"), r"scene 0: 'height' should be int, found str"),
        (change("scenes.0.height", True), r"scene 0: 'height' should be int, found bool"),
        (change("scenes.0.height", 5), r"scene a.png, object 0: the mask is of size \[4, 6\]"),
        (change("scenes.0.width", 0), r"scene a.png: the size 0x4 is not positive"),
        (change("scenes.0.objects.1.box", [2, 1, 2, 3]), r"'objects.1.box' is not an xyxy box"),
        (change("scenes.0.objects.1.box", [1, 2]), r"'objects.1.box' is not an xyxy box"),
        (change("scenes.0.objects.1.mask.counts", "9"), r"object 1: .* cover 9 pixels.* 24"),
        (change("scenes.0.objects.1.mask", None), r"'objects.1.mask' is missing"),
        (change("scenes.0.queries.1.id", "a/0"), r"two samples have the id 'a/0'"),
        (change("scenes.0.queries.1.id", "i" * 10**6), r"the id 'i{40}'… has 1,000,000 characters"),
        (change("scenes.0.queries.1.targets", [2]), r"a/1: targets \[2\] of 2 objects"),
        (change("scenes.0.queries.1.targets", [-1]), r"a/1: targets \[-1\] of 2 objects"),
        (change("scenes.0.queries.1.targets", [0, 0]), r"a/1: targets \[0, 0\] of 2 objects"),
        (change("scenes.0.queries.1.targets", ["0"]), r"'queries.1.targets.0' should be int"),
        (change("scenes.0.queries.1.unseen", 0), r"'queries.1.unseen' should be bool, found int"),
    ],
)
def test_a_fault_is_one_line_with_file_and_id(copied, apply, said):
    folder, document = copied
    apply(document)
    write(folder, document)
    with pytest.raises(BadInput, match=said) as caught:
        SceneDataset(folder).check_images()
    assert str(folder / "scenes.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_or_missing_file_says_so(tmp_path):
    with pytest.raises(BadInput, match=r"no scenes.json in .*; make a folder of them with"):
        SceneDataset(tmp_path)
    (tmp_path / "scenes.json").write_bytes(b'{"version": 1, "scenes": [')
    with pytest.raises(BadInput, match=r"scenes.json: broken JSON"):
        SceneDataset(tmp_path)
    (tmp_path / "scenes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"scenes.json: broken JSON"):
        SceneDataset(tmp_path)
