"""The results of many images as one data set.

``coco.json`` and ``coco-rle.json`` hold all images. ``yolo/`` is a folder for training. Every other
format gets a folder of its own, in which the files lie as the images do: ``overlay/a/1.png`` and
``labelme/a/1.json`` for ``a/1.jpg``, ``png/a/1/000.png`` where there are several.

A category keeps its number when more images are added: ``categories.json`` lists the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rsvp import registry
from rsvp.errors import BadInput
from rsvp.platform.files import atomic_write, dumps, json_bytes, parse_json, read_bytes, writable
from rsvp.types import Segmentation
from rsvp.writers import check_formats, coco, yolo
from rsvp.writers.common import label_of, labels_of

CATEGORIES = "categories.json"

# Of one result alone: `results.jsonl` is the JSON of a batch, and what the MLLM saw is not kept.
_SINGLE = {"json": "results.jsonl has it", "prompt": "a batch does not keep what the MLLM saw"}


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """An image of a data set.

    Attributes:
        number: of the image, from 1; the same whenever the data set is written.
        name: relative path of the image file, with ``/``.
        stem: what its files are called: `name` without suffix, where no other has the same.
        result: all targets that were found in it.
    """

    number: int
    name: str
    stem: str
    result: Segmentation


# The entries, anew at each call; False: without pixels, an image of zeros has the size alone.
Entries = Callable[[bool], Iterator[DatasetEntry]]


def check_dataset_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once; BadInput where one is unknown, or is of one result alone."""
    for name in formats:
        if name in _SINGLE:
            raise BadInput(f"--format {name}: {_SINGLE[name]}")
    return check_formats(formats) if formats else ()


def write_dataset(entries: Entries, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write a data set in each format; the files and folders.

    An image is read again where a format needs its pixels. Files of an earlier data set in the
    folder are replaced.

    Raises:
        BadInput: an unknown format, or a file cannot be read or written.
    """
    if not (names := check_dataset_formats(formats)):
        return []
    labels = _labels(entries, folder / CATEGORIES)
    written = [folder / CATEGORIES]
    for name in names:
        if name in ("coco", "coco-rle"):
            file = folder / f"{name}.json"
            written.append(atomic_write(file, _coco(entries, labels, rle=name == "coco-rle")))
            continue
        inner = folder / name
        files = _yolo(entries, labels) if name == "yolo" else _each(entries, name, inner)
        for path, content in files:
            with writable(inner / path):
                (inner / path).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(inner / path, content)
        written.append(inner)
    return written


def _labels(entries: Entries, file: Path) -> list[str]:
    """All labels: those of the file in their order, then new ones, which are added to it."""
    known = parse_json(read_bytes(file), str(file)) if file.is_file() else []
    if not isinstance(known, list) or not all(isinstance(name, str) for name in known):
        raise BadInput(f"{file} is not a list of categories; remove it")
    found = (label for entry in entries(False) for label in labels_of(entry.result))
    labels = list(dict.fromkeys((*known, *found)))
    if labels != known or not file.is_file():
        atomic_write(file, json_bytes(labels), sync=True)
    return labels


def _coco(entries: Entries, labels: Sequence[str], *, rle: bool) -> Iterator[bytes]:
    """The lines of the file; one entry is in memory at a time."""
    numbers = {label: number for number, label in enumerate(labels, start=1)}

    def images() -> Iterator[object]:
        for entry in entries(False):
            yield coco.image_entry(entry.number, entry.name, entry.result.image)

    def annotations() -> Iterator[object]:
        number = 0
        for entry in entries(False):
            for target in entry.result.targets:
                number += 1
                category = numbers[label_of(target)]
                yield coco.annotation(number, entry.number, target, category, rle=rle)

    parts = (
        ("images", images()),
        ("categories", coco.categories(labels)),
        ("annotations", annotations()),
    )
    yield b'{"info": {"description": "rsvp batch"}'
    for name, values in parts:
        yield f',\n"{name}": ['.encode()
        for place, value in enumerate(values):
            yield f"{',' if place else ''}\n{dumps(value, indent=None)}".encode()
        yield b"]"
    yield b"}\n"


def _yolo(entries: Entries, labels: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The labels and copies of all images, then `data.yaml`."""
    for entry in entries(True):
        lines, _ = yolo.to_yolo(entry.result, labels)
        image, content = yolo.image_file(entry.result.image)
        yield f"labels/{entry.stem}.txt", "".join(f"{line}\n" for line in lines).encode()
        yield f"images/{entry.stem}{Path(image).suffix}", content
    yield yolo.DATA, yolo.data_yaml(labels)


def _each(entries: Entries, name: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files that a writer of single results gives for every image."""
    writer = registry.load("writer", name)
    for entry in entries(True):
        parent = (folder / entry.stem).parent
        with writable(parent):
            parent.mkdir(parents=True, exist_ok=True)  # paths may be relative to it
        files = [(PurePosixPath(file), one) for file, one in writer(entry.result, parent)]
        alone = len(files) == 1 and len(files[0][0].parts) == 1
        for path, content in files:
            yield f"{entry.stem}{path.suffix if alone else f'/{path.name}'}", content
