"""Segmentation in the Wild (SegInW): 25 small sets of photographs, zero-shot.

Disk: ``<Name>/valid/`` with the pictures and ``_annotations_min1cat.coco.json``. Every category is
asked for on every image, images without annotations included: a false alarm there must cost.

Source: X. Zou et al., Generalized Decoding for Pixel, Image and Language (2022), and its
``seginw`` branch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rsvp.datasets import Sample, TrueObject
from rsvp.datasets.instances import Instances, Json, encode, read_instances
from rsvp.errors import BadInput
from rsvp.masks import decode_rle, mask_to_box
from rsvp.types import BoolMask

FOLDER, FILE = "valid", "_annotations_min1cat.coco.json"

# The sets in the order of the published tables, each with its prompts in the order of the ids.
SETS: dict[str, tuple[str, ...]] = {
    "Elephants": ("elephant",),
    "Hand-Metal": ("hand", "metal"),
    "Watermelon": ("watermelon",),
    "House-Parts": (
        "aluminium door", "aluminium window", "cellar window", "mint cond roof", "plaster",
        "plastic door", "plastic window", "plate fascade", "wooden door", "wooden fascade",
        "wooden window", "worn cond roof",
    ),
    "HouseHold-Items": ("bottle", "mouse", "perfume", "phone"),
    "Strawberry": ("R_strawberry", "people"),
    "Fruits": ("apple", "lemon", "orange", "pear", "strawberry"),
    "Nutterfly-Squireel": ("butterfly", "squirrel"),
    "Hand": ("Hand-Segmentation", "hand"),
    "Garbage": ("bin", "garbage", "pavement", "road"),
    "Chicken": ("chicken",),
    "Rail": ("rail",),
    "Airplane-Parts": ("Airplane", "Body", "Cockpit", "Engine", "Wing"),
    "Brain-Tumor": ("tumor",),
    "Poles": ("poles",),
    "Electric-Shaver": ("caorau",),
    "Bottles": ("bottle", "can", "label"),
    "Toolkits": (
        "Allen-key", "block", "gasket", "plier", "prism", "screw", "screwdriver", "wrench",
    ),
    "Trash": (
        "Aluminium foil", "Cigarette", "Clear plastic bottle", "Corrugated carton",
        "Disposable plastic cup", "Drink Can", "Egg Carton", "Foam cup", "Food Can", "Garbage bag",
        "Glass bottle", "Glass cup", "Metal bottle cap", "Other carton", "Other plastic bottle",
        "Paper cup", "Plastic bag - wrapper", "Plastic bottle cap", "Plastic lid",
        "Plastic straw", "Pop tab", "Styrofoam piece",
    ),
    "Salmon-Fillet": ("Salmon_fillet",),
    "Puppies": ("puppy",),
    "Tablets": ("tablets",),
    "Phones": ("phone",),
    "Cows": ("cow",),
    "Ginger-Garlic": ("garlic", "ginger"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """What a sample asks: a category of a set on one of its images."""

    set_name: str
    image_id: int
    category_id: int


@dataclass(frozen=True, slots=True)
class _Set:
    truth: Instances
    folder: Path
    annotations: Mapping[tuple[int, int], Sequence[Json]] = field(repr=False)


class SeginwDataset:
    """One sample an (image, category), of all sets of a folder or of a single set.

    A sample's kind is its set. Its id is ``<image id>/<category id>``, after ``<Name>/`` where
    several sets are open. Its query is the category's name in the file, which in the official files
    is the prompt in `SETS`.

    Attributes:
        folder: the folder of sets, or a set's own.
        sets: name -> ground truth, in the order of `SETS`, others after them by name.
        digest: SHA-256 over the sets' names and files.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open ``folder`` where it holds ``<Name>/valid/…`` or is such a ``<Name>`` itself.

        Raises:
            BadInput: no set is there, or a file is broken: one line with the
                file and the id, see `rsvp.datasets.instances.read_instances`.
        """
        self.folder = Path(folder)
        self._sets = {place.parent.name: _open(place) for place in _places(self.folder)}
        if not self._sets:
            raise BadInput(f"no {FOLDER}/{FILE} in {self.folder} or in a folder of it")
        self.sets: dict[str, Instances] = {name: one.truth for name, one in self._sets.items()}
        text = "".join(f"{name}\0{one.digest}\0" for name, one in self.sets.items())
        self.digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
        self._samples = [
            Place(name, image, category)
            for name, one in self.sets.items()
            for image in one.images
            for category in one.categories
        ]
        if not self._samples:
            raise BadInput(f"{self.folder}: no set has an image and a category")
        self._index = {self._id(place): place for place in self._samples}

    @property
    def missing(self) -> tuple[str, ...]:
        """The official sets that are not here; a mean over fewer than 25 is another number."""
        return tuple(name for name in SETS if name not in self.sets)

    def place(self, sample_id: str) -> Place | None:
        """What a sample id asks for; None for an unknown one."""
        return self._index.get(sample_id)

    def __len__(self) -> int:
        return len(self._samples)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        return self._id(self._samples[index])

    def __getitem__(self, index: int) -> Sample:
        place = self._samples[index]
        one = self._sets[place.set_name]
        label = one.truth.categories[place.category_id]
        union = np.zeros(one.truth.size(place.image_id), dtype=np.bool_)
        crowd = np.zeros_like(union)
        objects: list[TrueObject] = []
        for annotation in one.annotations.get((place.image_id, place.category_id), ()):
            mask = _mask(annotation, one.truth)
            if annotation.get("iscrowd"):
                crowd |= mask
            elif (box := mask_to_box(mask)) is not None:
                union |= mask
                objects.append(TrueObject(label, box, mask))
        return Sample(
            id=self._id(place),
            image=one.folder / one.truth.images[place.image_id]["file_name"],
            query=label,
            kind=place.set_name,
            mask=union,
            objects=tuple(objects),
            ignore=crowd & ~union if crowd.any() else None,
        )

    def _id(self, place: Place) -> str:
        prefix = f"{place.set_name}/" if len(self._sets) > 1 else ""
        return f"{prefix}{place.image_id}/{place.category_id}"


def _places(folder: Path) -> Iterator[Path]:
    """The ``valid`` folders, in the order of the published tables."""
    if (folder / FOLDER / FILE).is_file():
        yield (folder / FOLDER).resolve()
        return
    if (folder / FILE).is_file():
        yield folder.resolve()
        return
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder} with samples")
    rank = {name: place for place, name in enumerate(SETS)}
    found = (one for one in folder.iterdir() if (one / FOLDER / FILE).is_file())
    for one in sorted(found, key=lambda path: (rank.get(path.name, len(rank)), path.name)):
        yield one / FOLDER


def _open(folder: Path) -> _Set:
    truth = read_instances(folder / FILE)
    return _Set(truth, folder, truth.by_image_and_category())


def _mask(annotation: Json, truth: Instances) -> BoolMask:
    size, where = (
        truth.size(annotation["image_id"]),
        f"{truth.file}: annotations {annotation['id']}",
    )
    return decode_rle(encode(annotation["segmentation"], size, where), size, where)
