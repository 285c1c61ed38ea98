"""Rendered scenes to train on, made when they are asked for: the data spec ``scenes:SEED``."""

from __future__ import annotations

import numpy as np

from rsvp.embedded import scenes
from rsvp.embedded.vocabulary import categories
from rsvp.errors import BadInput
from rsvp.training.data import AnnotatedImage, Annotation

PASS = 20_000  # scenes of a seed before they come again
SMALLEST, LARGEST = 224, 400  # side of a scene, pixels
QUESTIONS = 4  # of a scene at most
SPREAD = 1_000_003  # between two seeds' scenes, so that close seeds share none


class SceneImages:
    """The scenes of a seed, every object by its name, its group and its keywords.

    Args:
        argument: the seed, or ``SEED,N`` for N scenes.

    Raises:
        BadInput: not whole numbers, or no scene at all.
    """

    def __init__(self, argument: str) -> None:
        seed, _, count = argument.partition(",")
        if not seed.isdecimal() or not (count or str(PASS)).isdecimal():
            raise BadInput(f"scenes are named by a seed, or SEED,N, found {argument!r}")
        self.seed, self._count = int(seed), int(count or PASS)
        if self._count < 1:
            raise BadInput(f"scenes:{argument} holds no scene")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> AnnotatedImage:
        if not 0 <= index < self._count:
            raise IndexError(index)
        rng = np.random.default_rng([SPREAD, self.seed, index])
        size = int(rng.integers(SMALLEST, LARGEST))
        scene = scenes.render(rng, size=size, count=QUESTIONS)
        shown = tuple(
            Annotation(_texts(number, scene, rng), o.mask, o.box)
            for number, o in enumerate(scene.objects)
        )
        return AnnotatedImage(f"scenes:{self.seed}/{index}", scene.rgb, shown)

    def random_text(self, rng: np.random.Generator) -> str:
        """The name of a category."""
        vocabulary = categories()
        return vocabulary[int(rng.integers(len(vocabulary)))].name


def _texts(number: int, scene: scenes.Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """An object's name, its group, a keyword, and the scene's questions that it answers."""
    thing = scene.objects[number].category
    keyword = [thing.keywords[int(rng.integers(len(thing.keywords)))]] if thing.keywords else []
    asked = [q.text for q in scene.queries if number in q.targets and not q.unseen]
    return (thing.name, thing.group, *keyword, *asked)
