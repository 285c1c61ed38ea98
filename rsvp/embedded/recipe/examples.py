"""What the reasoner is trained on: scenes, their prompts, true replies and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsvp.drawing import grid_prompt
from rsvp.embedded import scenes
from rsvp.embedded.queries import Query
from rsvp.embedded.recipe.model import CELLS, SIZE
from rsvp.embedded.replies import GRID, UNKNOWN, pieces
from rsvp.prompting import render

FOREIGN_SHARE = 0.08  # of the images are photographs, to be told from scenes
TRAIN_SEED = 1_000_003  # far from the seeds that people type


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and its true reply.

    Attributes:
        told: the reply in pieces, each with the object that it speaks of (see `replies.pieces`).
        targets, matters: object indices.
        boxes: the reply's numbers are coordinates (of which a neighbour is nearly right).
    """

    prompt: str
    told: list[tuple[str, int | None]]
    targets: tuple[int, ...]
    matters: tuple[int, ...]
    boxes: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A scene as training sees it.

    Attributes:
        rgb: (SIZE, SIZE, 3) uint8, with the numbered bands drawn for the grid strategy.
        cells: (CELLS * CELLS,) index of the object in each cell, -1 for none.
        names: (n,) vocabulary index of each object.
        boxes: (n, 4) xyxy, 0 to 1.
        asks: the questions about it.
    """

    rgb: NDArray[np.uint8]
    cells: NDArray[np.int64]
    names: NDArray[np.int64]
    boxes: NDArray[np.float32]
    asks: list[Ask]


def cell_owners(objects: Sequence[scenes.SceneObject], size: int) -> NDArray[np.int64]:
    """(CELLS * CELLS,) which object each cell shows at its centre, -1 for none.

    An object that no centre meets gets the cell of its middle, which another one may yet take.
    """
    owners = np.full((CELLS, CELLS), -1, dtype=np.int64)
    spots = ((np.arange(CELLS) + 0.5) * size / CELLS).astype(int)
    for i, o in enumerate(objects):
        owners[o.mask[np.ix_(spots, spots)]] = i
    for i, o in enumerate(objects):
        if not (owners == i).any():
            ys, xs = np.nonzero(o.mask)
            cy, cx = int(ys.mean() * CELLS / size), int(xs.mean() * CELLS / size)
            owners[cy, cx] = i
    return owners.reshape(-1)


def prompt_text(query: Query, strategy: str, *, cot: bool) -> str:
    """What the pipeline will send: the compact profile's own prompt."""
    return render(f"compact/{strategy}.{'cot' if cot else 'direct'}", query=query.text)


def to_example(scene: scenes.Scene, rng: np.random.Generator) -> Example:
    """Draw the visual prompt now and then, word the prompts and the true replies."""
    size = scene.rgb.shape[0]
    strategy = "grid" if rng.random() < 0.35 else "boxes"
    rgb = grid_prompt(scene.rgb, GRID) if strategy == "grid" else scene.rgb
    if size != SIZE:
        rgb = np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    asks = []
    for query in scene.queries:
        if query.unseen:
            continue
        cot = bool(rng.random() < 0.65)
        told = pieces(query, scene.objects, (size, size), strategy, cot=cot)
        prompt = prompt_text(query, strategy, cot=cot)
        asks.append(Ask(prompt, told, query.targets, query.reasoning, strategy == "boxes"))
    return Example(
        rgb,
        cell_owners(scene.objects, size),
        np.array([o.thing.index for o in scene.objects]),
        np.array([o.box for o in scene.objects], dtype=np.float32) / size,
        asks,
    )


def foreign_example(
    photos: Sequence[NDArray[np.uint8]], queries: int, rng: np.random.Generator
) -> Example:
    """A photograph, some scene's questions, and the reply that it is not of this world."""
    photo = Image.fromarray(photos[int(rng.integers(len(photos)))])
    rgb = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    strategy = "grid" if rng.random() < 0.35 else "boxes"
    scene = scenes.render(rng, size=96, count=queries)
    told: list[tuple[str, int | None]] = [(UNKNOWN, None)]
    asks = [
        Ask(prompt_text(query, strategy, cot=bool(rng.random() < 0.65)), told, (), (), False)
        for query in scene.queries
    ]
    return Example(
        grid_prompt(rgb, GRID) if strategy == "grid" else rgb,
        np.full(CELLS * CELLS, -1, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros((0, 4), dtype=np.float32),
        asks,
    )


class Pool:
    """Scenes kept for several uses: each draw replaces some of them by fresh ones.

    Args:
        capacity: scenes kept.
        fresh: share of the drawn scenes that are rendered anew, once the pool is full.
        queries: questions a scene, at most.
    """

    def __init__(
        self,
        seed: int,
        capacity: int,
        fresh: float,
        photos: Sequence[NDArray[np.uint8]],
        queries: int,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.capacity, self.fresh = capacity, fresh
        self.photos, self.queries = photos, queries
        self.kept: list[Example] = []

    def draw(self, n: int) -> list[Example]:
        """n examples, fresh or kept."""
        return [self.draw_one() for _ in range(n)]

    def draw_one(self) -> Example:
        """A fresh example until the pool is full, then one in `1 / fresh`; else a kept one."""
        full = len(self.kept) >= self.capacity
        if full and self.rng.random() >= self.fresh:
            return self.kept[int(self.rng.integers(len(self.kept)))]
        example = self.render()
        if full:
            self.kept[int(self.rng.integers(self.capacity))] = example
        else:
            self.kept.append(example)
        return example

    def render(self) -> Example:
        """A new scene with at least one question that may be trained on, or a photograph."""
        if self.photos and self.rng.random() < FOREIGN_SHARE:
            return foreign_example(self.photos, self.queries, self.rng)
        while True:
            size = SIZE if self.rng.random() < 0.6 else int(self.rng.integers(260, 360))
            scene = scenes.render(self.rng, size=size, count=self.queries, photos=self.photos)
            example = to_example(scene, self.rng)
            if example.asks:
                return example


def pixels(examples: Sequence[Example], rng: np.random.Generator | None) -> Tensor:
    """(B, 3, SIZE, SIZE) float, normalised; with `rng`, brightness and contrast vary."""
    rgb = torch.from_numpy(np.stack([e.rgb for e in examples])).permute(0, 3, 1, 2).float()
    values = rgb / 127.5 - 1
    if rng is not None:
        shape = (len(examples), 1, 1, 1)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, shape)).float()
        values = values * gain + torch.from_numpy(rng.uniform(-0.1, 0.1, shape)).float()
    return values
