"""ReasonSeg: questions that need reasoning, answered by pixels (LISA, arXiv:2308.00692).

Three forms are read:

- the official folder of one split: ``X.jpg`` and ``X.json`` with ``text`` (the first counts),
  ``is_sentence`` and ``shapes``; a sample's id is X, its kind ``long`` or ``short``;
- the mirrors' Parquet files (``Ricky06662/ReasonSeg_val``, ``…_test``) with the columns image,
  text, mask ((H, W) nested lists), image_id, ann_id; the masks were made with ``astype(bool)``, so
  that ignored pixels are target;
- ReasonSeg-X and -R (``sj9909/…``), which add a ``reasoning_type``, their kind.

Polygons are drawn exactly as the benchmark's own code draws them: points are truncated to integers;
a shape is its outline of thickness 1 and its filling; larger shapes are drawn first, so that a
smaller one lies on top. OpenCV draws them; from version 4.11 it fills polygons differently, which
would change the ground truth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsvp.datasets import BaseDataset, Sample, digest_files, unite
from rsvp.datasets.annotations import AnnotationModel
from rsvp.datasets.tables import ParquetTable, find_parquet, optional_texts, packed_image
from rsvp.errors import BadInput, MissingExtra
from rsvp.images import image_size
from rsvp.platform.extras import require
from rsvp.platform.files import parse_json, read_bytes, validate
from rsvp.types import BoolMask

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # the official ones are .jpg

Points = NDArray[np.int32]
Canvas = NDArray[np.unsignedinteger]

_FIRST_DIFFERENT = (4, 11)  # the version of OpenCV
_MAX_COORDINATE = 1_000_000  # OpenCV walks every line of a polygon, also outside of the image
_MAX_SHAPES = np.iinfo(np.uint16).max


def open_reasonseg(folder: str | Path, *, split: str | None = None) -> BaseDataset:
    """The samples of one split, in the order of their file names (in a mirror: of its rows).

    Args:
        folder: the split's folder; a folder with Parquet files, or one such file.
        split: the split, where `folder` holds several.

    Raises:
        MissingExtra: the annotations are Parquet files, and pyarrow is not installed.
    """
    folder = Path(folder)
    if split is not None and (folder / split).is_dir():
        folder, split = folder / split, None
    parquet = find_parquet(folder, split)
    return _ReasonSegParquet(parquet) if parquet else _ReasonSegFolder(folder)


class _ReasonSegShape(AnnotationModel):
    # A labelled polygon
    label: str
    points: list[Any]


class _ReasonSegEntry(AnnotationModel):
    # An annotation file
    text: list[Any]
    is_sentence: bool
    shapes: list[_ReasonSegShape]


class _Annotated(NamedTuple):
    """A sample as its files say it; the polygons are (n, 2) int32 points, x before y."""

    image: Path
    query: str
    kind: str
    labels: list[str]
    polygons: list[Points]


class _ReasonSegFolder(BaseDataset):
    """The official form: an image and a JSON file a sample."""

    def __init__(self, folder: Path) -> None:
        files = [(file, image, read_bytes(file)) for file, image in _file_pairs(folder)]
        self._samples = [_annotated(*one) for one in files]
        digest = digest_files((file.name, data) for file, _, data in files)
        super().__init__(folder, digest, [file.stem for file, *_ in files])

    def image_file(self, index: int) -> Path:
        return self._samples[index].image

    def __getitem__(self, index: int) -> Sample:
        sample_id, sample = self._ids[index], self._samples[index]
        where = f"{self.file}: {sample_id}"
        topmost = _draw(sample.polygons, image_size(sample.image), where)
        # The canvas holds the shapes' numbers from 1; this table says which of them are ignored.
        ignored = np.array([False, *("ignore" in label.lower() for label in sample.labels)])
        targets = (
            (sample.labels[n - 1], _visible(sample.polygons[n - 1], topmost, n))
            for n in np.flatnonzero(~ignored)[1:].tolist()
        )
        mask, objects = unite(targets, topmost.shape)
        ignore = ignored[topmost] if ignored.any() else None
        return Sample(
            sample_id, sample.image, sample.query, sample.kind, mask, objects, ignore=ignore
        )


def _visible(points: Points, topmost: Canvas, number: int) -> BoolMask:
    """Where a shape is topmost; compared only within its extent, as images have 20 megapixels."""
    mask = np.zeros(topmost.shape, dtype=np.bool_)
    part = _extent(points)
    np.equal(topmost[part], number, out=mask[part])
    return mask


def _file_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Every (annotation, image) of a folder, in the order of their names."""
    try:
        present = {p.name: p for p in folder.iterdir() if not p.name.startswith(".")}
    except FileNotFoundError:
        raise BadInput(f"no such folder: {folder}") from None
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {error.strerror}") from error
    stems = {p.stem for p in present.values() if p.suffix in (".json", *IMAGE_SUFFIXES)}
    if not stems:
        inside = [name for name in SPLITS if (folder / name).is_dir()]
        hint = f"; give one of its folders: {', '.join(inside)}" if inside else ""
        raise BadInput(f"no X.jpg with X.json and no Parquet files in {folder}{hint}")
    pairs = []
    for stem in sorted(stems):
        images = [present[stem + s] for s in IMAGE_SUFFIXES if stem + s in present]
        if f"{stem}.json" not in present:
            raise BadInput(f"{images[0]}: sample {stem} has no annotation {stem}.json")
        if not images:
            raise BadInput(f"{folder / stem}.json: sample {stem} has no image {stem}.jpg")
        pairs.append((present[f"{stem}.json"], images[0]))
    return pairs


def _annotated(file: Path, image: Path, data: bytes) -> _Annotated:
    where = str(file)
    entry = validate(_ReasonSegEntry.model_validate, parse_json(_decoded(data, file), where), where)
    query = entry.text[0].strip() if entry.text and isinstance(entry.text[0], str) else ""
    if not query:
        raise BadInput(f"{where}: 'text' does not begin with a query")
    # "flag" marks no region; LISA's code skips it too.
    numbered = [(n, one) for n, one in enumerate(entry.shapes) if one.label.lower() != "flag"]
    return _Annotated(
        image=image,
        query=query,
        kind="long" if entry.is_sentence else "short",
        labels=[one.label for _, one in numbered],
        polygons=[_to_points(one.points, f"{where}: shape {n}") for n, one in numbered],
    )


def _decoded(data: bytes, file: Path) -> str:
    """The text of a file; some official files are not UTF-8 but cp1252."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadInput(f"{file}: neither UTF-8 nor cp1252")


class _ReasonSegParquet(BaseDataset):
    """The rows of a mirror, in their order.

    The ids are the first of image_id, ann_id and ``<image_id>/<ann_id>`` that is unique: image_id
    is the stem of the official file, so that predictions fit both forms.
    """

    def __init__(self, parquet: Sequence[Path]) -> None:
        self._table = ParquetTable(parquet)
        for name in ("image", "mask", "text"):
            self._table.check_column(name)
        super().__init__(self._table.file, self._table.digest, _unique_ids(self._table))
        self._queries = self._table.texts("text")
        self._kinds = optional_texts(self._table, "reasoning_type")
        for sample_id, query in zip(self._ids, self._queries, strict=True):
            if not query:
                raise BadInput(f"{self.file}: {sample_id} has no text")

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.file}: {self.sample_id(index)}"
        row = self._table.row(index, ("image", "mask"))
        mask = _mask(row["mask"], where)
        query, kind = self._queries[index], self._kinds[index] or "all"
        mask, objects = unite([(query, mask)], mask.shape)
        image = packed_image(row["image"][0].as_py(), where)
        return Sample(self._ids[index], image, query, kind, mask, objects)


def _unique_ids(table: ParquetTable) -> list[str]:
    names = [name for name in ("image_id", "ann_id") if name in table.columns]
    if not names:
        raise BadInput(f"{table.file}: neither a column 'image_id' nor 'ann_id'")
    candidates = [[str(value) for value in table.column(name)] for name in names]
    candidates.append(["/".join(pair) for pair in zip(*candidates, strict=True)])
    return next((ids for ids in candidates if len(set(ids)) == len(ids)), candidates[-1])


def _mask(column: Any, where: str) -> BoolMask:
    """(H, W) bool from an arrow array of length 1 that holds a list of H lists of W numbers."""
    try:
        rows = column.flatten()
        widths = np.asarray(rows.value_lengths())
        values = rows.flatten()
        pixels = np.asarray(values.to_numpy(zero_copy_only=False))
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"{where}: the mask is not a list of lists of numbers") from None
    missing = column.null_count + rows.null_count + values.null_count
    if missing or pixels.dtype.kind not in "biuf":
        raise BadInput(f"{where}: the mask is not a list of lists of numbers")
    if not widths.size or widths[0] < 1 or (widths != widths[0]).any():
        raise BadInput(f"{where}: the lines of the mask are empty or of different lengths")
    return np.asarray(pixels.reshape(widths.size, -1) != 0)


def _opencv() -> Any:
    """OpenCV; MissingExtra without it, and for a version that fills polygons differently."""
    cv2 = require("cv2", "eval", "drawing ReasonSeg's polygons")
    version = tuple(int(n) for n in re.findall(r"\d+", cv2.__version__)[:2])
    if version >= _FIRST_DIFFERENT:
        raise MissingExtra(
            f"drawing ReasonSeg's polygons as OpenCV did before 4.11 (found {cv2.__version__})",
            "eval",
        )
    return cv2


def _to_points(points: object, where: str) -> Points:
    """(n, 2) int32 from a JSON list of (x, y), at least one, truncated towards zero."""
    try:
        found = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{where}: the points are not pairs of numbers") from None
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise BadInput(f"{where}: the points are not pairs of numbers")
    if not (np.abs(found) <= _MAX_COORDINATE).all():  # False for NaN, too
        raise BadInput(f"{where}: a point lies beyond ±{_MAX_COORDINATE:,}")
    return found.astype(np.int32)


def _draw(shapes: Sequence[Points], size: tuple[int, int], where: str) -> Canvas:
    """Draw shapes, largest first.

    Args:
        shapes: (n, 2) int32 points each, x before y.
        size: (H, W).
        where: names the shapes in error messages.

    Returns:
        (H, W) unsigned: 0 where no shape is, else 1 + the index of the topmost shape.
    """
    if len(shapes) > _MAX_SHAPES:
        raise BadInput(f"{where}: {len(shapes)} shapes, at most {_MAX_SHAPES} can be drawn")
    canvas = np.zeros(size, dtype=np.uint8 if len(shapes) < 256 else np.uint16)
    if not shapes:
        return canvas
    cv2 = _opencv()
    # The same call as in the official code: it decides the order of equal areas.
    order = np.argsort(_areas(cv2, shapes, size))[::-1]
    for index in order.tolist():
        _draw_one(cv2, canvas, shapes[index], index + 1)
    return canvas


def _extent(points: Points) -> tuple[slice, slice]:
    """The rows and columns of an image that a shape can cover."""
    x0, y0 = np.clip(points.min(axis=0), 0, None)
    x1, y1 = np.clip(points.max(axis=0) + 1, 0, None)
    return slice(y0, y1), slice(x0, x1)


def _areas(cv2: Any, shapes: Sequence[Points], size: tuple[int, int]) -> NDArray[np.uint64]:
    """How many pixels each shape covers when it is drawn alone."""
    alone = np.zeros(size, dtype=np.uint8)
    areas = np.zeros(len(shapes), dtype=np.uint64)
    for index, points in enumerate(shapes):
        _draw_one(cv2, alone, points, 1)
        drawn = alone[_extent(points)]
        areas[index] = np.count_nonzero(drawn)
        drawn[:] = 0
    return areas


def _draw_one(cv2: Any, canvas: Canvas, points: Points, value: int) -> None:
    cv2.polylines(canvas, points[None], isClosed=True, color=value, thickness=1)
    cv2.fillPoly(canvas, points[None], color=value)
