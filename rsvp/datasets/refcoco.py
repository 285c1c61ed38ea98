"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: phrases that refer to things on COCO photographs.

A folder holds ``refs(<splitBy>).p`` (gRefCOCO: ``grefs(<splitBy>).json``) and ``instances.json``;
the photographs are COCO's train2014, in one of `IMAGE_FOLDERS`. Every sentence is a sample.

Sources: L. Yu et al., Modeling Context in Referring Expressions (ECCV 2016), and its REFER toolkit;
C. Liu et al., GRES: Generalized Referring Expression Segmentation (CVPR 2023).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsvp.datasets import BaseDataset, Sample, unite
from rsvp.datasets.instances import Instances, encode_parts, read_instances
from rsvp.datasets.refer import find_refs, read_phrases
from rsvp.errors import BadInput
from rsvp.masks import decode_rle
from rsvp.platform.files import read_bytes

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


class RefCocoDataset(BaseDataset):
    """The sentences of one split, in the file's order; a sample's id is its sentence's.

    Each polygon of an annotation is drawn alone: where two overlap, the official code counts a
    pixel twice, and `Sample.overlap_mask` holds these pixels. gRefCOCO's masks are united instead;
    its kinds are ``target`` and ``no-target``.

    Attributes:
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
        folder = Path(folder)
        refs, file = find_refs(folder, split_by), folder / "instances.json"
        refs_data = read_bytes(refs)
        self._phrases = read_phrases(refs, refs_data, split)
        self.general = any(phrase.general for phrase in self._phrases)
        truth = read_instances(
            file,
            images={phrase.image_id for phrase in self._phrases},
            annotations={number for phrase in self._phrases for number in phrase.annotations},
        )
        self._images = truth.images
        self._check_same_image(truth)
        # The polygons are kept encoded, which is much smaller than lists of numbers.
        self._parts = {
            one["id"]: encode_parts(
                one.get("segmentation"),
                truth.size(one["image_id"]),
                f"{file}: annotations {one['id']}",
            )
            for one in truth.annotations
        }
        self._labels = {
            one["id"]: truth.categories.get(one["category_id"], "") for one in truth.annotations
        }
        self._image_folder = self._find_image_folder(folder)
        digests = (
            hashlib.sha256(split.encode()).digest(),
            hashlib.sha256(refs_data).digest(),
            bytes.fromhex(truth.digest),
        )
        digest = hashlib.sha256(b"".join(digests)).hexdigest()
        super().__init__(refs, digest, [str(phrase.sentence_id) for phrase in self._phrases])

    def image_key(self, index: int) -> str:
        """The id of a sample's image."""
        return str(self._phrases[index].image_id)

    def _image_file(self, index: int) -> Path:
        return self._image_folder / self._image_name(self._phrases[index].image_id)

    def __getitem__(self, index: int) -> Sample:
        phrase = self._phrases[index]
        image = self._images[phrase.image_id]
        size = (image["height"], image["width"])
        counts = {number: self._count(number, size) for number in phrase.annotations}
        masks = ((self._labels[number], count > 0) for number, count in counts.items())
        mask, objects = unite(masks, size)
        overlap = np.logical_or.reduce(
            [np.zeros(size, np.bool_), *(c > 1 for c in counts.values())]
        )
        kind = KIND
        if self.general:
            kind = TARGET if phrase.annotations else NO_TARGET
        return Sample(
            id=self._ids[index],
            image=self._image_file(index),
            query=phrase.text,
            kind=kind,
            mask=mask,
            objects=objects,
            overlap_mask=overlap if overlap.any() and not self.general else None,
        )

    def _count(self, annotation: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W): how many polygons of an annotation cover each pixel, 2 for two and more."""
        total = np.zeros(size, dtype=np.uint8)
        for part in self._parts[annotation]:
            total += decode_rle(part, size, f"{self.file}: annotation {annotation}")
            np.minimum(total, 2, out=total)
        return total

    def _image_name(self, image_id: int) -> str:
        return Path(self._images[image_id]["file_name"]).name

    def _check_same_image(self, truth: Instances) -> None:
        image_of = {one["id"]: one["image_id"] for one in truth.annotations}
        for phrase in self._phrases:
            for number in phrase.annotations:
                if image_of[number] != phrase.image_id:
                    raise BadInput(
                        f"{truth.file}: annotations {number} is not of image {phrase.image_id}, "
                        f"which sentence {phrase.sentence_id} is about"
                    )

    def _find_image_folder(self, folder: Path) -> Path:
        """The folder that has the first image, else the first one there, else the first known."""
        name = self._image_name(self._phrases[0].image_id)
        folders = [folder / one for one in IMAGE_FOLDERS]
        there = [one for one in folders if one.is_dir()]
        return next((one for one in there if (one / name).is_file()), (there or folders)[0])
