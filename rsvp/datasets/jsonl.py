"""Anybody's own data, one sample a line, for training and evaluation:

    {"id": "1", "image": "a.jpg", "query": "the red cup", "masks": [RLE, …], "labels": ["cup", …]}

`image` is relative to the file; `masks` are COCO run-length encodings of the image's upright pixels
(`rsvp.masks.encode` makes them), one an object, none where nothing answers the query.
`labels` (as many as masks) and `kind` (by which scores are also reported) may be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rsvp.datasets import Sample, TrueObject
from rsvp.datasets import _files as files
from rsvp.errors import BadInput
from rsvp.images import MAX_PIXELS, image_size
from rsvp.masks import decode_rle, mask_to_box, rle_runs

KIND = "all"


class JsonlDataset:
    """The lines of a file. Only ids and places are kept, so that a file may be larger than memory.

    Attributes:
        file: the file.
        digest: SHA-256 of the file.
    """

    def __init__(self, file: str | Path) -> None:
        """Open a file, checking every line.

        Raises:
            BadInput: the file is missing, a line or mask is broken, an image is missing, an id
                comes twice. One line with the file, the line's number and the id.
        """
        self.file = Path(file)
        self._ids: list[str] = []
        self._image_names: list[str] = []
        self._places: list[tuple[int, int]] = []  # (line number, offset)
        digest = hashlib.sha256()
        for number, offset, line in self._lines():
            digest.update(line)
            if line.strip():
                sample_id, image = _check(line, self.file, number)
                self._ids.append(sample_id)
                self._image_names.append(image)
                self._places.append((number, offset))
        if not self._ids:
            raise BadInput(f"{self.file}: no samples")
        files.check_unique(self._ids, self.file)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ids)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without reading its line."""
        return self._ids[index]

    def image_key(self, index: int) -> str:
        """The name of a sample's image, as its line has it."""
        return self._image_names[index]

    def __getitem__(self, index: int) -> Sample:
        number, offset = self._places[index]
        with self.file.open("rb") as stream:
            stream.seek(offset)
            line = stream.readline()
        where = f"{self.file}: line {number}"
        entry = files.parse_json(line, where)
        masks = files.field(entry, "masks", list, where)
        image = self.file.parent / entry["image"]
        size = _size(masks[0], where) if masks else image_size(image)
        union = np.zeros(size, dtype=np.bool_)
        objects = []
        for label, encoded in zip(_labels(entry, where), masks, strict=True):
            mask = decode_rle(encoded, size, where)
            box = mask_to_box(mask)
            if box is not None:
                union |= mask
                objects.append(TrueObject(label, box, mask))
        return Sample(
            id=entry["id"],
            image=image,
            query=entry["query"],
            kind=entry.get("kind", KIND),
            mask=union,
            objects=tuple(objects),
        )

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """(number from 1, offset in bytes, line) of every line."""
        offset = 0
        try:
            with self.file.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    yield number, offset, line
                    offset += len(line)
        except FileNotFoundError:
            raise BadInput(f"no such file: {self.file}") from None
        except OSError as error:
            raise BadInput(f"cannot read {self.file}: {error.strerror}") from error


def _check(line: bytes, file: Path, number: int) -> tuple[str, str]:
    """The id of a line and its image's name, refused when anything about the line is wrong."""
    where = f"{file}: line {number}"
    entry = files.parse_json(line, where)
    sample_id = files.field(entry, "id", str, where)
    where = f"{where}, {sample_id}"
    files.field(entry, "query", str, where)
    files.field({"kind": KIND, **entry}, "kind", str, where)
    name = files.field(entry, "image", str, where)
    image = file.parent / name
    if not image.is_file():
        raise BadInput(f"{where}: no such image file: {image}")
    masks = files.field(entry, "masks", list, where)
    for mask in masks:
        rle_runs(mask, _size(masks[0], where), where)
    _labels(entry, where)
    return sample_id, name


def _size(mask: object, where: str) -> tuple[int, int]:
    """The (H, W) that an encoding says it has."""
    size = mask.get("size") if isinstance(mask, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
        raise BadInput(f"{where}: a mask is COCO RLE with size and counts")
    height, width = size
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise BadInput(f"{where}: a mask of {width}x{height} pixels")
    return height, width


def _labels(entry: dict[str, Any], where: str) -> list[str]:
    """A label for each mask: the query itself where the line has none."""
    masks = entry["masks"]
    labels = files.field({"labels": [entry["query"]] * len(masks), **entry}, "labels", list, where)
    if len(labels) != len(masks) or not all(isinstance(label, str) for label in labels):
        raise BadInput(f"{where}: 'labels' should be {len(masks)} texts, as many as masks")
    return labels
