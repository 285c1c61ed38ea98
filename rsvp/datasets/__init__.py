"""Files -> samples, for training and evaluation alike. A reader answers: how many, and give one.

This module has the samples and the base of the readers.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rsvp.errors import BadInput
from rsvp.images import MAX_PIXELS
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box

_LONGEST_NAME = 255  # bytes of a part of a path, on every common file system


@dataclass(frozen=True, slots=True)
class GroundTruthObject:
    """An object that a query asks for.

    Attributes:
        box: in pixels, tight around `mask`.
        mask: (H, W) bool, the visible pixels.
    """

    label: str
    box: Box
    mask: BoolMask = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One query on one image, with its ground truth.

    Attributes:
        id: unique in its dataset, the same in every run.
        image: the file, or its bytes where a benchmark packs them; masks and boxes are in its
            upright pixels.
        kind: the benchmark's own class of queries, by which scores are also reported.
        mask: (H, W) bool, everything that the query asks for; all False when that is absent.
        objects: the single objects in `mask`, where the benchmark separates them.
        tags: further groups that the sample belongs to, e.g. ``unseen``.
        path: the objects that lead to the answer, where the benchmark asks for them too.
        ignore: (H, W) bool, pixels marked "don't care", outside `mask`; protocols differ on them.
        overlap_mask: (H, W) bool, the part of `mask` that lies in two polygons; protocols differ
            on these pixels too.
    """

    id: str
    image: Path | bytes = field(repr=False)
    query: str
    kind: str
    mask: BoolMask = field(repr=False)
    objects: tuple[GroundTruthObject, ...] = ()
    tags: tuple[str, ...] = ()
    ignore: BoolMask | None = field(default=None, repr=False)
    overlap_mask: BoolMask | None = field(default=None, repr=False)
    path: tuple[GroundTruthObject, ...] = ()

    def __post_init__(self) -> None:
        for mask in (self.mask, self.ignore, self.overlap_mask):
            if mask is not None and (
                mask.shape != self.mask.shape or mask.ndim != 2 or mask.dtype != np.bool_
            ):
                raise BadInput(
                    f"{self.id}: a truth mask is (H, W) bool, found {mask.shape} {mask.dtype}"
                )

    @property
    def absent(self) -> bool:
        """Whether nothing in the image answers the query."""
        return not self.mask.any()

    @property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(o.box for o in self.objects)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(o.label for o in self.objects)


def unite(
    masks: Iterable[tuple[str, BoolMask]], size: tuple[int, int]
) -> tuple[BoolMask, tuple[GroundTruthObject, ...]]:
    """The union of labelled (H, W) masks, and an object for each mask that is not empty."""
    union = np.zeros(size, dtype=np.bool_)
    objects = []
    for label, mask in masks:
        box = mask_to_box(mask)
        if box is not None:
            union |= mask
            objects.append(GroundTruthObject(label, box, mask))
    return union, tuple(objects)


MAX_ID = 1000  # characters


class BaseDataset(ABC):
    """A benchmark's reader: numbered samples with unique ids, made from its folder.

    Opening it checks the annotations without decoding an image; its BadInput is one line with the
    file and the id. Where the annotations hold the size of an image, the image file may be missing:
    `check_images` says so before a run starts.

    Args:
        file: the annotations, a file or a folder; error messages begin with it.
        digest: hex digest of the annotations; another one means other truth.
        ids: of all samples.

    Raises:
        BadInput: there are no samples, two have the same id, or an id is longer than `MAX_ID`.
    """

    def __init__(self, file: Path, digest: str, ids: Sequence[str]) -> None:
        self.file, self.digest, self._ids = file, digest, ids
        if not ids:
            raise BadInput(f"{file}: no samples")
        seen: set[str] = set()
        for one in ids:
            if len(one) > MAX_ID:  # it stands in records, reports and messages
                length = f"has {len(one):,} characters, more than {MAX_ID:,}"
                raise BadInput(f"{file}: the id {one[:40]!r}… {length}")
            if one in seen:
                raise BadInput(f"{file}: two samples have the id {one!r}")
            seen.add(one)

    def __len__(self) -> int:
        return len(self._ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Sample `index`, 0 to len - 1; IndexError beyond."""

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        return self._ids[index]

    def image_key(self, index: int) -> str:
        """The same for samples of the same image, where the annotations tell."""
        return self._ids[index]

    def image_file(self, index: int) -> Path | None:  # noqa: ARG002
        """The image file of a sample; it may be missing. None where it has none of its own."""
        return None

    def check_images(self) -> None:
        """Raise BadInput, with the annotations and the id, for the first missing image file."""
        found: set[Path] = set()
        for index, sample_id in enumerate(self._ids):
            file = self.image_file(index)
            if file is not None and file not in found:
                if not file.is_file():
                    raise BadInput(f"{self.file}: {sample_id}: no such image file: {file}")
                found.add(file)


def digest_files(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over the names and contents of several files."""
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, offset in bytes, line) of each line that is not blank."""
    offset = 0
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield number, offset, line
        offset += len(line)


def check_size(size: tuple[int, int], where: str) -> None:
    """Raise BadInput, beginning with `where`, unless an image can have this (H, W)."""
    height, width = size
    if height < 1 or width < 1:
        raise BadInput(f"{where}: the size {width}x{height} is not positive")
    if height * width > MAX_PIXELS:
        raise BadInput(f"{where}: {width}x{height} pixels are too many for an image")


def mask_size(rle: object, where: str) -> tuple[int, int]:
    """The (H, W) that an RLE itself names; BadInput unless an image can have this size."""
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
        raise BadInput(f"{where}: a mask is COCO RLE with size and counts")
    check_size((size[0], size[1]), where)
    return size[0], size[1]


def inside(folder: Path, name: str, where: str) -> Path:
    """The file `name` of `folder`, which may be missing; BadInput if it leads out of the folder."""
    path = Path(name)
    too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in path.parts)
    if not path.name or "\0" in name or too_long or len(name) > 10 * _LONGEST_NAME:
        raise BadInput(f"{where}: {name[:60]!r} is no file name")
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(f"{where}: {name[:60]!r} leads out of the folder")
    return folder / path
