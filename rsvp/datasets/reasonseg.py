"""ReasonSeg: questions that need reasoning, answered by pixels (LISA, arXiv:2308.00692).

Three forms are read:

- the official folder of one split: ``X.jpg`` and ``X.json`` with ``text`` (the first counts),
  ``is_sentence`` and ``shapes``; a sample's id is X, its kind ``long`` or ``short``;
- the mirrors' Parquet files, with finished masks in which ignored pixels count as target
  (``Ricky06662/ReasonSeg_val``, ``…_test``); see `rsvp.datasets.reasonseg_parquet`;
- ReasonSeg-X and -R (``sj9909/…``), which add a ``reasoning_type``, their kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsvp.datasets import AnnotationModel, BaseDataset, Dataset, GroundTruthObject, Sample
from rsvp.datasets.polygons import Canvas, Points, draw, to_points
from rsvp.datasets.reasonseg_parquet import ReasonSegParquet
from rsvp.datasets.tables import find_parquet
from rsvp.errors import BadInput
from rsvp.images import image_size
from rsvp.masks import mask_to_box
from rsvp.platform.files import parse_json, read_bytes, validate
from rsvp.types import BoolMask

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # the official ones are .jpg

SHORT, LONG = "short", "long"


class ReasonSegDataset:
    """The samples of one split, in the order of their file names (in a mirror: of its rows)."""

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
        self._source: Dataset = ReasonSegParquet(parquet) if parquet else ReasonSegFolder(folder)
        self.digest = self._source.digest

    def __len__(self) -> int:
        return len(self._source)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without drawing its mask."""
        return self._source.sample_id(index)

    def __getitem__(self, index: int) -> Sample:
        return self._source[index]

    def check_images(self) -> None:
        """Raise BadInput for the first missing image file."""
        self._source.check_images()


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


class ReasonSegFolder(BaseDataset):
    """The official form: an image and a JSON file a sample."""

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256()
        self._samples: list[_Annotated] = []
        found = _file_pairs(folder)
        for file, image in found:
            data = read_bytes(file)
            digest.update(f"{file.name}\0{len(data)}\0".encode() + data)
            self._samples.append(_annotated(file, image, data))
        super().__init__(folder, digest.hexdigest(), [file.stem for file, _ in found])

    def _image_file(self, index: int) -> Path:
        return self._samples[index].image

    def __getitem__(self, index: int) -> Sample:
        sample_id, sample = self._ids[index], self._samples[index]
        where = f"{self.file}: {sample_id}"
        topmost = draw(sample.polygons, image_size(sample.image), where)
        # The canvas holds shape numbers from 1; a lookup table maps them to "ignored" or "target".
        is_ignored = np.array([False, *("ignore" in label.lower() for label in sample.labels)])
        is_target = ~is_ignored
        is_target[0] = False
        return Sample(
            id=sample_id,
            image=sample.image,
            query=sample.query,
            kind=sample.kind,
            mask=is_target[topmost],
            objects=tuple(_objects(sample, np.flatnonzero(is_target).tolist(), topmost)),
            ignore=is_ignored[topmost] if is_ignored.any() else None,
        )


def _objects(
    sample: _Annotated, numbers: Sequence[int], topmost: Canvas
) -> Iterator[GroundTruthObject]:
    """The shapes of these numbers that are visible, each with its visible pixels."""
    for number in numbers:
        mask = _visible(sample.polygons[number - 1], topmost, number)
        box = mask_to_box(mask)
        if box is not None:
            yield GroundTruthObject(sample.labels[number - 1], box, mask)


def _visible(points: Points, topmost: Canvas, number: int) -> BoolMask:
    """Where a shape is topmost; compared only within its extent, as images have 20 megapixels."""
    mask = np.zeros(topmost.shape, dtype=np.bool_)
    x0, y0 = np.clip(points.min(axis=0), 0, None)
    x1, y1 = np.clip(points.max(axis=0) + 1, 0, None)
    np.equal(topmost[y0:y1, x0:x1], number, out=mask[y0:y1, x0:x1])
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
        kind=LONG if entry.is_sentence else SHORT,
        labels=[one.label for _, one in numbered],
        polygons=[to_points(one.points, f"{where}: shape {n}") for n, one in numbered],
    )


def _decoded(data: bytes, file: Path) -> str:
    """The text of a file; some official files are not UTF-8 but cp1252."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadInput(f"{file}: neither UTF-8 nor cp1252")
