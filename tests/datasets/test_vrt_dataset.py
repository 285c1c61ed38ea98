"""VRT-Bench read back, from a TFRecord and from Parquet, whole and broken."""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tfd_utils.pb2 import Example
from tfd_utils.writer import TFRecordWriter

from rsvp.datasets import BaseDataset
from rsvp.datasets.vrt import VrtDataset
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.masks import decode_rle, encode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
HEIGHT, WIDTH = 12, 16


def square(x, y, side=4):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def row(key, **changed):
    objects = {
        "3": {"mask": encode_rle(square(0, 0)), "caption": "a lamp", "original_id": "x"},
        "11": {"mask": encode_rle(square(6, 2)), "caption": "a table"},
        "20": {"mask": encode_rle(square(9, 6))},
        "21": {"mask": encode_rle(np.zeros((HEIGHT, WIDTH), np.bool_)), "caption": "nothing"},
    }
    return {
        "key": key,
        "image": picture(200),
        "question": "What lights the table?",
        "objects_info_json": json.dumps(objects),
        "human_labeled_r_objs": [11, 20],
        "human_labeled_a_objs": [3, 21],
        "class_ids": ["#func", "#loc"],
        **changed,
    }


def example(values):
    message = Example()
    for name, value in values.items():
        feature = message.features.feature[name]
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                feature.int64_list.value.append(one)
            else:
                feature.bytes_list.value.append(one.encode() if isinstance(one, str) else one)
    return message.SerializeToString()


def write_tfrecord(folder, rows):
    folder.mkdir(exist_ok=True)
    with TFRecordWriter(str(folder / "vrt_eval.tfrecord")) as writer:
        for one in rows:
            writer.write(example(one))
    return folder


def write_parquet(folder, rows):
    folder.mkdir(exist_ok=True)
    rows = [{**one, "image": {"bytes": one["image"], "path": None}} for one in rows]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    return folder


WRITERS = pytest.mark.parametrize("write", [write_tfrecord, write_parquet])


@WRITERS
def test_samples_are_read_in_order_with_reasoning_and_answer(tmp_path, write):
    rows = [row("b"), row("a", question="Which?", class_ids=["#comp"], image=picture(90))]
    dataset = VrtDataset(write(tmp_path, rows))
    assert isinstance(dataset, BaseDataset)
    assert [dataset.sample_id(i) for i in range(len(dataset))] == ["b", "a"]

    truth = dataset.truth(0)
    assert (truth.question, truth.size) == ("What lights the table?", (HEIGHT, WIDTH))
    assert truth.classes == ("#func", "#loc")
    assert [one.caption for one in truth.reasoning] == ["a table", ""]
    assert [one.caption for one in truth.answer] == ["a lamp", "nothing"]
    decoded = [decode_rle(one.mask, truth.size, "here") for one in truth.reasoning]
    np.testing.assert_array_equal(decoded, [square(6, 2), square(9, 6)])

    sample = dataset[0]
    np.testing.assert_array_equal(sample.mask, square(0, 0))
    assert sample.labels == ("a lamp",)  # an empty mask has no box
    assert sample.tags == ("#func", "#loc")
    assert (load_image(sample.image).height, load_image(sample.image).width) == (HEIGHT, WIDTH)
    assert load_image(dataset[1].image).rgb[0, 0, 0] == 90
    assert dataset[1].query == "Which?"
    with pytest.raises(IndexError):
        dataset[2]


@WRITERS
def test_a_sample_without_reasoning_objects_has_none(tmp_path, write):
    rows = [row("a", human_labeled_r_objs=[]), row("b")]
    assert VrtDataset(write(tmp_path, rows)).truth(0).reasoning == ()


def test_the_file_itself_opens_too_and_other_data_has_another_digest(tmp_path):
    one = VrtDataset(write_tfrecord(tmp_path / "one", [row("a")]) / "vrt_eval.tfrecord")
    two = VrtDataset(write_tfrecord(tmp_path / "two", [row("b")]))
    assert one.sample_id(0) == "a"
    assert one.digest != two.digest


def test_an_index_beside_the_data_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    write_tfrecord(tmp_path, [row("a")])
    (tmp_path / "vrt_eval.index").write_bytes(pickle.dumps(Trap()))
    assert len(VrtDataset(tmp_path)) == 1
    assert not (tmp_path / "sprung").exists()
    assert {file.name for file in tmp_path.iterdir()} == {"vrt_eval.tfrecord", "vrt_eval.index"}


def objects(**changed):
    return json.dumps({**json.loads(row("a")["objects_info_json"]), **changed})


BROKEN = [
    ({"human_labeled_r_objs": [4]}, "k: there is no object 4"),
    ({"human_labeled_a_objs": [4]}, "k: there is no object 4"),
    ({"objects_info_json": "{"}, "k: broken JSON"),
    ({"objects_info_json": "[]"}, "k: objects_info_json: expected an object, found list"),
    ({"objects_info_json": "{}"}, "k: objects_info_json has no objects"),
    (
        {"objects_info_json": '{"x": {}}'},
        r"k: objects_info_json: 'x\.\[key\]' should be a valid integer",
    ),
    ({"objects_info_json": '{"3": {}}'}, "k: object 3: 'mask' is missing"),
    ({"objects_info_json": '{"3": {"mask": {"size": [0, 4]}}}'}, "k: the size 4x0"),
    (
        {"objects_info_json": '{"3": {"mask": {"size": [99999, 99999]}}}'},
        "k: 99999x99999 pixels",
    ),
    ({"objects_info_json": objects(**{"11": 5})}, "k: object 11: expected an object, found int"),
    (
        {"objects_info_json": objects(**{"11": {"mask": {"size": [9, 9], "counts": "a"}}})},
        r"k: object 11: the mask is of size \[9, 9\]",
    ),
    (
        {"objects_info_json": objects(**{"11": {"mask": {"size": [12, 16], "counts": [5]}}})},
        "k: object 11: the runs of the mask cover 5 pixels",
    ),
    ({"key": "b"}, "two samples have the id 'b'"),
]


@WRITERS
@pytest.mark.parametrize(("change", "said"), BROKEN)
def test_a_broken_sample_is_refused_by_file_and_key(tmp_path, write, change, said):
    write(tmp_path, [row("b"), row("k", **change) if "key" not in change else row("b")])
    with pytest.raises(BadInput, match=said) as caught:
        VrtDataset(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["key", "question", "objects_info_json"])
def test_a_missing_text_is_refused(tmp_path, missing):
    values = row("a")
    del values[missing]
    with pytest.raises(BadInput, match=f"record 0: '{missing}' is missing"):
        VrtDataset(write_tfrecord(tmp_path / "tf", [values]))
    with pytest.raises(BadInput, match=f"no column '{missing}'"):
        VrtDataset(write_parquet(tmp_path / "pq", [values]))


def test_a_missing_image_is_refused_when_it_is_asked_for(tmp_path):
    values = row("a")
    del values["image"]
    dataset = VrtDataset(write_tfrecord(tmp_path, [values]))
    with pytest.raises(BadInput, match="a: the record holds no image bytes"):
        dataset[0]


@pytest.mark.parametrize("place", [0, 9, 40, -1])
def test_a_damaged_record_is_refused_by_its_place(tmp_path, place):
    file = write_tfrecord(tmp_path, [row("a")]) / "vrt_eval.tfrecord"
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(BadInput, match="the record at byte 0 is damaged"):
        VrtDataset(tmp_path)


@pytest.mark.parametrize("kept", [5, 14, -3])
def test_a_truncated_file_is_refused(tmp_path, kept):
    file = write_tfrecord(tmp_path, [row("a")]) / "vrt_eval.tfrecord"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BadInput, match="the record at byte 0 is truncated"):
        VrtDataset(tmp_path)


def test_what_is_no_example_is_refused(tmp_path):
    with TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        writer.write(b"\xff\xff\xff")
    with pytest.raises(BadInput, match="record 0 is no tf"):
        VrtDataset(tmp_path)


def test_a_folder_must_hold_one_such_file_with_samples(tmp_path):
    with pytest.raises(BadInput, match="neither a TFRecord nor a Parquet file"):
        VrtDataset(tmp_path)
    with pytest.raises(BadInput, match="neither a TFRecord nor a Parquet file"):
        VrtDataset(tmp_path / "nowhere")
    (tmp_path / "a.tfrecord").touch()
    with pytest.raises(BadInput, match="no samples"):
        VrtDataset(tmp_path)
    (tmp_path / "b.tfrecord").touch()
    with pytest.raises(BadInput, match="several TFRecord files"):
        VrtDataset(tmp_path)
