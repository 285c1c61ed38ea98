"""Photographs annotated in COCO's form: every category of an image is a query.

A folder holds ``instances.json`` and ``images/``. An image may carry a ``split``, which COCO's own
files don't. COCO's layout is read too: ``annotations/instances_val2017.json`` beside ``val2017/``.

Format: https://cocodataset.org/#format-data (object detection).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsvp.datasets import Sample, TrueObject
from rsvp.datasets.instances import CocoAnnotation, image_folder, read_instances
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask

FILE = "instances.json"
KIND = "all"


class CocoDataset:
    """One sample an (image, category), in the file's order of images.

    The query is the category's name, the objects are its instances; a crowd is ignored. A sample's
    id is ``<image id>/<category id>``. A category with nothing but crowds on an image is no sample.

    Attributes:
        file: the annotations.
        digest: SHA-256 of the annotations and the split.
    """

    def __init__(self, source: str | Path, *, split: str | None = None) -> None:
        """Open annotations.

        Args:
            source: a folder with ``instances.json``, or a file of that form.
            split: only images whose ``split`` it is; None for all.

        Raises:
            BadInput: the file is missing or broken, an image is missing, or there is no such split.
                One line with the file and the id.
        """
        source = Path(source)
        self.file = source / FILE if source.is_dir() else source
        self._truth = read_instances(self.file).of_split(split)
        self.digest = hashlib.sha256(f"{self._truth.digest}\0{split}".encode()).hexdigest()
        grouped = self._truth.by_image_and_category()
        rank = {number: place for place, number in enumerate(self._truth.images)}
        self._samples = [
            (place, grouped[place])
            for place in sorted(grouped, key=lambda pair: (rank[pair[0]], pair[1]))
            if not all(a.get("iscrowd") for a in grouped[place])
        ]
        if not self._samples:
            raise BadInput(f"{self.file}: no image is annotated")
        self._folder = image_folder(self.file)
        for number in dict.fromkeys(place[0] for place, _ in self._samples):
            path = self._folder / self._truth.images[number]["file_name"]
            if not path.is_file():
                raise BadInput(f"{self.file}: images {number}: no such image file: {path}")

    def __len__(self) -> int:
        return len(self._samples)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        image_id, category_id = self._samples[index][0]
        return f"{image_id}/{category_id}"

    def image_key(self, index: int) -> str:
        """The id of a sample's image."""
        return str(self._samples[index][0][0])

    def __getitem__(self, index: int) -> Sample:
        (image_id, category_id), annotations = self._samples[index]
        label = self._truth.categories[category_id]
        union, crowd, objects = self._masks(label, image_id, annotations)
        return Sample(
            id=self.sample_id(index),
            image=self._folder / self._truth.images[image_id]["file_name"],
            query=label,
            kind=KIND,
            mask=union,
            objects=tuple(objects),
            ignore=crowd & ~union if crowd.any() else None,
        )

    def _masks(
        self, label: str, image_id: int, annotations: Sequence[CocoAnnotation]
    ) -> tuple[BoolMask, BoolMask, list[TrueObject]]:
        """All instances in one mask, all crowds in one, and the instances."""
        size = self._truth.size(image_id)
        union, crowd = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
        objects = []
        for annotation in annotations:
            mask = self._truth.mask(annotation)
            if annotation.get("iscrowd"):
                crowd |= mask
            elif (box := mask_to_box(mask)) is not None:
                union |= mask
                objects.append(TrueObject(label, box, mask))
        return union, crowd, objects
