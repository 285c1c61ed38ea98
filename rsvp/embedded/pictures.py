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
    """The scenes of a seed; an object's texts are its name, its group, a keyword, its queries.

    The argument is the seed, or ``SEED,N`` for N scenes. BadInput where it is anything else.
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
        found = []
        for number, o in enumerate(scene.objects):
            words = o.category.keywords
            keyword = [words[int(rng.integers(len(words)))]] if words else []
            asked = [q.text for q in scene.queries if number in q.targets and not q.unseen]
            texts = (o.category.name, o.category.group, *keyword, *asked)
            found.append(Annotation(texts, o.mask, o.box))
        return AnnotatedImage(f"scenes:{self.seed}/{index}", scene.rgb, tuple(found))

    def random_text(self, rng: np.random.Generator) -> str:
        vocabulary = categories()
        return vocabulary[int(rng.integers(len(vocabulary)))].name
