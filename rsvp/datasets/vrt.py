"""VRT-Bench: object-level grounded reasoning. Which objects lead to the answer, and which are it.

Disk: ``vrt_eval.tfrecord``, or Parquet files of the same columns: key, image, question,
objects_info_json (``{id: {"mask": RLE, "caption": …}}``), human_labeled_r_objs (ids of the
reasoning), human_labeled_a_objs (ids of the answer), class_ids (#comp, #func, #loc, #visf).

Source: H. Yuan et al., Visual Reasoning Tracer (2025), https://arxiv.org/abs/2512.05091.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, StrictInt, TypeAdapter

from rsvp.datasets import BaseDataset, GroundTruthObject, Sample, mask_size, unite
from rsvp.datasets.instances import encode
from rsvp.datasets.tables import ParquetTable, TfRecords, find_file, find_parquet
from rsvp.errors import BadInput
from rsvp.masks import RLE, decode_rle
from rsvp.platform.files import parse_json, validate
from rsvp.types import BoolMask


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


class _VrtRow(BaseModel):
    # A row without its image; texts are bytes in a TFRecord
    key: str
    question: str
    objects_info_json: str
    human_labeled_r_objs: list[StrictInt] = []
    human_labeled_a_objs: list[StrictInt] = []
    class_ids: list[str] = []


class _VrtObjectEntry(BaseModel):
    # An entry of ``objects_info_json``
    mask: dict[str, Any]
    caption: Annotated[str, BeforeValidator(lambda c: c if isinstance(c, str) else "")] = ""


_ENTRIES = TypeAdapter(dict[int, Any]).validate_python
_LISTS = ("human_labeled_r_objs", "human_labeled_a_objs", "class_ids")
_TEXTS = ("key", "question", "objects_info_json")


class VrtDataset(BaseDataset):
    """The samples of VRT-Bench, in the file's order. The query is the question.

    A sample's mask and objects are the answer's; its tags are the classes. `truth` has the
    reasoning's objects too, its path is those of them that have pixels.

    Args:
        folder: holds one TFRecord file or Parquet files, or is such a file.

    Raises:
        MissingExtra: tfd-utils or pyarrow is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        source = Path(folder)
        records = find_file(source, ".tfrecord", "TFRecord files")
        parquet = [] if records else find_parquet(source)
        if not records and not parquet:
            raise BadInput(f"{source}: neither a TFRecord nor a Parquet file")
        self._data = data = TfRecords(records) if records else ParquetTable(parquet)
        rows = _record_rows(data) if isinstance(data, TfRecords) else _table_rows(data)
        where = f"{data.file}: record"
        self._truths = [_truth(row, data.file, f"{where} {n}") for n, row in enumerate(rows)]
        super().__init__(data.file, data.digest, [truth.id for truth in self._truths])

    def truth(self, index: int) -> VrtTruth:
        """The truth of a sample, without its image and without decoding its masks."""
        return self._truths[index]

    def __getitem__(self, index: int) -> Sample:
        truth = self._truths[index]
        where = f"{self.file}: {truth.id}"

        def united(objects: Sequence[VrtObject]) -> tuple[BoolMask, tuple[GroundTruthObject, ...]]:
            masks = ((one.caption, decode_rle(one.mask, truth.size, where)) for one in objects)
            return unite(masks, truth.size)

        (union, objects), (_, path) = united(truth.answer), united(truth.reasoning)
        image = self._data.image(index, where)
        tags = truth.classes
        return Sample(truth.id, image, truth.question, "all", union, objects, tags, path=path)


def _record_rows(records: TfRecords) -> Iterator[Mapping[str, Any]]:
    for index in range(len(records)):
        # An empty list is a feature without values, or none at all.
        features = {name: values for name, values in records[index].items() if values}
        yield {n: list(v) if n in _LISTS else v[0] for n, v in features.items()}


def _table_rows(table: ParquetTable) -> Iterator[Mapping[str, Any]]:
    table.check_column("image")
    names = (*_TEXTS, *_LISTS)
    for values in zip(*map(table.column, names), strict=True):
        row = zip(names, values, strict=True)
        yield {name: value or [] if name in _LISTS else value for name, value in row}


def _truth(values: Mapping[str, Any], file: Path, where: str) -> VrtTruth:
    row = validate(_VrtRow.model_validate, values, where)
    where = f"{file}: {row.key}"
    document = parse_json(row.objects_info_json, where)
    entries = validate(_ENTRIES, document, f"{where}: objects_info_json")
    if not entries:
        raise BadInput(f"{where}: objects_info_json has no objects")
    # Every mask has the size of the first one.
    size = mask_size(_entry(next(iter(entries)), entries, where).mask, where)

    def labelled(number: int) -> VrtObject:
        entry = _entry(number, entries, where)
        return VrtObject(entry.caption, encode(entry.mask, size, f"{where}: object {number}"))

    return VrtTruth(
        id=row.key,
        question=row.question,
        classes=tuple(dict.fromkeys(row.class_ids)),
        size=size,
        reasoning=tuple(map(labelled, row.human_labeled_r_objs)),
        answer=tuple(map(labelled, row.human_labeled_a_objs)),
    )


def _entry(number: int, entries: Mapping[int, Any], where: str) -> _VrtObjectEntry:
    if number not in entries:
        raise BadInput(f"{where}: there is no object {number}")
    return validate(_VrtObjectEntry.model_validate, entries[number], f"{where}: object {number}")
