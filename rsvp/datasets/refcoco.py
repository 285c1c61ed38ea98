"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: phrases that refer to things on COCO photographs.

A folder holds ``refs(<splitBy>).p`` (gRefCOCO: ``grefs(<splitBy>).json``) and ``instances.json``;
the photographs are COCO's train2014, in one of `IMAGE_FOLDERS`. Every sentence is a sample.

Sources: L. Yu et al., Modeling Context in Referring Expressions (ECCV 2016), and its REFER toolkit;
C. Liu et al., GRES: Generalized Referring Expression Segmentation (CVPR 2023).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from rsvp.datasets import Sample, TrueObject
from rsvp.datasets import _files as files
from rsvp.datasets._refer import Phrase, find_refs, read_phrases
from rsvp.datasets.instances import encode
from rsvp.errors import BadInput
from rsvp.masks import RLE, decode_rle, mask_to_box

# The last is the official layout seen from the folder of one benchmark: beside it lies `images/`.
IMAGE_FOLDERS = (
    "images/mscoco/images/train2014",
    "images/train2014",
    "train2014",
    "images",
    "../images/mscoco/images/train2014",
    "../images/train2014",
    "../train2014",
    "../images",
)

KIND, TARGET, NO_TARGET = "all", "target", "no-target"


@dataclass(frozen=True, slots=True)
class _Annotation:
    """A mask in parts: one run-length encoding a polygon."""

    label: str
    parts: tuple[RLE, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Image:
    name: str
    size: tuple[int, int]


class RefCocoDataset:
    """The sentences of one split, in the file's order; a sample's id is its sentence's.

    The polygons of an annotation are drawn apart: where two overlap, the official code counts a
    pixel twice, and `Sample.twice` says so. gRefCOCO's masks are united instead; its kinds are
    ``target`` and ``no-target``.

    The photographs may be missing altogether: the annotations alone are enough for scoring. But
    where their folder is found, each must be in it.

    Attributes:
        folder: where ``instances.json`` lies.
        general: whether this is gRefCOCO.
        digest: SHA-256 of both files and the split.
    """

    def __init__(
        self, folder: str | Path, *, split: str = "val", split_by: str | None = None
    ) -> None:
        """Open a split.

        Args:
            folder: e.g. ``refcoco/``.
            split: train, val, testA, testB; for RefCOCOg also test.
            split_by: which division into splits: unc, umd, google. By default unc or umd,
                whichever is there.

        Raises:
            BadInput: a file is missing or broken, refers to what isn't there, or has no such split.
        """
        self.folder = Path(folder)
        refs = find_refs(self.folder, split_by)
        self._file = self.folder / "instances.json"
        refs_data, data = files.read_bytes(refs), files.read_bytes(self._file)
        parts = (split.encode(), refs_data, data)
        self.digest = hashlib.sha256(
            b"".join(hashlib.sha256(p).digest() for p in parts)
        ).hexdigest()
        self._phrases = read_phrases(refs, refs_data, split)
        self.general = any(p.general for p in self._phrases)
        files.check_unique((str(p.sentence_id) for p in self._phrases), refs)
        document = files.parse_json(data, str(self._file))
        self._images = self._read_images(document)
        self._annotations = self._read_annotations(document)
        self._image_folder = self._find_images()

    def __len__(self) -> int:
        return len(self._phrases)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        return str(self._phrases[index].sentence_id)

    def image_key(self, index: int) -> str:
        """The id of a sample's image."""
        return str(self._phrases[index].image_id)

    def __getitem__(self, index: int) -> Sample:
        phrase = self._phrases[index]
        image = self._images[phrase.image_id]
        covers = [self._cover(number, image.size) for number in phrase.annotations]
        total = np.zeros(image.size, dtype=np.uint8)
        for cover in covers:
            np.maximum(total, cover, out=total)
        return Sample(
            id=str(phrase.sentence_id),
            image=self._image_folder / image.name,
            query=phrase.text,
            kind=self._kind(phrase),
            mask=total > 0,
            objects=tuple(self._objects(phrase, covers)),
            twice=total > 1 if not self.general and (total > 1).any() else None,
        )

    def _cover(self, number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W): how many polygons of an annotation cover each pixel, 2 for two and more."""
        total = np.zeros(size, dtype=np.uint8)
        for part in self._annotations[number].parts:
            total += decode_rle(part, size, f"{self._file}: annotation {number}")
            np.minimum(total, 2, out=total)
        return total

    def _objects(self, phrase: Phrase, covers: list[NDArray[np.uint8]]) -> Iterator[TrueObject]:
        for number, cover in zip(phrase.annotations, covers, strict=True):
            mask = cover > 0
            box = mask_to_box(mask)
            if box is not None:
                yield TrueObject(self._annotations[number].label, box, mask)

    def _kind(self, phrase: Phrase) -> str:
        if not self.general:
            return KIND
        return TARGET if phrase.annotations else NO_TARGET

    def _read_images(self, document: object) -> dict[int, _Image]:
        """The images that the split needs."""
        entries = _by_id(document, "images", {p.image_id for p in self._phrases}, self._file)
        found = {}
        for number, entry in entries.items():
            where = f"{self._file}: image {number}"
            name = files.field(entry, "file_name", str, where)
            found[number] = _Image(Path(name).name, files.size_of(entry, where))
        return found

    def _read_annotations(self, document: object) -> dict[int, _Annotation]:
        """The annotations that the split needs, encoded: much smaller than lists of numbers."""
        names = _category_names(document, self._file)
        image_of = {number: p.image_id for p in self._phrases for number in p.annotations}
        entries = _by_id(document, "annotations", set(image_of), self._file)
        self._check_same_image(entries)
        found = {}
        for number, entry in entries.items():
            where = f"{self._file}: annotation {number}"
            size = self._images[image_of[number]].size
            parts = _parts(entry.get("segmentation"), size, where)
            category = files.field(entry, "category_id", int, where)
            found[number] = _Annotation(names.get(category, ""), tuple(parts))
        return found

    def _check_same_image(self, annotations: Mapping[int, Mapping[str, Any]]) -> None:
        for phrase in self._phrases:
            for number in phrase.annotations:
                if annotations[number].get("image_id") != phrase.image_id:
                    raise BadInput(
                        f"{self._file}: annotation {number} is not of image {phrase.image_id}, "
                        f"which sentence {phrase.sentence_id} is about"
                    )

    def _find_images(self) -> Path:
        """The folder of the photographs; the first of `IMAGE_FOLDERS` where none is there."""
        names = {image.name: number for number, image in self._images.items()}
        first = next(iter(names))
        there = [f for f in IMAGE_FOLDERS if (self.folder / f).is_dir()]
        best = [f for f in there if (self.folder / f / first).is_file()] or there
        if not best:
            return self.folder / IMAGE_FOLDERS[0]
        folder = self.folder / best[0]
        for name, number in names.items():
            if not (folder / name).is_file():
                raise BadInput(f"{self._file}: image {number}: no such image file: {folder / name}")
        return folder


def _category_names(document: object, file: Path) -> dict[int, str]:
    where = f"{file}: categories"
    entries = files.field(document, "categories", list, str(file))
    return {files.field(e, "id", int, where): files.field(e, "name", str, where) for e in entries}


def _by_id(document: object, name: str, wanted: set[int], file: Path) -> dict[int, dict[str, Any]]:
    """The entries with the wanted ids; BadInput where one is missing."""
    found = {}
    for entry in files.field(document, name, list, str(file)):
        number = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(number, int) and number in wanted:
            found[number] = entry
    missing = wanted - found.keys()
    if missing:
        raise BadInput(f"{file}: no {name} with the id {min(missing)}, which a reference needs")
    return found


def _parts(segmentation: object, size: tuple[int, int], where: str) -> Iterator[RLE]:
    """Run-length encodings whose sum is the annotation: one a polygon; an empty list is no mask."""
    if not isinstance(segmentation, list):
        yield encode(segmentation, size, where)
    elif segmentation and isinstance(segmentation[0], dict):
        for part in segmentation:
            yield encode(part, size, where)
    elif segmentation:
        encode(segmentation, size, where)  # refuses what pycocotools would choke on
        yield from coco.frPyObjects(segmentation, *size)
