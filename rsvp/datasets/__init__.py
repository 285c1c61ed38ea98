"""Files -> samples, for training and evaluation alike. A reader answers: how many, and give one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box


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
        """The objects' boxes."""
        return tuple(o.box for o in self.objects)

    @property
    def labels(self) -> tuple[str, ...]:
        """The objects' labels."""
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


@runtime_checkable
class Dataset(Protocol):
    """A benchmark's reader, made from its folder.

    Opening it checks the annotations without decoding an image, and raises BadInput with the file
    and the id. Where the annotations hold the size of an image, the image file may be missing:
    `check_images` says so before a run starts.

    Attributes:
        digest: hex digest of the annotations; another one means other truth.
    """

    digest: str

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, 0 to len - 1; IndexError beyond."""
        ...

    def check_images(self) -> None:
        """Raise BadInput, with the annotations and the id, for the first missing image file."""
        ...


@runtime_checkable
class ByImage(Protocol):
    """A reader that has several samples of an image, and can group them without reading any."""

    def image_key(self, index: int) -> str:
        """The same for samples of the same image."""
        ...
