"""Segmentation in the Wild (SegInW): 25 small sets of photographs, zero-shot.

Disk: ``<Name>/valid/`` with the pictures and ``_annotations_min1cat.coco.json``. Every category is
asked for on every image, images without annotations included: a false alarm there must cost.

Source: X. Zou et al., Generalized Decoding for Pixel, Image and Language (2022), and its
``seginw`` branch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from rsvp.datasets import BaseDataset, Sample
from rsvp.datasets.instances import Instances, read_instances
from rsvp.errors import BadInput

FOLDER, FILE = "valid", "_annotations_min1cat.coco.json"

# The sets, in the order of the published tables.
SETS = (
    "Elephants", "Hand-Metal", "Watermelon", "House-Parts", "HouseHold-Items", "Strawberry",
    "Fruits", "Nutterfly-Squireel", "Hand", "Garbage", "Chicken", "Rail", "Airplane-Parts",
    "Brain-Tumor", "Poles", "Electric-Shaver", "Bottles", "Toolkits", "Trash", "Salmon-Fillet",
    "Puppies", "Tablets", "Phones", "Cows", "Ginger-Garlic",
)  # fmt: skip


class CategoryQuery(NamedTuple):
    """What a sample asks: a category of a set on one of its images."""

    set_name: str
    image_id: int
    category_id: int


class SeginwDataset(BaseDataset):
    """One sample an (image, category), of all sets of a folder or of a single set.

    A sample's kind is its set. Its id is ``<image id>/<category id>``, after ``<Name>/`` where
    several sets are open. Its query is the category's name in the file.

    Args:
        folder: holds ``<Name>/valid/…``, or is such a ``<Name>`` itself.

    Attributes:
        sets: name -> ground truth, in the order of `SETS`, others after them by name.
        queries: what each sample asks.
        digest: SHA-256 over the sets' names and files.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.sets: dict[str, Instances] = {
            place.parent.name: read_instances(place / FILE) for place in _set_folders(folder)
        }
        if not self.sets:
            raise BadInput(f"no {FOLDER}/{FILE} in {folder} or in a folder of it")
        self._annotations = {name: one.by_image_and_category() for name, one in self.sets.items()}
        self.queries = [
            CategoryQuery(name, image, category)
            for name, one in self.sets.items()
            for image in one.images
            for category in one.categories
        ]
        named = len(self.sets) > 1
        ids = [f"{q.set_name}/" * named + f"{q.image_id}/{q.category_id}" for q in self.queries]
        text = "".join(f"{name}\0{one.digest}\0" for name, one in self.sets.items())
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
        super().__init__(folder, digest, ids)

    def image_file(self, index: int) -> Path:
        query = self.queries[index]
        truth = self.sets[query.set_name]
        return truth.file.parent / truth.images[query.image_id]["file_name"]

    def __getitem__(self, index: int) -> Sample:
        name, image_id, category = self.queries[index]
        return self.sets[name].category_sample(
            image_id,
            category,
            self._annotations[name].get((image_id, category), ()),
            sample_id=self._ids[index],
            image=self.image_file(index),
            kind=name,
        )


def _set_folders(folder: Path) -> list[Path]:
    """The ``valid`` folders, in the order of the published tables."""
    for own in (folder / FOLDER, folder):
        if (own / FILE).is_file():
            return [own.resolve()]
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder}")
    rank = {name: number for number, name in enumerate(SETS)}
    found = (one for one in folder.iterdir() if (one / FOLDER / FILE).is_file())
    ordered = sorted(found, key=lambda path: (rank.get(path.name, len(rank)), path.name))
    return [one / FOLDER for one in ordered]
