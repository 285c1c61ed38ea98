"""ReasonSeg: the official folder, its traps, and the Parquet mirrors."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.datasets import BaseDataset, reasonseg
from rsvp.datasets.reasonseg import open_reasonseg
from rsvp.errors import BadInput, MissingExtra
from rsvp.images import load_image

cv2 = pytest.importorskip("cv2")
HEIGHT, WIDTH = 20, 30


def square(x0, y0, x1, y1):
    """A polygon whose drawn pixels are x0..x1 and y0..y1, both included."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def shape(label, points):
    return {"label": label, "points": points}


def write(folder, stem, shapes=(), text="the thing", sentence=False, **more):
    folder.mkdir(exist_ok=True)
    Pil.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{stem}.jpg")
    document = {"text": [text, "unused"], "is_sentence": sentence, "shapes": list(shapes), **more}
    (folder / f"{stem}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def only(folder):
    (sample,) = open_reasonseg(folder)
    return sample


def official(shapes, size):
    """The mask as LISA's `get_mask_from_json` describes it: 0, 1 and 255 ignored."""
    kept = [s for s in shapes if s["label"].lower() != "flag"]
    areas = []
    for one in kept:
        alone = np.zeros(size, np.uint8)
        cv2.polylines(alone, np.array([one["points"]], np.int32), True, 1, 1)
        cv2.fillPoly(alone, np.array([one["points"]], np.int32), 1)
        areas.append(alone.sum())
    mask = np.zeros(size, np.uint8)
    for i in np.argsort(areas)[::-1].astype(np.int32):
        value = 255 if "ignore" in kept[i]["label"].lower() else 1
        cv2.polylines(mask, np.array([kept[i]["points"]], np.int32), True, value, 1)
        cv2.fillPoly(mask, np.array([kept[i]["points"]], np.int32), value)
    return mask


def test_a_folder_in_the_order_of_its_names(tmp_path):
    write(tmp_path, "b", [shape("target", square(1, 2, 3, 4))], "  What flies? ", sentence=True)
    write(tmp_path, "a", [shape("target", square(0, 0, 0, 0))], "wings")
    dataset = open_reasonseg(tmp_path)
    assert isinstance(dataset, BaseDataset)
    assert [dataset.sample_id(i) for i in range(len(dataset))] == ["a", "b"]
    first, second = dataset[0], dataset[1]
    assert (first.query, first.kind, first.image) == ("wings", "short", tmp_path / "a.jpg")
    assert (second.query, second.kind) == ("What flies?", "long")
    assert first.mask.sum() == 1
    assert second.mask.sum() == 9
    assert [b.xyxy for b in second.boxes] == [(1, 2, 4, 5)]
    assert second.ignore is None
    with pytest.raises(IndexError):
        dataset[2]


def test_the_smaller_shape_lies_on_top_whatever_the_order(tmp_path):
    small, large = square(5, 5, 8, 8), square(2, 2, 15, 15)
    for order in ([0, 1], [1, 0]):
        shapes = [shape("target", large), shape("ignore this", small)]
        folder = write(tmp_path / str(order[0]), "x", [shapes[i] for i in order])
        sample = only(folder)
        assert sample.ignore.sum() == 16
        assert sample.mask.sum() == 14 * 14 - 16
        assert not (sample.mask & sample.ignore).any()
        (one,) = sample.objects
        assert one.box.xyxy == (2, 2, 16, 16)
        np.testing.assert_array_equal(one.mask, sample.mask)


def test_flags_are_skipped_and_ignore_is_found_inside_a_label(tmp_path):
    shapes = [
        shape("FLAG", square(0, 0, 9, 9)),
        shape("Region_IGNORED", square(10, 10, 12, 12)),
        shape("flagpole", square(20, 10, 21, 11)),
    ]
    sample = only(write(tmp_path, "x", shapes))
    assert sample.mask.sum() == 4
    assert sample.ignore.sum() == 9
    assert sample.labels == ("flagpole",)


def test_points_are_cut_not_rounded(tmp_path):
    sample = only(write(tmp_path, "x", [shape("target", square(1.9, 2.9, 4.9, 5.9))]))
    assert sample.boxes[0].xyxy == (1, 2, 5, 6)


def test_thin_shapes_keep_their_outline(tmp_path):
    shapes = [shape("target", [[2, 3]]), shape("target", [[5, 5], [9, 5]])]
    sample = only(write(tmp_path, "x", shapes))
    assert [o.mask.sum() for o in sample.objects] == [1, 5]


def test_a_file_without_polygons_is_a_sample_without_target(tmp_path):
    sample = only(write(tmp_path, "x"))
    assert sample.absent
    assert sample.mask.shape == (HEIGHT, WIDTH)
    assert sample.objects == ()


def test_random_polygons_are_drawn_as_the_official_code_draws_them(tmp_path):
    rng = np.random.default_rng(4)
    for number in range(30):
        shapes = []
        for _ in range(rng.integers(1, 9)):
            points = rng.uniform(-8, 40, (rng.integers(1, 9), 2)).tolist()
            shapes.append(shape(str(rng.choice(["target", "ignore", "flag"])), points))
        write(tmp_path, f"{number:02}", shapes)
        sample = open_reasonseg(tmp_path)[number]
        expected = official(shapes, (HEIGHT, WIDTH))
        np.testing.assert_array_equal(sample.mask, expected == 1)
        ignored = np.zeros_like(sample.mask) if sample.ignore is None else sample.ignore
        np.testing.assert_array_equal(ignored, expected == 255)
        union = np.zeros_like(sample.mask)
        for one in sample.objects:
            union |= one.mask
        np.testing.assert_array_equal(union, sample.mask)


def test_more_shapes_than_fit_a_byte(tmp_path):
    shapes = [shape("target", [[i % WIDTH, i // WIDTH]]) for i in range(300)]
    assert only(write(tmp_path, "x", shapes)).mask.sum() == 300


def test_cp1252_files_are_read(tmp_path):
    write(tmp_path, "x")
    file = tmp_path / "x.json"
    text = json.dumps(json.loads(file.read_text()) | {"text": ["the dog’s café"]})
    file.write_bytes(json.dumps(json.loads(text), ensure_ascii=False).encode("cp1252"))
    assert only(tmp_path).query == "the dog’s café"


def test_masks_lie_on_the_upright_image(tmp_path):
    write(tmp_path, "x", [shape("target", square(15, 25, 19, 29))])
    exif = Pil.Exif()
    exif[0x0112] = 6
    Pil.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "x.jpg", exif=exif)
    sample = only(tmp_path)
    assert sample.mask.shape == (WIDTH, HEIGHT) == load_image(sample.image).rgb.shape[:2]
    assert sample.mask.sum() == 25


def test_other_annotations_have_another_digest(tmp_path):
    before = open_reasonseg(write(tmp_path, "x")).digest
    assert open_reasonseg(tmp_path).digest == before
    assert open_reasonseg(write(tmp_path, "x", text="another")).digest != before


def test_a_newer_opencv_is_refused_with_the_command(tmp_path, monkeypatch):
    write(tmp_path, "x", [shape("target", square(1, 2, 3, 4))])
    monkeypatch.setattr(reasonseg, "require", lambda *_: SimpleNamespace(__version__="4.11.0.86"))
    with pytest.raises(
        MissingExtra, match=r"4\.11\.0\.86.*pip install 'rsvp-segmentation\[eval\]'"
    ):
        only(tmp_path)


def broken(**changes):
    document = {"text": ["q"], "is_sentence": False, "shapes": []} | changes
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"\x81", "neither UTF-8 nor cp1252"),
        (b"[]", "expected an object, found list"),
        (broken(text=[]), "does not begin with a query"),
        (broken(text="q"), "'text' should be list, found str"),
        (broken(is_sentence=1), "'is_sentence' should be bool"),
        (broken(shapes=[{"label": "x"}]), "'shapes.0.points' is missing"),
        (broken(shapes=[shape("x", [])]), "shape 0: the points are not pairs"),
        (broken(shapes=[shape("x", [[1, 2], [3]])]), "shape 0: the points are not pairs"),
        (broken(shapes=[shape("x", [[1, "a"]])]), "shape 0: the points are not pairs"),
        (broken(shapes=[shape("x", [[1, 1e300]])]), "shape 0: a point lies beyond"),
        (broken(shapes=[shape("x", [[1, float("nan")]])]), "shape 0: a point lies beyond"),
    ],
)
def test_a_broken_annotation_is_refused_by_name(tmp_path, data, message):
    write(tmp_path, "good")
    write(tmp_path, "odd")
    (tmp_path / "odd.json").write_bytes(data)
    with pytest.raises(BadInput, match=rf"odd\.json.*{message}"):
        open_reasonseg(tmp_path)


def test_halves_of_a_pair_are_refused(tmp_path):
    write(tmp_path / "a", "x")
    (tmp_path / "a" / "x.jpg").unlink()
    with pytest.raises(BadInput, match=r"x\.json: sample x has no image x\.jpg"):
        open_reasonseg(tmp_path / "a")
    write(tmp_path / "b", "x")
    (tmp_path / "b" / "x.json").unlink()
    with pytest.raises(BadInput, match=r"x\.jpg: sample x has no annotation x\.json"):
        open_reasonseg(tmp_path / "b")


def test_a_broken_image_is_refused_by_name(tmp_path):
    write(tmp_path, "x")
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"x\.jpg is not an image"):
        only(tmp_path)


def test_a_folder_of_splits_asks_for_one_of_them(tmp_path):
    write(tmp_path / "val", "x", text="of val")
    with pytest.raises(BadInput, match="give one of its folders: val"):
        open_reasonseg(tmp_path)
    assert open_reasonseg(tmp_path, split="val")[0].query == "of val"
    with pytest.raises(BadInput, match="no such folder"):
        open_reasonseg(tmp_path / "nowhere")


# ---------------------------------------------------------------- Parquet


def mask_of(number):
    mask = np.zeros((4 + number, 6), dtype=bool)
    mask[1 : 2 + number, 2:5] = number > 0
    return mask


def rows_of(count=4):
    return {
        "image": [{"bytes": f"image {i}".encode(), "path": None} for i in range(count)],
        "text": [f" query {i} " for i in range(count)],
        "mask": [mask_of(i).tolist() for i in range(count)],
        "image_id": ["same"] * count,
        "ann_id": [f"ann{i}" for i in range(count)],
        "img_height": [4 + i for i in range(count)],
        "img_width": [6] * count,
    }


def write_parquet(file, columns, **options):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(columns), file, **options)
    return file


def test_a_mirror_is_read_in_any_order(tmp_path):
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows_of(), row_group_size=3)
    dataset = open_reasonseg(tmp_path)
    assert isinstance(dataset, BaseDataset)
    assert [dataset.sample_id(i) for i in range(len(dataset))] == ["ann0", "ann1", "ann2", "ann3"]
    for i in (0, 1, 2, 3, 1, 3, 0, 0):
        sample = dataset[i]
        assert (sample.id, sample.query, sample.kind) == (f"ann{i}", f"query {i}", "all")
        assert sample.image == f"image {i}".encode()
        np.testing.assert_array_equal(sample.mask, mask_of(i))
        assert [b.xyxy for b in sample.boxes] == ([(2, 1, 5, 2 + i)] if i else [])
    with pytest.raises(IndexError):
        dataset[4]


def test_a_mirror_can_be_sent_to_another_process(tmp_path):
    dataset = open_reasonseg(write_parquet(tmp_path / "x.parquet", rows_of()))
    again = pickle.loads(pickle.dumps(dataset))
    assert (again[2].id, again.digest) == ("ann2", dataset.digest)


def test_shards_are_one_dataset(tmp_path):
    columns = rows_of(2)
    write_parquet(tmp_path / "test-00000-of-00002.parquet", columns)
    write_parquet(tmp_path / "test-00001-of-00002.parquet", columns | {"ann_id": ["c", "d"]})
    dataset = open_reasonseg(tmp_path)
    assert [s.id for s in dataset] == ["ann0", "ann1", "c", "d"]
    assert dataset[3].image == b"image 1"


def test_the_reasoning_type_is_the_kind(tmp_path):
    columns = rows_of() | {"reasoning_type": ["spatial", "attribute", "spatial", "function"]}
    dataset = open_reasonseg(write_parquet(tmp_path / "x.parquet", columns))
    assert [s.kind for s in dataset] == columns["reasoning_type"]


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ({"ann_id": [7, 8], "image_id": ["a", "b"]}, ["a", "b"]),
        ({"ann_id": [7, 8], "image_id": ["a", "a"]}, ["7", "8"]),
        ({"ann_id": [1, 1], "image_id": ["a", "a"], "other": [1, 2]}, None),
        ({"ann_id": ["0", "0", "1"], "image_id": ["a", "b", "a"]}, ["a/0", "b/0", "a/1"]),
    ],
)
def test_ids_tell_rows_apart_or_are_refused(tmp_path, columns, ids):
    file = write_parquet(tmp_path / "x.parquet", rows_of(len(columns["ann_id"])) | columns)
    if ids is None:
        with pytest.raises(BadInput, match=r"x\.parquet: two samples have the id 'a/1'"):
            open_reasonseg(file)
    else:
        assert [s.id for s in open_reasonseg(file)] == ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": [[[True], [True, False]]]}, r"same: the lines of the mask"),
        ({"mask": [[]]}, r"same: the (lines of the )?mask"),
        ({"mask": ["abc"]}, r"same: the mask is not a list"),
        ({"mask": [[[True, None]]]}, r"same: the mask is not a list"),
        ({"image": [{"bytes": None, "path": "a.jpg"}]}, r"same: the row holds no image"),
        ({"text": [None]}, r"same has no text"),
        ({"text": ["  "]}, r"same has no text"),
    ],
)
def test_a_broken_row_is_refused_by_name(tmp_path, change, message):
    file = write_parquet(tmp_path / "x.parquet", rows_of(1) | change)
    with pytest.raises(BadInput, match=rf"x\.parquet: {message}"):
        open_reasonseg(file)[0]


def test_files_that_are_no_mirror_are_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(BadInput, match=r"cannot read .*x\.parquet"):
        open_reasonseg(tmp_path)
    columns = {k: v for k, v in rows_of().items() if k != "mask"}
    with pytest.raises(BadInput, match="no column 'mask'"):
        open_reasonseg(write_parquet(tmp_path / "x.parquet", columns))
    write_parquet(tmp_path / "train-0.parquet", rows_of())
    with pytest.raises(BadInput, match="several splits, choose one of train, x"):
        open_reasonseg(tmp_path)
    assert len(open_reasonseg(tmp_path, split="train")) == 4
    with pytest.raises(BadInput, match="no split 'val'; found train, x"):
        open_reasonseg(tmp_path, split="val")
