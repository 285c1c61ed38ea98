"""COCO instances files: images, categories and annotations, all checked on opening.

pycocotools does not check its input: a polygon with wild coordinates makes it allocate all memory,
an odd number of them makes it read past the end. So everything is checked before it gets there.

Format: https://cocodataset.org/#format-data (object detection). An image may also name a ``split``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar, cast

import numpy as np
from pycocotools import mask as coco
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from rsvp.datasets import BaseDataset, Sample, check_size, inside, unite
from rsvp.errors import BadInput
from rsvp.masks import RLE, decode_rle, rle_runs
from rsvp.platform.files import parse_json, read_bytes, validate
from rsvp.types import BoolMask

Entry = TypeVar("Entry", bound=Mapping[str, Any])

Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_CONFIG = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


@with_config(_CONFIG)
class CocoImage(TypedDict):
    """An image; `split` is no field of COCO's own files."""

    id: Id
    file_name: str
    height: int
    width: int
    split: NotRequired[Any]


@with_config(_CONFIG)
class CocoCategory(TypedDict):
    """A category."""

    id: Id
    name: str


@with_config(_CONFIG)
class CocoAnnotation(TypedDict):
    """An object of a category on an image; the segmentation is polygons or RLE, see `encode`."""

    id: Id
    image_id: int
    category_id: int
    segmentation: NotRequired[Any]
    iscrowd: NotRequired[Any]


@with_config(_CONFIG)
class _CocoDocument(TypedDict):
    # The lists of a file; their entries are checked one by one
    images: list[Any]
    categories: list[Any]
    annotations: list[Any]


_DOCUMENT = TypeAdapter(_CocoDocument).validate_python
_IMAGE = TypeAdapter(CocoImage).validate_python
_CATEGORY = TypeAdapter(CocoCategory).validate_python
_ANNOTATION = TypeAdapter(CocoAnnotation).validate_python
_POLYGONS = TypeAdapter(list[list[float]], config=_CONFIG).validate_python


@dataclass(frozen=True, slots=True)
class Instances:
    """A checked COCO instances file.

    Attributes:
        file: its path.
        digest: SHA-256 of the file.
        images: id -> its entry, in the file's order.
        categories: id -> name, in the order of the ids.
        annotations: in the file's order.
    """

    file: Path
    digest: str
    images: Mapping[int, CocoImage] = field(repr=False)
    categories: Mapping[int, str]
    annotations: Sequence[CocoAnnotation] = field(repr=False)

    def size(self, image_id: int) -> tuple[int, int]:
        """(H, W) of an image."""
        image = self.images[image_id]
        return image["height"], image["width"]

    def image_file(self, image_id: int) -> Path:
        """The file of an image; it may be missing.

        Its folder is ``images/`` beside the instances file, COCO's ``../val2017`` of
        ``instances_val2017.json``, or where neither exists that of the file itself.
        """
        file = self.file
        folders = (file.parent / "images", file.parent.parent / file.stem.rpartition("_")[2])
        folder = next((one for one in folders if one.is_dir()), file.parent)
        return folder / self.images[image_id]["file_name"]

    def mask(self, annotation: CocoAnnotation) -> BoolMask:
        """(H, W) bool, the decoded mask of an annotation."""
        size = self.size(annotation["image_id"])
        where = f"{self.file}: annotations {annotation['id']}"
        return decode_rle(encode(annotation["segmentation"], size, where), size, where)

    def category_sample(
        self,
        image_id: int,
        category_id: int,
        annotations: Iterable[CocoAnnotation],
        *,
        sample_id: str,
        image: Path,
        kind: str,
    ) -> Sample:
        """A category on an image, given its annotations there; its crowds are ignored."""
        query, objects = self.categories[category_id], []
        crowd = np.zeros(self.size(image_id), dtype=np.bool_)
        for annotation in annotations:
            mask = self.mask(annotation)
            if annotation.get("iscrowd"):
                crowd |= mask
            else:
                objects.append((query, mask))
        union, found = unite(objects, crowd.shape)
        ignore = crowd & ~union if crowd.any() else None
        return Sample(sample_id, image, query, kind, union, found, ignore=ignore)

    def by_image_and_category(self) -> dict[tuple[int, int], list[CocoAnnotation]]:
        """The annotations of each (image id, category id) that has any, in the file's order."""
        grouped: dict[tuple[int, int], list[CocoAnnotation]] = defaultdict(list)
        for annotation in self.annotations:
            grouped[annotation["image_id"], annotation["category_id"]].append(annotation)
        return dict(grouped)

    def of_split(self, split: str | None) -> Instances:
        """The images of a split, with their annotations; everything for None. BadInput if none."""
        if split is None:
            return self
        images = {n: image for n, image in self.images.items() if image.get("split") == split}
        if not images:
            found = ", ".join(sorted({str(image.get("split")) for image in self.images.values()}))
            raise BadInput(f"{self.file}: no image of split {split!r}; found {found}")
        kept = [one for one in self.annotations if one["image_id"] in images]
        return replace(self, images=images, annotations=kept)


def read_instances(
    file: Path,
    *,
    images: Collection[int] | None = None,
    annotations: Collection[int] | None = None,
) -> Instances:
    """Read and check an instances file; its image files need not exist.

    Args:
        images: the ids that are needed; the other entries are neither checked nor returned.
        annotations: likewise. What these refer to and their segmentations are left to the caller
            to check, see `encode_parts`.

    Raises:
        BadInput: something is missing or broken; one line with the file and the id.
    """
    data = read_bytes(file)
    document = validate(_DOCUMENT, parse_json(data, str(file)), str(file))
    categories = _entries(document["categories"], "categories", _CATEGORY, file)
    chosen = _entries(document["annotations"], "annotations", _ANNOTATION, file, annotations)
    found = Instances(
        file=file,
        digest=hashlib.sha256(data).hexdigest(),
        images=_entries(document["images"], "images", _IMAGE, file, images),
        categories={number: categories[number]["name"] for number in sorted(categories)},
        annotations=list(chosen.values()),
    )
    for number, image in found.images.items():
        where = f"{file}: images {number}"
        check_size((image["height"], image["width"]), where)
        inside(Path(), image["file_name"], where)
    for one in found.annotations if annotations is None else ():
        where = f"{file}: annotations {one['id']}"
        if one["image_id"] not in found.images:
            raise BadInput(f"{where}: there is no image_id {one['image_id']}")
        if one["category_id"] not in categories:
            raise BadInput(f"{where}: there is no category_id {one['category_id']}")
        size, segmentation = found.size(one["image_id"]), one.get("segmentation")
        if isinstance(segmentation, list):
            _polygons(segmentation, size, where)
        else:
            rle_runs(segmentation, size, where)
    return found


class CocoDataset(BaseDataset):
    """Every category of an image is a query: one sample an (image, category), in image order.

    A folder holds ``instances.json`` and ``images/``; an image may name a ``split``. COCO's layout
    is read too: ``annotations/instances_val2017.json`` beside ``val2017/``.

    The query is the category's name, the objects are its instances; a crowd is ignored. A sample's
    id is ``<image id>/<category id>``. A category with nothing but crowds on an image is no sample.

    Args:
        source: a folder with ``instances.json``, or a file of that form.
        split: only images whose ``split`` it is; None for all.
    """

    def __init__(self, source: str | Path, *, split: str | None = None) -> None:
        source = Path(source)
        file = source / "instances.json" if source.is_dir() else source
        self._truth = read_instances(file).of_split(split)
        self._annotations = self._truth.by_image_and_category()
        rank = {number: place for place, number in enumerate(self._truth.images)}
        pairs = sorted(self._annotations, key=lambda pair: (rank[pair[0]], pair[1]))
        crowds = {p for p in pairs if all(one.get("iscrowd") for one in self._annotations[p])}
        self._pairs = [pair for pair in pairs if pair not in crowds]
        digest = hashlib.sha256(f"{self._truth.digest}\0{split}".encode()).hexdigest()
        super().__init__(file, digest, [f"{image}/{category}" for image, category in self._pairs])

    def image_key(self, index: int) -> str:
        return str(self._pairs[index][0])

    def image_file(self, index: int) -> Path:
        return self._truth.image_file(self._pairs[index][0])

    def __getitem__(self, index: int) -> Sample:
        pair, image = self._pairs[index], self.image_file(index)
        return self._truth.category_sample(
            *pair, self._annotations[pair], sample_id=self._ids[index], image=image, kind="all"
        )


def encode(segmentation: object, size: tuple[int, int], where: str) -> RLE:
    """The compressed RLE of a COCO segmentation, as pycocotools itself would make it.

    Args:
        segmentation: a list of polygons, merged into one mask, or an RLE with text or plain counts.
        size: (H, W) of the image.
        where: names the segmentation in error messages.
    """
    if isinstance(segmentation, list):
        return cast(RLE, coco.merge(coco.frPyObjects(_polygons(segmentation, size, where), *size)))
    rle_runs(segmentation, size, where)
    found = cast(RLE, segmentation)
    if isinstance(found["counts"], list):
        return cast(RLE, coco.frPyObjects(dict(found), *size))
    return dict(found)


def encode_parts(segmentation: object, size: tuple[int, int], where: str) -> list[RLE]:
    """Like `encode`, but unmerged: an RLE for each polygon; none for an empty list.

    The segmentation may also be a list of RLEs, as RefCOCO has it.
    """
    if not isinstance(segmentation, list):
        return [encode(segmentation, size, where)]
    if not segmentation or isinstance(segmentation[0], dict):
        return [encode(part, size, where) for part in segmentation]
    return cast(list[RLE], coco.frPyObjects(_polygons(segmentation, size, where), *size))


def _entries(
    entries: Sequence[object],
    name: str,
    check: Callable[[Any], Entry],
    file: Path,
    needed: Collection[int] | None = None,
) -> dict[int, Entry]:
    """The entries of a list by their ids, in the file's order; all that are needed, each once."""
    found: dict[int, Entry] = {}
    for place, raw in enumerate(entries):
        number = raw.get("id") if isinstance(raw, dict) else None
        known = type(number) is int
        if needed is not None and not (known and number in needed):
            continue
        where = f"{file}: {name} {number}" if known else f"{file}: {name} at place {place}"
        entry = validate(check, raw, where)
        if entry["id"] in found:
            raise BadInput(f"{file}: two {name} have the id {number}")
        found[entry["id"]] = entry
    missing = set(needed or ()) - found.keys()
    if missing:
        raise BadInput(f"{file}: no {name} with the id {min(missing)}")
    return found


def _polygons(segmentation: list[Any], size: tuple[int, int], where: str) -> list[list[float]]:
    """The polygons of a segmentation; their corners may lie outside the image, but not far."""
    polygons = validate(_POLYGONS, segmentation, f"{where}: segmentation")
    # Some files hold lines, which fill nothing; pycocotools refuses one only in the first place.
    if not polygons or len(polygons[0]) < 6:
        raise BadInput(f"{where}: a segmentation begins with a polygon of at least three corners")
    height, width = size
    for polygon in polygons:
        if len(polygon) < 4 or len(polygon) % 2:
            raise BadInput(f"{where}: a polygon is a list x, y, x, y, …")
        x, y = polygon[::2], polygon[1::2]
        if min(x) < -width or max(x) > 2 * width or min(y) < -height or max(y) > 2 * height:
            raise BadInput(f"{where}: a corner of a polygon lies far outside the image")
    return polygons
