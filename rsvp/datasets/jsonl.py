"""A user's own data, one sample a line, for training and evaluation:

    {"id": "1", "image": "a.jpg", "query": "the red cup", "masks": [RLE, …], "labels": ["cup", …]}

`image` is relative to the file; `masks` are COCO run-length encodings of the image's upright pixels
(`rsvp.masks.encode_rle` makes them), one an object, none where nothing answers the query.
`labels` (as many as masks) and `kind` (by which scores are also reported) may be left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rsvp.datasets import BaseDataset, Sample, inside, mask_size, numbered_lines, unite
from rsvp.datasets.annotations import AnnotationModel
from rsvp.errors import BadInput
from rsvp.images import image_size
from rsvp.masks import decode_rle, rle_runs
from rsvp.platform.files import parse_json, readable, validate


class _JsonlEntry(AnnotationModel):
    # A line
    id: str
    image: str
    query: str
    kind: str = "all"
    masks: list[Any]
    labels: list[str] | None = None


class JsonlDataset(BaseDataset):
    """The lines of a file, all checked on opening.

    Only ids and offsets are kept: a file may be larger than memory. The image of a line without
    masks must be there, as it alone has the size.
    """

    def __init__(self, file: str | Path) -> None:
        file = Path(file)
        ids: list[str] = []
        self._image_names: list[str] = []
        self._lines: list[tuple[int, int]] = []  # (line number, offset)
        with readable(file), file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            for number, offset, line in numbered_lines(stream):
                entry = _checked(line, file, number)
                ids.append(entry.id)
                self._image_names.append(entry.image)
                self._lines.append((number, offset))
        super().__init__(file, digest, ids)

    def image_key(self, index: int) -> str:
        return self._image_names[index]

    def image_file(self, index: int) -> Path:
        return self.file.parent / self._image_names[index]

    def __getitem__(self, index: int) -> Sample:
        number, offset = self._lines[index]
        with self.file.open("rb") as stream:
            stream.seek(offset)
            line = stream.readline()
        where = f"{self.file}: line {number}"
        entry = validate(_JsonlEntry.model_validate, parse_json(line, where), where)
        image, masks = self.image_file(index), entry.masks
        size = mask_size(masks[0], where) if masks else image_size(image)
        labels = [entry.query] * len(masks) if entry.labels is None else entry.labels
        decoded = (decode_rle(mask, size, where) for mask in masks)
        union, objects = unite(zip(labels, decoded, strict=True), size)
        return Sample(entry.id, image, entry.query, entry.kind, union, objects)


def _checked(line: bytes, file: Path, number: int) -> _JsonlEntry:
    where = f"{file}: line {number}"
    document = parse_json(line, where)
    if isinstance(document, dict) and isinstance(document.get("id"), str):
        where = f"{where}, {document['id'][:60]}"
    entry = validate(_JsonlEntry.model_validate, document, where)
    masks, labels = entry.masks, entry.labels
    for mask in masks:
        rle_runs(mask, mask_size(masks[0], where), where)
    if labels is not None and len(labels) != len(masks):
        raise BadInput(f"{where}: 'labels' should be {len(masks)} texts, as many as masks")
    image = inside(file.parent, entry.image, where)
    if not masks and not image.is_file():  # its size is the truth's
        raise BadInput(f"{where}: no such image file: {image}")
    return entry
