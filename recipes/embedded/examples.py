"""What the reasoner is trained on: scenes, their prompts, true replies and cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recipes.embedded.candidates import Marked, askable, mark_anything, marked
from recipes.embedded.model import CELLS, SIZE
from rsvp.drawing import grid_prompt
from rsvp.embedded import scenes
from rsvp.embedded.queries import Query
from rsvp.embedded.replies import GRID, UNKNOWN, pieces
from rsvp.prompting import render

FOREIGN_SHARE = 0.08  # of the images are photographs, to be told from scenes
SHARES: Mapping[str, float] = {"boxes": 0.4, "grid": 0.25, "marks": 0.35}  # of the images
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
        rgb: (SIZE, SIZE, 3) uint8, with the visual prompt of its strategy.
        cells: (CELLS * CELLS,) index of the object in each cell, -1 for none.
        names: (n,) vocabulary index of each object.
        boxes: (n, 4) xyxy, 0 to 1.
        asks: the questions about it.
        numbers: (n,) number of each object's mark, 0 for none; None where no marks are drawn.
        tags: (CELLS * CELLS,) the number whose tag lies in each cell, 0 for none.
        tag_boxes: (CELLS * CELLS, 4) the box of that tag's candidate, xyxy, 0 to 1.
    """

    rgb: NDArray[np.uint8]
    cells: NDArray[np.int64]
    names: NDArray[np.int64]
    boxes: NDArray[np.float32]
    asks: list[Ask]
    numbers: NDArray[np.int64] | None = None
    tags: NDArray[np.int64] = field(default_factory=lambda: np.zeros(CELLS * CELLS, np.int64))
    tag_boxes: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((CELLS * CELLS, 4), np.float32)
    )

    @property
    def tag_owners(self) -> NDArray[np.int64]:
        """(CELLS * CELLS,) the object whose tag lies in each cell, -1 for none."""
        owners = np.full(CELLS * CELLS, -1, dtype=np.int64)
        for i, number in enumerate(() if self.numbers is None else self.numbers):
            if number:
                owners[self.tags == number] = i
        return owners


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


def pick_strategy(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    """A strategy, each as often as its share says."""
    weights = np.array(list(shares.values()), dtype=float)
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def to_example(
    scene: scenes.Scene, rng: np.random.Generator, shares: Mapping[str, float] = SHARES
) -> Example:
    """Draw the visual prompt of a strategy, word the prompts and the true replies."""
    size = scene.rgb.shape[0]
    strategy = pick_strategy(shares, rng)
    shown = marked(scene, rng) if strategy == "marks" else None
    rgb = shown.rgb if shown else scene.rgb
    if strategy == "grid":
        rgb = grid_prompt(rgb, GRID)
    if size != SIZE:
        rgb = np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    queries = [query for query in scene.queries if not query.unseen]
    if shown:
        queries = [q for query in queries if (q := askable(query, shown.numbers)) is not None]
    return Example(
        rgb,
        cell_owners(scene.objects, size),
        np.array([o.thing.index for o in scene.objects]),
        np.array([o.box for o in scene.objects], dtype=np.float32) / size,
        [_ask(query, scene, strategy, shown, cot=bool(rng.random() < 0.65)) for query in queries],
        **_seen_marks(shown, len(scene.objects)),
    )


def _ask(
    query: Query, scene: scenes.Scene, strategy: str, shown: Marked | None, *, cot: bool
) -> Ask:
    """A question as the pipeline puts it, and the true reply."""
    size = (scene.rgb.shape[0], scene.rgb.shape[1])
    marks = shown.numbers if shown else None
    told = pieces(query, scene.objects, size, strategy, cot=cot, marks=marks)
    prompt = prompt_text(query, strategy, cot=cot)
    return Ask(prompt, told, query.targets, query.reasoning, strategy == "boxes")


def _seen_marks(shown: Marked | None, objects: int) -> dict[str, Any]:
    """The fields of an example that tell of its marks."""
    if shown is None:
        return {}
    numbers = np.array([shown.numbers.get(i, 0) for i in range(objects)], dtype=np.int64)
    return {"numbers": numbers, "tags": shown.tags, "tag_boxes": shown.boxes}


def foreign_example(
    photos: Sequence[NDArray[np.uint8]],
    queries: int,
    rng: np.random.Generator,
    shares: Mapping[str, float] = SHARES,
) -> Example:
    """A photograph, some scene's questions, and the reply that it is not of this world."""
    photo = Image.fromarray(photos[int(rng.integers(len(photos)))])
    rgb = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    strategy = pick_strategy(shares, rng)
    scene = scenes.render(rng, size=96, count=queries)
    if strategy == "grid":
        rgb = grid_prompt(rgb, GRID)
    elif strategy == "marks":
        rgb = mark_anything(rgb, rng)
    told: list[tuple[str, int | None]] = [(UNKNOWN, None)]
    asks = [
        Ask(prompt_text(query, strategy, cot=bool(rng.random() < 0.65)), told, (), (), False)
        for query in scene.queries
    ]
    return Example(
        rgb,
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
        shares: strategy -> its share of the images.
    """

    def __init__(
        self,
        seed: int,
        capacity: int,
        fresh: float,
        photos: Sequence[NDArray[np.uint8]],
        queries: int,
        *,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.capacity, self.fresh = capacity, fresh
        self.photos, self.queries, self.shares = photos, queries, shares
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
            return foreign_example(self.photos, self.queries, self.rng, self.shares)
        while True:
            size = SIZE if self.rng.random() < 0.6 else int(self.rng.integers(260, 360))
            scene = scenes.render(self.rng, size=size, count=self.queries, photos=self.photos)
            example = to_example(scene, self.rng, self.shares)
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
