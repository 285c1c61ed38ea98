"""Rendered scenes: a folder made by ``python -m rsvp.embedded.scenes``.

Every query of every scene is a sample, in the file's order; ``scenes.json`` holds the truth. A
sample's tags are ``seen`` or ``unseen``: whether training may have met this combination of words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsvp.datasets import Sample, TrueObject
from rsvp.errors import BadInput
from rsvp.masks import decode_rle, rle_runs
from rsvp.types import Box

FILE = "scenes.json"
VERSION = 1

Json = Mapping[str, Any]


class SceneDataset:
    """The samples of a folder of rendered scenes.

    Everything but the pictures is checked when the folder is opened.

    Attributes:
        folder: where the images and ``scenes.json`` lie.
        digest: SHA-256 of ``scenes.json``.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder.

        Raises:
            BadInput: ``scenes.json`` is missing or broken, an image is missing, an id appears
                twice, a mask has the wrong size. One line with the file and the id.
        """
        self.folder = Path(folder)
        self.file = self.folder / FILE
        data = _read(self.file)
        self.digest = hashlib.sha256(data).hexdigest()
        self._samples = list(self._checked(_parse(data, self.file)))
        if not self._samples:
            raise BadInput(f"{self.file}: no scene has a query")

    def __len__(self) -> int:
        return len(self._samples)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        return str(self._samples[index][1]["id"])

    def __getitem__(self, index: int) -> Sample:
        scene, query = self._samples[index]
        size = (scene["height"], scene["width"])
        objects = tuple(self._object(scene["objects"][i], size, query) for i in query["targets"])
        union = np.zeros(size, dtype=np.bool_)
        for one in objects:
            union |= one.mask
        return Sample(
            id=query["id"],
            image=self.folder / scene["image"],
            query=query["text"],
            kind=query["kind"],
            mask=union,
            objects=objects,
            tags=("unseen" if query["unseen"] else "seen",),
        )

    def _object(self, entry: Json, size: tuple[int, int], query: Json) -> TrueObject:
        mask = decode_rle(entry["mask"], size, f"{self.file}: {query['id']}")
        return TrueObject(entry["name"], Box(*entry["box"]), mask)

    def _checked(self, scenes: list[Any]) -> Iterator[tuple[Json, Json]]:
        """Every (scene, query), refused at the first fault."""
        seen: set[str] = set()
        for number, scene in enumerate(scenes):
            where = f"{self.file}: scene {number}"
            _fields(scene, _SCENE, where)
            where = f"{self.file}: scene {scene['image']}"
            self._check_image(scene, where)
            for i, entry in enumerate(scene["objects"]):
                _check_object(entry, scene, f"{where}, object {i}")
            for query in scene["queries"]:
                _fields(query, _QUERY, f"{where}, a query")
                if query["id"] in seen:
                    raise BadInput(f"{self.file}: two queries have the id {query['id']!r}")
                seen.add(query["id"])
                _check_targets(query, len(scene["objects"]), f"{self.file}: {query['id']}")
                yield scene, query

    def _check_image(self, scene: Json, where: str) -> None:
        if scene["height"] < 1 or scene["width"] < 1:
            raise BadInput(f"{where}: the size {scene['width']}x{scene['height']} is not positive")
        path = self.folder / scene["image"]
        if not path.is_file():
            raise BadInput(f"{where}: no such image file: {path}")


_SCENE: dict[str, type] = {
    "image": str, "height": int, "width": int, "objects": list, "queries": list,
}  # fmt: skip
_OBJECT: dict[str, type] = {"name": str, "box": list, "mask": dict}
_QUERY: dict[str, type] = {"id": str, "kind": str, "text": str, "targets": list, "unseen": bool}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        hint = "make a folder of them with python -m rsvp.embedded.scenes"
        raise BadInput(f"no {FILE} in {file.parent}; {hint}") from None
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error


def _parse(data: bytes, file: Path) -> list[Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BadInput(f"{file}: broken JSON: {error}") from error
    document = _fields(document, {"version": int, "scenes": list}, str(file))
    if document["version"] != VERSION:
        raise BadInput(
            f"{file}: version {document['version']}, this rsvp reads version {VERSION}; "
            "render the scenes again"
        )
    found: list[Any] = document["scenes"]
    return found


def _fields(entry: object, wanted: Mapping[str, type], where: str) -> dict[str, Any]:
    """The entry, refused when it lacks a field or holds one of another type."""
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: expected an object, found {type(entry).__name__}")
    for name, kind in wanted.items():
        value = entry.get(name)
        # bool is an int to Python, never to us
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found = type(value).__name__ if name in entry else "nothing"
            raise BadInput(f"{where}: {name!r} is {kind.__name__}, found {found}")
    return entry


def _check_object(entry: object, scene: Json, where: str) -> None:
    fields = _fields(entry, _OBJECT, where)
    try:
        Box(*fields["box"])
    except (TypeError, BadInput):
        raise BadInput(f"{where}: not an xyxy box: {fields['box']}") from None
    rle_runs(fields["mask"], (scene["height"], scene["width"]), where)


def _check_targets(query: Json, objects: int, where: str) -> None:
    valid = all(type(i) is int and 0 <= i < objects for i in query["targets"])
    if not valid or len(set(query["targets"])) != len(query["targets"]):
        raise BadInput(f"{where}: targets {query['targets']} of {objects} objects")
