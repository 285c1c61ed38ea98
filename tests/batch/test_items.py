"""What a batch reads: folders, JSON lines, lists of paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsvp.batch.gather import names_of
from rsvp.batch.items import STDIN, BatchItem, images_in, read_items
from rsvp.errors import BadInput


def test_a_folder_is_searched_below(tmp_path: Path) -> None:
    for name in (
        "b.PNG",
        "a/10.jpg",
        "a/9.jpeg",
        "a/notes.txt",
        ".git/x.png",
        "out/y.png",
        "a/.z.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(images_in(tmp_path, tmp_path / "out")) == ["b.PNG", "a/10.jpg", "a/9.jpeg"]
    items = read_items(str(tmp_path), ["cup", "pan"], skip=tmp_path / "out")
    assert [(item.id, item.query) for item in items[:3]] == [
        ("b.PNG#1", "cup"), ("b.PNG#2", "pan"), ("a/10.jpg#1", "cup")
    ]  # fmt: skip
    assert read_items(str(tmp_path), ["cup"], skip=tmp_path / "out")[0].id == "b.PNG"


LINES = {
    '{"image": "a.jpg"}': [BatchItem("a.jpg", "F/a.jpg", "cup")],
    "a b.jpg": [BatchItem("a b.jpg", "F/a b.jpg", "cup")],
    '{"id": "7", "image": "/x/a.jpg", "query": ["one", "two"]}': [
        BatchItem("7#1", "/x/a.jpg", "one"), BatchItem("7#2", "/x/a.jpg", "two")
    ],
    '{"image": "a.jpg", "query": "q", "boxes": [[1, 2, 3, 4]], "labels": ["l"]}': [
        BatchItem("a.jpg", "F/a.jpg", "q", boxes=((1.0, 2.0, 3.0, 4.0),), labels=("l",))
    ],
    '{"image": "a.jpg", "query": "q", "within": [1, 2, 3, 4], "exclude": [[5, 6]]}': [
        BatchItem("a.jpg", "F/a.jpg", "q", within=(1.0, 2.0, 3.0, 4.0), exclude=((5.0, 6.0),))
    ],
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_a_file(tmp_path: Path, line: str) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text(f"\n{line}\n")
    found = read_items(str(file), ["cup"])
    assert [repr(item).replace(str(tmp_path), "F") for item in found] == list(
        map(repr, LINES[line])
    )


def test_standard_input_is_relative_to_the_working_directory() -> None:
    items = read_items(STDIN, ["cup"], stdin="a.jpg\r\nb/ä.jpg".encode())
    assert [item.image for item in items] == ["a.jpg", "b/ä.jpg"]


def test_boxes_need_no_query() -> None:
    line = {"image": "a.jpg", "boxes": [[1, 2, 3, 4]]}
    assert read_items(STDIN, stdin=json.dumps(line).encode())[0].query == ""


BAD = {
    b"": "standard input holds no images",
    b"a.jpg": "line 1: there is no query; give one there or by --query",
    b'{"image": "a.jpg", "query": " "}': "there is no query",
    b'\n{"image": ': "line 2: broken JSON",
    b'{"query": "q"}': "'image' is missing",
    b'{"image": "a.jpg", "query": "q", "boxs": []}': "'boxs' Extra inputs are not permitted",
    b'{"image": "a.jpg", "boxes": [[1, 2, 3]]}': "'boxes.0'",
    b'{"image": "a.jpg", "query": "q"}\n{"image": "a.jpg", "query": "r"}': "'a.jpg' is there twice",
    b"\xff\xd8\xff": "for one image: rsvp segment --image",
}


@pytest.mark.parametrize("data", BAD)
def test_broken_lines_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        read_items(STDIN, stdin=data)
    assert BAD[data] in str(caught.value)


def test_files_of_images_have_names_of_their_own() -> None:
    names = names_of(["/x/a/1.jpg", "/x/a/2.jpg", "/x/A/2.png", "/x/b/2.jpg", "/x/a/2.jpg.png"])
    assert names["/x/a/1.jpg"] == ("a/1.jpg", "a/1")
    assert names["/x/a/2.jpg"] == ("a/2.jpg", "a/2.jpg")
    stems = [stem.casefold() for _, stem in names.values()]
    assert len(set(stems)) == len(stems)
