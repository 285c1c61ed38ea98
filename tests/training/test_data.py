"""Data specs to images: each layout, the texts, the validation split, the errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from painted import (
    SIZE,
    Painted,
    paintings,
    write_coco,
    write_jsonl,
    write_reasonseg,
    write_refcoco,
)  # fmt: skip
from PIL import Image as Pil

from rsvp.errors import BadInput
from rsvp.masks import encode_rle
from rsvp.training.data import ConcatImages, hold_out, open_sources, source_digest

SHOWN = paintings(5)


def names(image) -> list[tuple[str, ...]]:
    return [annotation.texts for annotation in image.annotations]


def assert_shows(image, painting, *colors, exact_pixels=True) -> None:
    """The image is the painting, and its objects are the rectangles of these colours, in order."""
    if exact_pixels:
        np.testing.assert_array_equal(image.rgb, painting.rgb)
    assert image.rgb.shape == (*SIZE, 3)
    assert len(image.annotations) == len(colors)
    for annotation, color in zip(image.annotations, colors, strict=True):
        np.testing.assert_array_equal(annotation.mask, painting.mask(color))
        assert annotation.box.xyxy == painting.boxes[color]


def test_coco_names_each_instance_by_its_category(tmp_path) -> None:
    images = open_sources([f"coco:{write_coco(tmp_path, SHOWN)}"])
    assert len(images) == 5
    for image, painting in zip(map(images.__getitem__, range(5)), SHOWN, strict=True):
        colors = [c for c in ("red", "green", "blue") if c in painting.boxes]
        assert_shows(image, painting, *colors)
        assert names(image) == [(color,) for color in colors]
    rng = np.random.default_rng(0)
    assert {images.random_text(rng) for _ in range(30)} == {"red", "green", "blue"}


def test_coco_takes_a_split(tmp_path) -> None:
    write_coco(tmp_path, SHOWN, splits=["train", "val", "train", "val", "val"])
    assert len(open_sources([f"coco:{tmp_path}#train"])) == 2
    val = open_sources([f"coco:{tmp_path}#val"])
    np.testing.assert_array_equal(val[0].rgb, SHOWN[1].rgb)
    with pytest.raises(BadInput, match="no image of split 'test'; found train, val"):
        open_sources([f"coco:{tmp_path}#test"])
    odd = tmp_path / "a#b"
    assert len(open_sources([f"coco:{write_coco(odd, SHOWN)}"])) == 5  # a path's own #
    assert len(open_sources([f"coco:{odd}"])) == 5


def test_refcoco_names_objects_by_their_phrases(tmp_path) -> None:
    """The categories are equal; two phrases for one object are one annotation."""
    images = open_sources([f"refcoco:{write_refcoco(tmp_path, SHOWN)}"])
    assert len(images) == 5
    for image, painting in zip(map(images.__getitem__, range(5)), SHOWN, strict=True):
        assert_shows(image, painting, *painting.boxes)
        first, second = painting.boxes
        assert names(image) == [(f"the {first} one", f"what is {first}"), (f"the {second} one",)]


def test_refcoco_reads_train_by_default(tmp_path) -> None:
    write_refcoco(tmp_path / "a", SHOWN, split="val")
    with pytest.raises(BadInput, match="no split 'train'; found val"):
        open_sources([f"refcoco:{tmp_path / 'a'}"])
    assert len(open_sources([f"refcoco:{tmp_path / 'a'}#val"])) == 5


def test_grefcoco_lends_the_text_of_what_is_absent(tmp_path) -> None:
    write_refcoco(tmp_path, SHOWN[:1])
    (tmp_path / "refs(unc).p").unlink()
    said = [{"sent_id": 1, "sent": "both"}], [{"sent_id": 2, "sent": "the walrus"}]
    refs = [
        {"split": "train", "image_id": 0, "ann_id": [0, 1], "sentences": said[0]},
        {"split": "train", "image_id": 0, "ann_id": [-1], "sentences": said[1]},
    ]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    images = open_sources([f"refcoco:{tmp_path}"])
    assert len(images) == 1
    assert_shows(images[0], SHOWN[0], *SHOWN[0].boxes)
    assert names(images[0]) == [("both",), ("both",)]
    rng = np.random.default_rng(0)
    assert "the walrus" in {images.random_text(rng) for _ in range(20)}


def test_reasonseg_names_objects_by_the_question(tmp_path) -> None:
    """Its shapes are all called "target", which names nothing."""
    pytest.importorskip("cv2")
    write_reasonseg(tmp_path / "val", SHOWN)
    for spec in (f"reasonseg:{tmp_path / 'val'}", f"reasonseg:{tmp_path}#val"):
        images = open_sources([spec])
        assert len(images) == 5
        for image, painting in zip(map(images.__getitem__, range(5)), SHOWN, strict=True):
            color = next(iter(painting.boxes))
            assert_shows(image, painting, color, exact_pixels=False)  # JPEG
            assert names(image) == [(f"What is {color}?",)]


def test_jsonl_groups_lines_by_image(tmp_path) -> None:
    file = write_jsonl(tmp_path, SHOWN)
    masks = [encode_rle(SHOWN[0].mask(color)) for color in SHOWN[0].boxes]
    line = {"id": "both", "image": "p000.png", "query": "which two?", "masks": masks}
    with file.open("a") as stream:
        stream.write(json.dumps({**line, "labels": ["a box", ""]}) + "\n")
        stream.write(json.dumps({**line, "id": "none", "query": "a walrus", "masks": []}) + "\n")
    images = open_sources([f"jsonl:{file}"])
    assert len(images) == 5
    first, second = SHOWN[0].boxes
    assert_shows(images[0], SHOWN[0], first, second)
    # Own labels name the single objects, where there are any; otherwise the query does.
    assert names(images[0]) == [
        (f"something {first}", "a box"), (f"something {second}", "which two?"),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    assert "a walrus" in {images.random_text(rng) for _ in range(100)}


def test_scenes_are_the_same_every_time() -> None:
    one, same, other = (open_sources([spec]) for spec in ("scenes:3,4", "scenes:3", "scenes:4,4"))
    assert (len(one), len(same)) == (4, 20_000)
    np.testing.assert_array_equal(one[2].rgb, same[2].rgb)
    assert names(one[2]) == names(same[2])
    assert one[2].rgb.shape != other[2].rgb.shape or (one[2].rgb != other[2].rgb).any()
    for index in range(4):
        image = one[index]
        for annotation in image.annotations:
            assert annotation.mask.shape == image.rgb.shape[:2]
            ys, xs = np.nonzero(annotation.mask)
            assert annotation.box.xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert annotation.texts[0]
    with pytest.raises(IndexError):
        one[4]


def test_several_specs_are_one_after_the_other(tmp_path) -> None:
    pytest.importorskip("cv2")
    specs = [
        f"coco:{write_coco(tmp_path / 'a', SHOWN[:2])}",
        f"reasonseg:{write_reasonseg(tmp_path / 'b', SHOWN[2:])}",
        f"coco:{tmp_path / 'a'}",  # twice counts double
    ]
    images = open_sources(specs)
    assert isinstance(images, ConcatImages)
    found = [images[index] for index in range(len(images))]
    assert [p.id.split("/")[0] for p in found] == ["0", "1", "p002", "p003", "p004", "0", "1"]
    rng = np.random.default_rng(0)
    said = {images.random_text(rng) for _ in range(60)}
    assert said & {"red", "green", "blue"}
    assert {text for text in said if text.startswith("What is ")}


@pytest.mark.parametrize(("count", "every"), [(2, 20), (7, 3), (12, 4), (40, 20), (41, 20)])
def test_validation_images_are_not_trained_on(count, every) -> None:
    source = Painted(count)
    train, validation = hold_out(source, every)
    train_ids, validation_ids = (
        {part[i].id for i in range(len(part))} for part in (train, validation)
    )
    assert not train_ids & validation_ids
    assert train_ids | validation_ids == {image.id for image in source.images}
    assert len(validation) == max(1, count // every)
    assert train.random_text(np.random.default_rng(0))


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(BadInput, match="one image is too few"):
        hold_out(Painted(1), 2)


def test_a_source_digest_tells_choices_apart(tmp_path) -> None:
    a = open_sources([f"coco:{write_coco(tmp_path / 'a', SHOWN)}"])
    b = open_sources([f"coco:{write_coco(tmp_path / 'b', SHOWN[:4])}"])
    some, rest = hold_out(a, 2)
    digests = [
        source_digest(p) for p in (a, b, some, rest, hold_out(a, 3)[0], ConcatImages([a, b]))
    ]
    assert len(set(digests)) == len(digests)
    assert source_digest(open_sources([f"coco:{tmp_path / 'a'}"])) == digests[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("coco", "a data spec is KIND:WHERE"),
        ("coco:", "a spec is NAME or NAME:ARGUMENT"),
        ("", "a spec is NAME"),
        ("cocoa:x", "cocoa"),
        ("coco:nowhere", "no such file: nowhere"),
        ("refcoco:nowhere", r"no refs\(unc\)\.p"),
        ("reasonseg:nowhere", "no such folder: nowhere"),
        ("jsonl:nowhere.jsonl", r"no such file: nowhere\.jsonl"),
        ("scenes:x", "scenes are named by a seed"),
        ("scenes:-1", "scenes are named by a seed"),
        ("scenes:1,", None),
        ("scenes:1,x", "scenes are named by a seed"),
        ("scenes:1,0", "holds no scene"),
        ("scenes:²", "scenes are named by a seed"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(spec, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if message is None:
        assert len(open_sources([spec]))
        return
    with pytest.raises(BadInput, match=message) as caught:
        open_sources([spec])
    assert "\n" not in str(caught.value)


def test_no_spec_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="no data"):
        open_sources([])


@pytest.mark.parametrize("kind", ["coco", "refcoco", "reasonseg", "jsonl"])
def test_an_image_that_does_not_fit_its_truth_is_refused_by_name(tmp_path, kind) -> None:
    if kind == "reasonseg":
        pytest.importorskip("cv2")
    write = {"coco": write_coco, "refcoco": write_refcoco, "reasonseg": write_reasonseg,
             "jsonl": write_jsonl}[kind]  # fmt: skip
    images = open_sources([f"{kind}:{write(tmp_path, SHOWN[:2])}"])
    image = next(p for p in sorted(tmp_path.rglob("p000.*")) if p.suffix in (".png", ".jpg"))
    if kind != "reasonseg":  # whose polygons fit an image of any size
        Pil.new("RGB", (20, 10)).save(image)
        with pytest.raises(BadInput, match=r"^sample .*: the image is 20x10, its mask 64x48$"):
            images[0]
    image.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"p000\.\w+ is not an image"):
        images[0]
    image.unlink()
    with pytest.raises(BadInput, match=r"p000"):
        images[0]
    assert images[1].annotations


def test_an_image_with_nothing_on_it_is_refused_by_name(tmp_path) -> None:
    file = write_jsonl(tmp_path, SHOWN[:1])
    line = {"id": "z", "image": "p000.png", "query": "a walrus", "masks": []}
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(BadInput, match="sample z: no query has a target in this image"):
        open_sources([f"jsonl:{file}"])[0]
