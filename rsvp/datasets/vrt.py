"""VRT-Bench: object-level grounded reasoning. Which objects lead to the answer, and which are it.

Disk: ``vrt_eval.tfrecord``, or Parquet files of the same columns: key, image, question,
objects_info_json (``{id: {"mask": RLE, "caption": …}}``), human_labeled_r_objs (ids of the
reasoning), human_labeled_a_objs (ids of the answer), class_ids (#comp, #func, #loc, #visf).

Source: H. Yuan et al., Visual Reasoning Tracer (2025), https://arxiv.org/abs/2512.05091.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rsvp.datasets import Sample, TrueObject
from rsvp.datasets import _files as files
from rsvp.datasets._parquet import ParquetRows, find_parquet, image_bytes
from rsvp.datasets._tfrecord import TfRecords
from rsvp.datasets.instances import encode
from rsvp.errors import BadInput
from rsvp.images import MAX_PIXELS
from rsvp.masks import RLE, decode_rle, mask_to_box

KIND = "all"

_TEXTS = ("key", "question", "objects_info_json")
_LISTS = ("human_labeled_r_objs", "human_labeled_a_objs", "class_ids")


@dataclass(frozen=True, slots=True)
class VrtObject:
    """A labelled object.

    Attributes:
        mask: COCO RLE with compressed counts.
    """

    caption: str
    mask: RLE = field(repr=False)


@dataclass(frozen=True, slots=True)
class VrtTruth:
    """The truth of a sample, undecoded.

    Attributes:
        classes: e.g. ``#loc``; a sample may have several.
        size: (H, W).
        reasoning: the objects that lead to the answer, in the annotator's order.
        answer: the objects that are the answer.
    """

    id: str
    question: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    reasoning: tuple[VrtObject, ...]
    answer: tuple[VrtObject, ...]


class VrtDataset:
    """The samples of VRT-Bench, in the file's order. The query is the question.

    A sample's mask and objects are the answer's; its tags are the classes. `truth` has the
    reasoning's objects too.

    Attributes:
        digest: SHA-256 of the data.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder with one TFRecord file or with Parquet files, or such a file.

        Raises:
            BadInput: there is none, it is broken, a key comes twice, an object is missing, or a
                mask is of another size than the others: one line with the file and the key.
            MissingExtra: tfd-utils or pyarrow is not installed.
        """
        self._rows = _open(Path(folder))
        self.digest = self._rows.digest
        where = str(self._rows.file)
        self._truths = [_truth(self._rows.annotations(i), where) for i in range(len(self._rows))]
        if not self._truths:
            raise BadInput(f"{where}: no samples")
        files.check_unique((truth.id for truth in self._truths), where)

    def __len__(self) -> int:
        return len(self._truths)

    def sample_id(self, index: int) -> str:
        """The key of a sample."""
        return self._truths[index].id

    def truth(self, index: int) -> VrtTruth:
        """The truth of a sample, without its image and without decoding its masks."""
        return self._truths[index]

    def __getitem__(self, index: int) -> Sample:
        truth = self._truths[index]
        where = f"{self._rows.file}: {truth.id}"
        union = np.zeros(truth.size, dtype=np.bool_)
        objects = []
        for one in truth.answer:
            mask = decode_rle(one.mask, truth.size, where)
            union |= mask
            if (box := mask_to_box(mask)) is not None:
                objects.append(TrueObject(one.caption, box, mask))
        return Sample(
            id=truth.id,
            image=self._rows.image(index, where),
            query=truth.question,
            kind=KIND,
            mask=union,
            objects=tuple(objects),
            tags=truth.classes,
        )


class _Rows(Protocol):
    """A file of samples.

    Attributes:
        file: names it in error messages.
        digest: SHA-256 of the data.
    """

    file: Path
    digest: str

    def __len__(self) -> int: ...

    def annotations(self, index: int) -> dict[str, Any]:
        """A row without its image: texts as str, lists as lists."""
        ...

    def image(self, index: int, where: str) -> bytes:
        """The encoded image of a row."""
        ...


class _TfRows:
    def __init__(self, file: Path) -> None:
        self.file = file
        self._records = TfRecords(file)
        self.digest = self._records.digest

    def __len__(self) -> int:
        return len(self._records)

    def annotations(self, index: int) -> dict[str, Any]:
        where = f"{self.file}: record {index}"
        features = self._records[index]
        # An empty list is a feature without values, or none at all.
        row: dict[str, Any] = {name: list(features.get(name, ())) for name in _LISTS}
        row["class_ids"] = [_text(value, f"{where}: class_ids") for value in row["class_ids"]]
        for name in _TEXTS:
            row[name] = _text((*features.get(name, ()), None)[0], f"{where}: {name}")
        return row

    def image(self, index: int, where: str) -> bytes:
        values = self._records[index].get("image", ())
        if not values or not isinstance(values[0], bytes):
            raise BadInput(f"{where}: the record holds no image bytes")
        return values[0]


class _ParquetRows:
    def __init__(self, parquet: list[Path]) -> None:
        self._rows = ParquetRows(parquet)
        self.file, self.digest = parquet[0], self._rows.digest
        if "image" not in self._rows.columns:
            raise BadInput(f"{self.file}: no column 'image'")
        self._columns = {name: self._rows.column(name) for name in (*_TEXTS, *_LISTS)}

    def __len__(self) -> int:
        return len(self._rows)

    def annotations(self, index: int) -> dict[str, Any]:
        # The objects' texts are large, and asked for once.
        row = {name: values[index] for name, values in self._columns.items()}
        self._columns["objects_info_json"][index] = None
        return row | {name: row[name] or [] for name in _LISTS}

    def image(self, index: int, where: str) -> bytes:
        return image_bytes(self._rows.row(index, ("image",))["image"], where)


def _open(source: Path) -> _Rows:
    if source.is_file() and source.suffix == ".tfrecord":
        return _TfRows(source)
    records = sorted(source.glob("*.tfrecord"))
    if len(records) > 1:
        names = ", ".join(file.name for file in records)
        raise BadInput(f"{source}: several TFRecord files, name one: {names}")
    if records:
        return _TfRows(records[0])
    if parquet := find_parquet(source):
        return _ParquetRows(parquet)
    raise BadInput(f"{source}: neither a TFRecord nor a Parquet file")


def _truth(row: Mapping[str, Any], file: str) -> VrtTruth:
    key = files.field(row, "key", str, file)
    where = f"{file}: {key}"
    question = files.field(row, "question", str, where)
    text = files.field(row, "objects_info_json", str, where)
    objects = _objects(files.parse_json(text, where), where)
    size = _size(objects, where)
    lists = {name: files.field(row, name, list, where) for name in _LISTS}
    reasoning, answer = (
        tuple(_object(number, objects, size, where) for number in lists[name])
        for name in ("human_labeled_r_objs", "human_labeled_a_objs")
    )
    return VrtTruth(
        id=key,
        question=question,
        classes=tuple(dict.fromkeys(str(one) for one in lists["class_ids"])),
        size=size,
        reasoning=reasoning,
        answer=answer,
    )


def _objects(document: object, where: str) -> dict[int, Any]:
    if not isinstance(document, dict) or not document:
        raise BadInput(f"{where}: objects_info_json has no objects")
    try:
        return {int(number): entry for number, entry in document.items()}
    except ValueError:
        raise BadInput(f"{where}: an object's id is not a whole number") from None


def _size(objects: Mapping[int, Any], where: str) -> tuple[int, int]:
    """(H, W) of the first mask; the others must have the same."""
    entry = next(iter(objects.values()))
    size = files.field(files.field(entry, "mask", dict, where), "size", list, where)
    whole = all(type(one) is int and one > 0 for one in size)
    if len(size) != 2 or not whole or size[0] * size[1] > MAX_PIXELS:
        raise BadInput(f"{where}: no mask is of size {size}")
    return size[0], size[1]


def _object(
    number: object, objects: Mapping[int, Any], size: tuple[int, int], where: str
) -> VrtObject:
    if not isinstance(number, int) or number not in objects:
        raise BadInput(f"{where}: there is no object {number}")
    entry, where = objects[number], f"{where}: object {number}"
    caption = entry.get("caption") if isinstance(entry, dict) else None
    mask = encode(files.field(entry, "mask", dict, where), size, where)
    return VrtObject(caption if isinstance(caption, str) else "", mask)


def _text(value: object, where: str) -> str:
    try:
        if isinstance(value, bytes):
            return value.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{where} is not UTF-8") from None
    raise BadInput(f"{where} is missing")
