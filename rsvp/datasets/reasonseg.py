"""ReasonSeg: questions that need reasoning, answered by pixels (LISA, arXiv:2308.00692).

Three forms are read:

- the official folder of one split: ``X.jpg`` and ``X.json`` with ``text`` (the first counts),
  ``is_sentence`` and ``shapes``; a sample's id is X, its kind ``long`` or ``short``;
- the mirrors' Parquet files, with finished masks in which ignored pixels count as target
  (``Ricky06662/ReasonSeg_val``, ``…_test``); see `rsvp.datasets._mirrors`;
- ReasonSeg-X and -R (``sj9909/…``), which add a ``reasoning_type``, their kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rsvp.datasets import Dataset, Sample, TrueObject
from rsvp.datasets import _files as files
from rsvp.datasets._mirrors import ReasonSegMirror
from rsvp.datasets._parquet import find_parquet
from rsvp.datasets._polygons import Canvas, Points, draw, to_points
from rsvp.errors import BadInput
from rsvp.images import image_size
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # the official ones are .jpg

SHORT, LONG = "short", "long"


class ReasonSegDataset:
    """The samples of one split, in the order of their file names (of a mirror: of its rows).

    Attributes:
        digest: SHA-256 of the annotations.
    """

    def __init__(self, folder: str | Path, *, split: str | None = None) -> None:
        """Open a split.

        Args:
            folder: the split's folder; a folder with Parquet files, or one such file.
            split: the split, where `folder` holds several.

        Raises:
            BadInput: nothing of the kind is there, an image or annotation is missing or broken.
                One line with the file and the id.
            MissingExtra: reading Parquet needs pyarrow.
        """
        folder = Path(folder)
        if split is not None and (folder / split).is_dir():
            folder, split = folder / split, None
        parquet = find_parquet(folder, split)
        self._source: Dataset = ReasonSegMirror(parquet) if parquet else _Folder(folder)
        self.digest = self._source.digest

    def __len__(self) -> int:
        return len(self._source)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without drawing its mask."""
        return self._source.sample_id(index)

    def __getitem__(self, index: int) -> Sample:
        return self._source[index]


@dataclass(frozen=True, slots=True)
class _Shape:
    """A labelled polygon: (n, 2) int32 points, x before y."""

    label: str
    points: Points = field(repr=False)

    @property
    def ignored(self) -> bool:
        return "ignore" in self.label.lower()


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one annotation file says."""

    file: Path
    image: Path
    query: str
    kind: str
    shapes: tuple[_Shape, ...]


class _Folder:
    """The official form: an image and a JSON file a sample."""

    def __init__(self, folder: Path) -> None:
        found = _annotations(folder)
        digest = hashlib.sha256()
        self._entries: list[_Entry] = []
        for file, image in found:
            data = files.read_bytes(file)
            digest.update(f"{file.name}\0{len(data)}\0".encode() + data)
            self._entries.append(_entry(file, image, data))
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._entries)

    def sample_id(self, index: int) -> str:
        """The stem of the file."""
        return self._entries[index].file.stem

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        where = str(entry.file)
        topmost = draw([s.points for s in entry.shapes], image_size(entry.image), where)
        # Index 0 is the background; a lookup table turns "which shape" into "what it means".
        ignored = np.array([False, *(s.ignored for s in entry.shapes)])
        target = np.array([False, *(not s.ignored for s in entry.shapes)])
        return Sample(
            id=entry.file.stem,
            image=entry.image,
            query=entry.query,
            kind=entry.kind,
            mask=target[topmost],
            objects=tuple(_objects(entry.shapes, topmost)),
            ignore=ignored[topmost] if ignored.any() else None,
        )


def _objects(shapes: tuple[_Shape, ...], topmost: Canvas) -> Iterator[TrueObject]:
    """The target shapes that show, each with its visible pixels."""
    for number, shape in enumerate(shapes, start=1):
        if shape.ignored:
            continue
        mask = _visible(shape.points, topmost, number)
        box = mask_to_box(mask)
        if box is not None:
            yield TrueObject(shape.label, box, mask)


def _visible(points: Points, topmost: Canvas, number: int) -> BoolMask:
    """Where a shape shows: compared only within its extent, images have up to 20 megapixels."""
    mask = np.zeros(topmost.shape, dtype=np.bool_)
    x0, y0 = np.clip(points.min(axis=0), 0, None)
    x1, y1 = np.clip(points.max(axis=0) + 1, 0, None)
    np.equal(topmost[y0:y1, x0:x1], number, out=mask[y0:y1, x0:x1])
    return mask


def _annotations(folder: Path) -> list[tuple[Path, Path]]:
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


def _entry(file: Path, image: Path, data: bytes) -> _Entry:
    document, where = _decoded(data, file), str(file)
    texts = files.field(document, "text", list, where)
    if not texts or not isinstance(texts[0], str) or not texts[0].strip():
        raise BadInput(f"{where}: 'text' does not begin with a query")
    return _Entry(
        file=file,
        image=image,
        query=texts[0].strip(),
        kind=LONG if files.field(document, "is_sentence", bool, where) else SHORT,
        shapes=tuple(_shapes(files.field(document, "shapes", list, where), where)),
    )


def _decoded(data: bytes, file: Path) -> object:
    """The document; some official files are not UTF-8 but cp1252."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise BadInput(f"{file}: neither UTF-8 nor cp1252") from None
    return files.parse_json(text, str(file))


def _shapes(entries: list[object], where: str) -> Iterator[_Shape]:
    """The polygons that count: `flag` labels are meaningless leftovers."""
    for number, entry in enumerate(entries):
        here = f"{where}: shape {number}"
        label = files.field(entry, "label", str, here)
        if label.lower() != "flag":
            yield _Shape(label, to_points(files.field(entry, "points", list, here), here))
