"""Rendered scenes: a folder made by ``python -m rsvp.embedded.scenes``.

Every query of every scene is a sample, in the file's order; ``scenes.json`` holds the truth. A
sample's tags are ``seen`` or ``unseen``: whether training may have met this combination of words.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import field_validator

from rsvp.datasets import BaseDataset, GroundTruthObject, Sample, check_size, inside
from rsvp.datasets.annotations import AnnotationModel
from rsvp.errors import BadInput
from rsvp.masks import decode_rle, rle_runs
from rsvp.platform.files import parse_json, read_bytes, validate
from rsvp.types import Box

VERSION = 1  # of ``scenes.json``


class _SceneObjectEntry(AnnotationModel):
    # An object of a scene: its name, its xyxy box and the RLE of its visible pixels
    name: str
    box: list[int | float]
    mask: dict[str, Any]

    @field_validator("box")
    @classmethod
    def _is_xyxy(cls, box: list[int | float]) -> list[int | float]:
        try:
            Box(*box)
        except (TypeError, OverflowError, BadInput):
            raise ValueError(f"is not an xyxy box: {str(box)[:80]}") from None
        return box


class _SceneQueryEntry(AnnotationModel):
    # A query of a scene; `targets` are places in the list of its objects
    id: str
    kind: str
    text: str
    targets: list[int]
    unseen: bool


class _SceneEntry(AnnotationModel):
    # A scene: its image file, relative to the folder, its objects and its queries
    image: str
    height: int
    width: int
    objects: list[_SceneObjectEntry]
    queries: list[_SceneQueryEntry]


class _SceneFile(AnnotationModel):
    # ``scenes.json``; its scenes are checked one by one
    version: int
    scenes: list[Any]


class SceneDataset(BaseDataset):
    """The samples of a folder of rendered scenes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / "scenes.json"
        if not file.is_file():
            hint = "make a folder of them with python -m rsvp.embedded.scenes"
            raise BadInput(f"no scenes.json in {self.folder}; {hint}")
        data = read_bytes(file)
        document = validate(_SceneFile.model_validate, parse_json(data, str(file)), str(file))
        if document.version != VERSION:
            raise BadInput(
                f"{file}: version {document.version}, this rsvp reads version {VERSION}; "
                "render the scenes again"
            )
        scenes = [_checked(scene, number, file) for number, scene in enumerate(document.scenes)]
        self._samples = [(scene, query) for scene in scenes for query in scene.queries]
        ids = [query.id for _, query in self._samples]
        super().__init__(file, hashlib.sha256(data).hexdigest(), ids)

    def image_file(self, index: int) -> Path:
        return self.folder / self._samples[index][0].image

    def __getitem__(self, index: int) -> Sample:
        scene, query = self._samples[index]
        size, where = (scene.height, scene.width), f"{self.file}: {query.id}"
        objects = tuple(
            GroundTruthObject(one.name, Box(*one.box), decode_rle(one.mask, size, where))
            for one in (scene.objects[place] for place in query.targets)
        )
        image, tag = self.image_file(index), "unseen" if query.unseen else "seen"
        mask = np.logical_or.reduce([np.zeros(size, np.bool_), *(one.mask for one in objects)])
        return Sample(query.id, image, query.text, query.kind, mask, objects, tags=(tag,))


def _checked(entry: object, number: int, file: Path) -> _SceneEntry:
    scene = validate(_SceneEntry.model_validate, entry, f"{file}: scene {number}")
    inside(file.parent, scene.image, f"{file}: scene {number}")
    where = f"{file}: scene {scene.image}"
    check_size((scene.height, scene.width), where)
    for place, one in enumerate(scene.objects):
        rle_runs(one.mask, (scene.height, scene.width), f"{where}, object {place}")
    for query in scene.queries:
        places = set(query.targets)
        if len(places) < len(query.targets) or not places <= set(range(len(scene.objects))):
            raise BadInput(
                f"{file}: {query.id}: targets {query.targets} of {len(scene.objects)} objects"
            )
    return scene
