"""Data specs to pictures: each layout, what names the things, what is held out, what is refused."""

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
from rsvp.training.pictures import Several, hold_out, open_pictures, signature

SHOWN = paintings(5)


def names(picture) -> list[tuple[str, ...]]:
    return [thing.texts for thing in picture.things]


def assert_shows(picture, painting, *colors, exact_pixels=True) -> None:
    """The picture is the painting, and its things are the rectangles of these colours, in order."""
    if exact_pixels:
        np.testing.assert_array_equal(picture.rgb, painting.rgb)
    assert picture.rgb.shape == (*SIZE, 3)
    assert len(picture.things) == len(colors)
    for thing, color in zip(picture.things, colors, strict=True):
        np.testing.assert_array_equal(thing.mask, painting.mask(color))
        assert thing.box.xyxy == painting.boxes[color]


def test_coco_names_each_instance_by_its_category(tmp_path) -> None:
    pictures = open_pictures([f"coco:{write_coco(tmp_path, SHOWN)}"])
    assert len(pictures) == 5
    for picture, painting in zip(map(pictures.__getitem__, range(5)), SHOWN, strict=True):
        colors = [c for c in ("red", "green", "blue") if c in painting.boxes]
        assert_shows(picture, painting, *colors)
        assert names(picture) == [(color,) for color in colors]
    rng = np.random.default_rng(0)
    assert {pictures.other_text(rng) for _ in range(30)} == {"red", "green", "blue"}


def test_coco_takes_a_split(tmp_path) -> None:
    write_coco(tmp_path, SHOWN, splits=["train", "val", "train", "val", "val"])
    assert len(open_pictures([f"coco:{tmp_path}#train"])) == 2
    val = open_pictures([f"coco:{tmp_path}#val"])
    np.testing.assert_array_equal(val[0].rgb, SHOWN[1].rgb)
    with pytest.raises(BadInput, match="no image of split 'test'; found train, val"):
        open_pictures([f"coco:{tmp_path}#test"])
    odd = tmp_path / "a#b"
    assert len(open_pictures([f"coco:{write_coco(odd, SHOWN)}"])) == 5  # a path's own #
    assert len(open_pictures([f"coco:{odd}"])) == 5


def test_refcoco_names_things_by_their_phrases(tmp_path) -> None:
    """The category is not what tells them apart; two phrases of one thing are one thing."""
    pictures = open_pictures([f"refcoco:{write_refcoco(tmp_path, SHOWN)}"])
    assert len(pictures) == 5
    for picture, painting in zip(map(pictures.__getitem__, range(5)), SHOWN, strict=True):
        assert_shows(picture, painting, *painting.boxes)
        first, second = painting.boxes
        assert names(picture) == [(f"the {first} one", f"what is {first}"), (f"the {second} one",)]


def test_refcoco_takes_train_unless_asked_otherwise(tmp_path) -> None:
    write_refcoco(tmp_path / "a", SHOWN, split="val")
    with pytest.raises(BadInput, match="no split 'train'; found val"):
        open_pictures([f"refcoco:{tmp_path / 'a'}"])
    assert len(open_pictures([f"refcoco:{tmp_path / 'a'}#val"])) == 5


def test_grefcoco_lends_the_text_of_what_is_absent(tmp_path) -> None:
    write_refcoco(tmp_path, SHOWN[:1])
    (tmp_path / "refs(unc).p").unlink()
    said = [{"sent_id": 1, "sent": "both"}], [{"sent_id": 2, "sent": "the walrus"}]
    refs = [
        {"split": "train", "image_id": 0, "ann_id": [0, 1], "sentences": said[0]},
        {"split": "train", "image_id": 0, "ann_id": [-1], "sentences": said[1]},
    ]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    pictures = open_pictures([f"refcoco:{tmp_path}"])
    assert len(pictures) == 1
    assert_shows(pictures[0], SHOWN[0], *SHOWN[0].boxes)
    assert names(pictures[0]) == [("both",), ("both",)]
    rng = np.random.default_rng(0)
    assert "the walrus" in {pictures.other_text(rng) for _ in range(20)}


def test_reasonseg_names_things_by_the_question(tmp_path) -> None:
    """Its shapes are all called "target", which names nothing."""
    pytest.importorskip("cv2")
    write_reasonseg(tmp_path / "val", SHOWN)
    for spec in (f"reasonseg:{tmp_path / 'val'}", f"reasonseg:{tmp_path}#val"):
        pictures = open_pictures([spec])
        assert len(pictures) == 5
        for picture, painting in zip(map(pictures.__getitem__, range(5)), SHOWN, strict=True):
            color = next(iter(painting.boxes))
            assert_shows(picture, painting, color, exact_pixels=False)  # JPEG
            assert names(picture) == [(f"What is {color}?",)]


def test_jsonl_groups_lines_by_image(tmp_path) -> None:
    file = write_jsonl(tmp_path, SHOWN)
    masks = [encode_rle(SHOWN[0].mask(color)) for color in SHOWN[0].boxes]
    line = {"id": "both", "image": "p000.png", "query": "which two?", "masks": masks}
    with file.open("a") as stream:
        stream.write(json.dumps({**line, "labels": ["a box", ""]}) + "\n")
        stream.write(json.dumps({**line, "id": "none", "query": "a walrus", "masks": []}) + "\n")
    pictures = open_pictures([f"jsonl:{file}"])
    assert len(pictures) == 5
    first, second = SHOWN[0].boxes
    assert_shows(pictures[0], SHOWN[0], first, second)
    # Own labels name the single things, where there are any; else the query does.
    assert names(pictures[0]) == [
        (f"something {first}", "a box"), (f"something {second}", "which two?"),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    assert "a walrus" in {pictures.other_text(rng) for _ in range(100)}


def test_scenes_are_the_same_whenever_they_are_asked_for() -> None:
    one, same, other = (open_pictures([spec]) for spec in ("scenes:3,4", "scenes:3", "scenes:4,4"))
    assert (len(one), len(same)) == (4, 20_000)
    np.testing.assert_array_equal(one[2].rgb, same[2].rgb)
    assert names(one[2]) == names(same[2])
    assert one[2].rgb.shape != other[2].rgb.shape or (one[2].rgb != other[2].rgb).any()
    for index in range(4):
        picture = one[index]
        for thing in picture.things:
            assert thing.mask.shape == picture.rgb.shape[:2]
            ys, xs = np.nonzero(thing.mask)
            assert thing.box.xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert thing.texts[0]
    with pytest.raises(IndexError):
        one[4]


def test_several_specs_are_one_after_the_other(tmp_path) -> None:
    pytest.importorskip("cv2")
    specs = [
        f"coco:{write_coco(tmp_path / 'a', SHOWN[:2])}",
        f"reasonseg:{write_reasonseg(tmp_path / 'b', SHOWN[2:])}",
        f"coco:{tmp_path / 'a'}",  # twice counts double
    ]
    pictures = open_pictures(specs)
    assert isinstance(pictures, Several)
    found = [pictures[index] for index in range(len(pictures))]
    assert [p.id.split("/")[0] for p in found] == ["0", "1", "p002", "p003", "p004", "0", "1"]
    rng = np.random.default_rng(0)
    said = {pictures.other_text(rng) for _ in range(60)}
    assert said & {"red", "green", "blue"}
    assert {text for text in said if text.startswith("What is ")}


@pytest.mark.parametrize(("count", "every"), [(2, 20), (7, 3), (12, 4), (40, 20), (41, 20)])
def test_what_is_held_out_is_not_trained_on(count, every) -> None:
    source = Painted(count)
    learned, held = hold_out(source, every)
    kept, apart = ({id(part[i]) for i in range(len(part))} for part in (learned, held))
    assert not kept & apart
    assert kept | apart == {id(picture) for picture in source.pictures}
    assert len(apart) == max(1, count // every)
    assert learned.other_text(np.random.default_rng(0))


def test_one_picture_cannot_be_divided() -> None:
    with pytest.raises(BadInput, match="one picture is too few"):
        hold_out(Painted(1), 2)


def test_a_signature_tells_choices_apart(tmp_path) -> None:
    a = open_pictures([f"coco:{write_coco(tmp_path / 'a', SHOWN)}"])
    b = open_pictures([f"coco:{write_coco(tmp_path / 'b', SHOWN[:4])}"])
    some, rest = hold_out(a, 2)
    told = [signature(p) for p in (a, b, some, rest, hold_out(a, 3)[0], Several([a, b]))]
    assert len(set(told)) == len(told)
    assert signature(open_pictures([f"coco:{tmp_path / 'a'}"])) == told[0]


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
        assert len(open_pictures([spec]))
        return
    with pytest.raises(BadInput, match=message) as told:
        open_pictures([spec])
    assert "\n" not in str(told.value)


def test_no_spec_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="no data is named"):
        open_pictures([])


@pytest.mark.parametrize("kind", ["coco", "refcoco", "reasonseg", "jsonl"])
def test_an_image_that_does_not_fit_its_truth_is_refused_by_name(tmp_path, kind) -> None:
    if kind == "reasonseg":
        pytest.importorskip("cv2")
    write = {"coco": write_coco, "refcoco": write_refcoco, "reasonseg": write_reasonseg,
             "jsonl": write_jsonl}[kind]  # fmt: skip
    pictures = open_pictures([f"{kind}:{write(tmp_path, SHOWN[:2])}"])
    image = next(p for p in sorted(tmp_path.rglob("p000.*")) if p.suffix in (".png", ".jpg"))
    if kind != "reasonseg":  # whose polygons fit an image of any size
        Pil.new("RGB", (20, 10)).save(image)
        with pytest.raises(BadInput, match=r"^sample .*: the image is 20x10, its truth 64x48$"):
            pictures[0]
    image.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"p000\.\w+ is not an image"):
        pictures[0]
    image.unlink()
    with pytest.raises(BadInput, match=r"p000"):
        pictures[0]
    assert pictures[1].things


def test_an_image_with_nothing_on_it_is_refused_by_name(tmp_path) -> None:
    file = write_jsonl(tmp_path, SHOWN[:1])
    line = {"id": "z", "image": "p000.png", "query": "a walrus", "masks": []}
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(BadInput, match="sample z: nothing in this image is asked for"):
        open_pictures([f"jsonl:{file}"])[0]
