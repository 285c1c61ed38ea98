"""The records of a batch as entries of a data set: all queries on an image together."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import ValidationError

from rsvp.batch.items import BatchItem
from rsvp.errors import BadInput
from rsvp.evaluation.records import Span, read_spans
from rsvp.images import load_image
from rsvp.masks import decode_rle
from rsvp.platform.files import first_fault
from rsvp.types import Box, Image, ModelNames, PackedMask, Reasoning, Segmentation, Target
from rsvp.writers.dataset import DatasetEntry
from rsvp.writers.document import ImageEntry, TargetEntry


class Gathered:
    """The images of a batch that have a result, with all of their targets; see `Entries`.

    Memory holds where the records are, not the records.

    Args:
        file: the records.
        items: of the batch, in their order.
    """

    def __init__(self, file: Path, items: Sequence[BatchItem]) -> None:
        self._file = file
        images = list(dict.fromkeys(item.image for item in items))
        places = {item.id: item.image for item in items}
        self._names = names_of(images)
        self._numbers = {image: number for number, image in enumerate(images, start=1)}
        self._spans: dict[str, list[Span]] = defaultdict(list)
        for record, span in read_spans(file):
            if "error" not in record and record["id"] in places:
                self._spans[places[record["id"]]].append(span)

    def __call__(self, with_pixels: bool) -> Iterator[DatasetEntry]:
        with self._file.open("rb") as stream:
            for image, number in self._numbers.items():
                if not (spans := self._spans.get(image)):
                    continue
                records = []
                for start, length in spans:
                    stream.seek(start)
                    records.append(json.loads(stream.read(length)))
                result = _segmentation(records, image, with_pixels)
                yield DatasetEntry(number, *self._names[image], result)


def names_of(images: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The path of each image relative to the folder of all of them, and the stem of its files.

    That is the path without its suffix; with it where two would be the same.
    """
    paths = {image: os.path.abspath(image) for image in images}
    root = os.path.commonpath([os.path.dirname(path) for path in paths.values()])
    names = {image: PurePath(os.path.relpath(path, root)) for image, path in paths.items()}
    counts = Counter(str(name.with_suffix("")).casefold() for name in names.values())
    found, used = {}, set[str]()
    for number, (image, name) in enumerate(names.items(), start=1):
        stem = name.with_suffix("").as_posix()
        stem = stem if counts[str(name.with_suffix("")).casefold()] == 1 else name.as_posix()
        stem = f"{stem}-{number}" if stem.casefold() in used else stem
        used.add(stem.casefold())
        found[image] = name.as_posix(), stem
    return found


def _targets(record: Mapping[str, Any]) -> list[Any]:
    """Those of a result, of an answer's looks, or the objects of a path, each once."""
    if "path" in record:
        named = (one for step in record["path"] for one in step["objects"])
        objects = {one["number"]: one for one in (*named, *record["answer_objects"]) if one["mask"]}
        return [
            {**{k: v for k, v in one.items() if k != "number"}, "raw": []}
            for one in objects.values()
        ]
    parts = [record] if "targets" in record else record.get("looks", [])
    return [target for part in parts for target in part["targets"]]


def _segmentation(
    records: Sequence[Mapping[str, Any]], path: str, with_pixels: bool
) -> Segmentation:
    """The targets of all queries on an image."""
    where = f"the record of {records[0]['id']!r}"
    try:
        entry = ImageEntry.model_validate(records[0]["image"])
        targets = [
            TargetEntry.model_validate(target) for one in records for target in _targets(one)
        ]
    except ValidationError as error:
        raise BadInput(f"{where} is broken: {first_fault(error)}") from None
    size = entry.height, entry.width
    if with_pixels:
        image = load_image(path)
        if image.sha256 != entry.sha256:
            raise BadInput(f"{path} has changed since it was segmented; segment it again")
    else:
        zeros = np.broadcast_to(np.uint8(0), (*size, 3))
        image = Image(zeros, entry.sha256, path)
    return Segmentation(
        image=image,
        query="; ".join(one["asked"]["query"] for one in records),
        reasoning=Reasoning((), (), ""),
        targets=tuple(
            Target(
                one.label,
                Box(*one.box),
                one.score,
                PackedMask.pack(decode_rle(one.mask.model_dump(), size, where)),
                one.presence,
                tuple(one.raw),
            )
            for one in targets
        ),
        models=ModelNames(None, None, "", None),
    )
