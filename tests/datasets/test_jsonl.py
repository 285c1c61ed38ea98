"""One sample a line."""

import json

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.datasets import BaseDataset
from rsvp.datasets.jsonl import JsonlDataset
from rsvp.errors import BadInput
from rsvp.masks import encode_rle

SIZE = (6, 8)


def block(y0, y1, x0, x1):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


CUP, MUG = block(1, 3, 1, 4), block(2, 6, 3, 8)


def line(**changes):
    entry = {"id": "é1", "image": "a.png", "query": "the cup", "masks": [encode_rle(CUP)]}
    return {k: v for k, v in (entry | changes).items() if v is not ...}


def write(folder, *lines):
    Pil.new("RGB", SIZE[::-1]).save(folder / "a.png")
    texts = [x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in lines]
    (folder / "data.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder / "data.jsonl"


def test_lines_are_samples(tmp_path):
    masks, labels = [encode_rle(CUP), encode_rle(MUG)], ["cup", "mug"]
    file = write(tmp_path, line(), "", line(id="b", masks=masks, labels=labels, kind="k"))
    dataset = JsonlDataset(file)
    assert isinstance(dataset, BaseDataset)
    assert [dataset.sample_id(i) for i in range(len(dataset))] == ["é1", "b"]
    one, two = dataset
    assert (one.id, one.query, one.kind, one.labels) == ("é1", "the cup", "all", ("the cup",))
    assert (two.id, two.kind, two.labels) == ("b", "k", ("cup", "mug"))
    assert two.image == tmp_path / "a.png"
    np.testing.assert_array_equal(one.mask, CUP)
    np.testing.assert_array_equal(two.mask, CUP | MUG)
    assert [b.xyxy for b in two.boxes] == [(1, 1, 4, 3), (3, 2, 8, 6)]
    with pytest.raises(IndexError):
        dataset[2]


def test_no_masks_mean_absent(tmp_path):
    (sample,) = JsonlDataset(write(tmp_path, line(masks=[])))
    assert sample.absent
    assert sample.mask.shape == SIZE


def test_other_lines_have_another_digest(tmp_path):
    digest = JsonlDataset(write(tmp_path, line())).digest
    assert JsonlDataset(write(tmp_path, line(query="else"))).digest != digest


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: broken JSON"),
        ("[]", "line 2: expected an object"),
        (line(id=7), "line 2: 'id' should be string, found int"),
        (line(id="b", query=...), "line 2, b: 'query' is missing"),
        (line(id="b", image="no.png", masks=[]), "line 2, b: no such image file"),
        (line(id="b", image="../a.png"), r"line 2, b: '\.\./a.png' leads out of the folder"),
        (line(id="b", image="/a.png"), "line 2, b: '/a.png' leads out of the folder"),
        (line(id="b", image="x" * 5_000), "line 2, b: 'x{60}' is no file name"),
        (line(id="b", masks=...), "line 2, b: 'masks' is missing"),
        (line(id="b", masks=[1]), "line 2, b: a mask is COCO RLE"),
        (line(id="b", masks=[{"size": [0, 3], "counts": []}]), "line 2, b: the size 3x0"),
        (
            line(id="b", masks=[{"size": [10**6, 10**6], "counts": []}]),
            "line 2, b: 1000000x1000000 pixels",
        ),
        (line(id="b", masks=[{"size": [6, 8], "counts": [3]}]), "line 2, b: the runs of the mask"),
        (
            line(id="b", masks=[encode_rle(CUP), encode_rle(CUP.T)]),
            "line 2, b: the mask is of size",
        ),
        (line(id="b", labels=[]), "line 2, b: 'labels' should be 1 texts"),
        (line(id="b", kind=3), "line 2, b: 'kind' should be str"),
        (line(), "two samples have the id 'é1'"),
    ],
)
def test_a_broken_line_is_refused_by_number_and_id(tmp_path, bad, message):
    with pytest.raises(BadInput, match=rf"data\.jsonl: {message}"):
        JsonlDataset(write(tmp_path, line(), bad))


def test_a_file_without_samples_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no samples"):
        JsonlDataset(write(tmp_path, ""))
    with pytest.raises(BadInput, match="no such file"):
        JsonlDataset(tmp_path / "nowhere.jsonl")
