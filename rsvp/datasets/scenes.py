"""Rendered scenes: a folder made by ``python -m rsvp.embedded.scenes``.

Every query of every scene is a sample, in the file's order; ``scenes.json`` holds the truth. A
sample's tags are ``seen`` or ``unseen``: whether training may have met this combination of words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field, field_validator

from rsvp.datasets import BaseDataset, GroundTruthObject, Sample, check_size, inside
from rsvp.datasets.annotations import AnnotationModel
from rsvp.datasets.instances import encode
from rsvp.datasets.vqa import Entry, Question, QuestionDataset
from rsvp.datasets.vrt import VrtObject, VrtTruth
from rsvp.errors import BadInput
from rsvp.masks import decode_rle, rle_runs
from rsvp.parsing.answers import LETTERS
from rsvp.platform.files import parse_json, read_bytes, validate
from rsvp.types import BoolMask, Box

S = TypeVar("S", bound="_SceneEntry")

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


class _SceneQuestionEntry(AnnotationModel):
    # A question about a scene; `answer` is the index of the right choice
    id: str
    kind: str
    text: str
    choices: Annotated[list[str], Field(min_length=2, max_length=len(LETTERS))]
    answer: Annotated[int, Field(ge=0)]
    targets: list[int]
    needs_look: bool


class _QaSceneEntry(_SceneEntry):
    queries: list[_SceneQueryEntry] = Field(default=[])
    questions: list[_SceneQuestionEntry]


class _PathStepEntry(AnnotationModel):
    # A step of a path
    objects: list[int]


class _PathQuestionEntry(AnnotationModel):
    # A question of ``--task trace``; objects are places in the list of the scene's
    id: str
    kind: str
    hops: int
    text: str
    path: list[_PathStepEntry]
    answer_objects: list[int]

    @property
    def path_objects(self) -> list[int]:
        """The objects of all steps, each once."""
        return list(dict.fromkeys(place for step in self.path for place in step.objects))

    @property
    def targets(self) -> list[int]:
        """All objects that it names, as they are checked."""
        return list(dict.fromkeys((*self.path_objects, *self.answer_objects)))

    @property
    def hops_kind(self) -> str:
        return f"{self.hops} hop{'s' if self.hops != 1 else ''}"


class _TraceSceneEntry(_SceneEntry):
    queries: list[_SceneQueryEntry] = Field(default=[])
    questions: list[_PathQuestionEntry]


class _SceneFile(AnnotationModel):
    # ``scenes.json``; its scenes are checked one by one
    version: int
    task: str = "segment"
    scenes: list[Any]


class _Samples(BaseDataset):
    # What is asked about each scene, in pairs with the scene
    model: ClassVar[type[_SceneEntry]]
    asked: ClassVar[str]

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._samples, file, digest = _asked(self.folder, self.model, self.asked)
        super().__init__(file, digest, [one.id for _, one in self._samples])

    def image_file(self, index: int) -> Path:
        return self.folder / self._samples[index][0].image

    def _objects(self, index: int, places: Sequence[int]) -> tuple[GroundTruthObject, ...]:
        scene, asked = self._samples[index]
        return _objects(scene, places, f"{self.file}: {asked.id}")

    def _union(self, index: int, objects: Sequence[GroundTruthObject]) -> BoolMask:
        scene, _ = self._samples[index]
        nothing = np.zeros((scene.height, scene.width), np.bool_)
        union: BoolMask = np.logical_or.reduce([nothing, *(one.mask for one in objects)])
        return union


class SceneDataset(_Samples):
    model, asked = _SceneEntry, "queries"

    def __getitem__(self, index: int) -> Sample:
        _, query = self._samples[index]
        objects = self._objects(index, query.targets)
        keys = (query.id, self.image_file(index), query.text, query.kind)
        tag = "unseen" if query.unseen else "seen"
        return Sample(*keys, self._union(index, objects), objects, tags=(tag,))


class SceneQuestionDataset(QuestionDataset):
    """The questions of a folder of rendered scenes, made with ``--task qa``.

    A question's tag is ``needs_look`` or ``seen_at_once``.
    """

    has_true_looks = True

    def __init__(self, folder: str | Path) -> None:
        self._scenes, file, digest = _asked(Path(folder), _QaSceneEntry, "questions")
        entries = list[Entry]()
        for scene, q in self._scenes:
            if q.answer >= len(q.choices):
                raise BadInput(f"{file}: {q.id}: answer {q.answer} of {len(q.choices)} choices")
            tag = "needs_look" if q.needs_look else "seen_at_once"
            choices, right = tuple(q.choices), LETTERS[q.answer]
            question = Question(q.id, None, q.text, choices, right, q.kind, tags=(tag,))
            entries.append((question, Path(folder) / scene.image))
        super().__init__(entries, digest, file)

    def true_looks(self, index: int) -> tuple[GroundTruthObject, ...]:
        """What a look has to show for a question; nothing where it needs none."""
        scene, question = self._scenes[index]
        targets = question.targets if question.needs_look else []
        return _objects(scene, targets, f"{self.file}: {question.id}")


class TraceSceneDataset(_Samples):
    """The questions of scenes made with ``--task trace``; their kind is the number of hops.

    A sample's mask and objects are the answer's, its path has every object once; its tag is the
    kind of the question.
    """

    model, asked = _TraceSceneEntry, "questions"

    def truth(self, index: int) -> VrtTruth:
        """The objects of the path and of the answer; the classes are the hops and the kind."""
        scene, question = self._samples[index]
        size, where = (scene.height, scene.width), f"{self.file}: {question.id}"

        def named(places: Sequence[int]) -> tuple[VrtObject, ...]:
            found = (scene.objects[place] for place in places)
            return tuple(VrtObject(one.name, encode(one.mask, size, where)) for one in found)

        classes = (question.hops_kind, question.kind)
        path, answer = named(question.path_objects), named(question.answer_objects)
        return VrtTruth(question.id, question.text, classes, size, path, answer)

    def __getitem__(self, index: int) -> Sample:
        _, question = self._samples[index]
        path = self._objects(index, question.path_objects)
        objects = self._objects(index, question.answer_objects)
        keys = (question.id, self.image_file(index), question.text, question.hops_kind)
        mask, tags = self._union(index, objects), (question.kind,)
        return Sample(*keys, mask, objects, tags, path=path)


def scene_task(folder: str | Path) -> str:
    """What the scenes of a folder ask for: "segment", "qa" or "trace"; BadInput without scenes."""
    task: str = _read(Path(folder))[0].task
    return task


def _read(folder: Path) -> tuple[_SceneFile, Path, str]:
    """`scenes.json`, where it is, and its SHA-256."""
    file = folder / "scenes.json"
    if not file.is_file():
        hint = "make a folder of them with python -m rsvp.embedded.scenes"
        raise BadInput(f"no scenes.json in {folder}; {hint}")
    data = read_bytes(file)
    document = validate(_SceneFile.model_validate, parse_json(data, str(file)), str(file))
    if document.version != VERSION:
        raise BadInput(
            f"{file}: version {document.version}, this rsvp reads version {VERSION}; "
            "render the scenes again"
        )
    return document, file, hashlib.sha256(data).hexdigest()


def _asked(folder: Path, model: type[S], name: str) -> tuple[list[tuple[S, Any]], Path, str]:
    """What is asked about each scene, in pairs with it; `scenes.json`, and its SHA-256."""
    document, file, digest = _read(folder)
    scenes = [_checked(one, number, file, model) for number, one in enumerate(document.scenes)]
    return [(scene, one) for scene in scenes for one in getattr(scene, name)], file, digest


def _objects(
    scene: _SceneEntry, places: Sequence[int], where: str
) -> tuple[GroundTruthObject, ...]:
    found = (scene.objects[place] for place in places)
    size = (scene.height, scene.width)
    return tuple(
        GroundTruthObject(one.name, Box(*one.box), decode_rle(one.mask, size, where))
        for one in found
    )


def _checked(entry: object, number: int, file: Path, model: type[S]) -> S:
    scene = validate(model.model_validate, entry, f"{file}: scene {number}")
    inside(file.parent, scene.image, f"{file}: scene {number}")
    where = f"{file}: scene {scene.image}"
    check_size((scene.height, scene.width), where)
    for place, one in enumerate(scene.objects):
        rle_runs(one.mask, (scene.height, scene.width), f"{where}, object {place}")
    for query in (*scene.queries, *getattr(scene, "questions", ())):
        places = set(query.targets)
        if len(places) < len(query.targets) or not places <= set(range(len(scene.objects))):
            raise BadInput(
                f"{file}: {query.id}: targets {query.targets} of {len(scene.objects)} objects"
            )
    return scene
