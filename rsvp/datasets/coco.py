"""Photographs annotated in COCO's form: every category of an image is a query.

A folder holds ``instances.json`` and ``images/``; an image may name a ``split``. COCO's layout is
read too: ``annotations/instances_val2017.json`` beside ``val2017/``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rsvp.datasets import BaseDataset, Sample
from rsvp.datasets.instances import read_instances

FILE = "instances.json"
KIND = "all"


class CocoDataset(BaseDataset):
    """One sample an (image, category), in the file's order of images.

    The query is the category's name, the objects are its instances; a crowd is ignored. A sample's
    id is ``<image id>/<category id>``. A category with nothing but crowds on an image is no sample.

    Args:
        source: a folder with ``instances.json``, or a file of that form.
        split: only images whose ``split`` it is; None for all.
    """

    def __init__(self, source: str | Path, *, split: str | None = None) -> None:
        source = Path(source)
        file = source / FILE if source.is_dir() else source
        self._truth = read_instances(file).of_split(split)
        self._annotations = self._truth.by_image_and_category()
        rank = {number: place for place, number in enumerate(self._truth.images)}
        pairs = sorted(self._annotations, key=lambda pair: (rank[pair[0]], pair[1]))
        crowds = {p for p in pairs if all(one.get("iscrowd") for one in self._annotations[p])}
        self._pairs = [pair for pair in pairs if pair not in crowds]
        digest = hashlib.sha256(f"{self._truth.digest}\0{split}".encode()).hexdigest()
        super().__init__(file, digest, [f"{image}/{category}" for image, category in self._pairs])

    def image_key(self, index: int) -> str:
        """The id of a sample's image."""
        return str(self._pairs[index][0])

    def _image_file(self, index: int) -> Path:
        return self._truth.image_file(self._pairs[index][0])

    def __getitem__(self, index: int) -> Sample:
        pair, image = self._pairs[index], self._image_file(index)
        return self._truth.category_sample(
            *pair, self._annotations[pair], sample_id=self._ids[index], image=image, kind=KIND
        )
