"""A COCO instances file: images, categories and annotations, each checked once, when it is opened.

pycocotools trusts its input: a polygon with wild coordinates makes it ask for all the memory there
is, an odd number of them reads past the end. So everything is looked at before it gets there.

Format: https://cocodataset.org/#format-data (object detection).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pycocotools import mask as coco

from rsvp.datasets import _files as files
from rsvp.datasets._paths import inside
from rsvp.errors import BadInput
from rsvp.images import MAX_PIXELS
from rsvp.masks import RLE, rle_runs

Json = Mapping[str, Any]

_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Instances:
    """A checked COCO instances file.

    Attributes:
        file: where it lies.
        digest: SHA-256 of the file.
        images: id -> its entry (`file_name`, `height`, `width`), in the file's order.
        categories: id -> name, in the order of the ids.
        annotations: in the file's order.
    """

    file: Path
    digest: str
    images: Mapping[int, Json] = field(repr=False)
    categories: Mapping[int, str]
    annotations: Sequence[Json] = field(repr=False)

    def size(self, image_id: int) -> tuple[int, int]:
        """(H, W) of an image."""
        image = self.images[image_id]
        return image["height"], image["width"]

    def by_image_and_category(self) -> dict[tuple[int, int], list[Json]]:
        """The annotations of each (image id, category id) that has any, in the file's order."""
        grouped: dict[tuple[int, int], list[Json]] = defaultdict(list)
        for annotation in self.annotations:
            grouped[annotation["image_id"], annotation["category_id"]].append(annotation)
        return dict(grouped)


def read_instances(file: Path) -> Instances:
    """Read and check an instances file; the pictures themselves are not looked for.

    Raises:
        BadInput: it is missing or broken, an id appears twice or refers to nothing, a mask is
            neither polygons nor RLE of the image's size. One line with the file and the id.
    """
    data = files.read_bytes(file)
    document = files.parse_json(data, str(file))
    images = _by_id(document, "images", file)
    for number, image in images.items():
        _check_image(image, f"{file}: images {number}")
    categories = _by_id(document, "categories", file)
    names = {
        number: files.field(categories[number], "name", str, f"{file}: categories {number}")
        for number in sorted(categories)
    }
    annotations = _by_id(document, "annotations", file)
    for number, annotation in annotations.items():
        _check_annotation(annotation, images, names, f"{file}: annotations {number}")
    return Instances(
        file=file,
        digest=hashlib.sha256(data).hexdigest(),
        images=images,
        categories=names,
        annotations=list(annotations.values()),
    )


def encode(segmentation: object, size: tuple[int, int], where: str) -> RLE:
    """The compressed RLE of a COCO segmentation, as pycocotools itself would make it.

    Args:
        segmentation: a list of polygons, merged into one mask, or an RLE with text or plain counts.
        size: (H, W) of the image.
        where: names the segmentation in error messages.

    Raises:
        BadInput: it is neither, or of another size.
    """
    height, width = size
    if isinstance(segmentation, list):
        _check_polygons(segmentation, size, where)
        return cast(RLE, coco.merge(coco.frPyObjects(segmentation, height, width)))
    rle_runs(segmentation, size, where)
    found = cast(RLE, segmentation)
    if isinstance(found["counts"], list):
        return cast(RLE, coco.frPyObjects(dict(found), height, width))
    return dict(found)


def _check_image(image: Json, where: str) -> None:
    height, width = files.size_of(image, where)
    if height * width > MAX_PIXELS:
        raise BadInput(f"{where}: {width}x{height} pixels are too many for an image")
    inside(Path(), files.field(image, "file_name", str, where), where)


def _check_annotation(
    annotation: Json, images: Mapping[int, Json], categories: Mapping[int, str], where: str
) -> None:
    for name, known in (("image_id", images), ("category_id", categories)):
        number = files.field(annotation, name, int, where)
        if number not in known:
            raise BadInput(f"{where}: there is no {name} {number}")
    image = images[annotation["image_id"]]
    size, segmentation = (image["height"], image["width"]), annotation.get("segmentation")
    if isinstance(segmentation, list):
        _check_polygons(segmentation, size, where)
    else:
        rle_runs(segmentation, size, where)


def _check_polygons(polygons: list[Any], size: tuple[int, int], where: str) -> None:
    """Polygons may stick out of the image a little, as drawn ones do, but not get lost."""
    # A line is nothing to fill, but files hold some; in the first place pycocotools refuses it.
    if not polygons or (isinstance(polygons[0], list) and len(polygons[0]) < 6):
        raise BadInput(f"{where}: a segmentation begins with a polygon of at least three corners")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 4 or len(polygon) % 2:
            raise BadInput(f"{where}: a polygon is a list x, y, x, y, …")
        for axis, limit in ((0, size[1]), (1, size[0])):
            if not all(_between(v, -limit, 2 * limit) for v in polygon[axis::2]):
                raise BadInput(f"{where}: a corner of a polygon lies far outside the image")


def _between(value: object, low: float, high: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return low <= value <= high  # False for NaN, too


def _by_id(document: object, name: str, file: Path) -> dict[int, Json]:
    """The entries of a list by their ids, in the file's order, each id once."""
    found: dict[int, Json] = {}
    for place, entry in enumerate(files.field(document, name, list, str(file))):
        number = files.field(entry, "id", int, f"{file}: {name} at place {place}")
        if abs(number) > _MAX_ID:
            raise BadInput(f"{file}: {name} at place {place}: the id is beyond 64 bits")
        if number in found:
            raise BadInput(f"{file}: two {name} have the id {number}")
        found[number] = entry
    return found
