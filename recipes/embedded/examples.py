"""Training examples of the reasoner: scenes with prompts, true replies and dense targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recipes.embedded.marks import MarkedScene, mark_anything, mark_scene, restrict_to_marked
from recipes.embedded.model import CELLS, SIZE
from recipes.embedded.replies import GRID, NOT_UNDERSTOOD, Piece, reply_pieces
from rsvp.drawing import grid_prompt
from rsvp.embedded.queries import ALL_KINDS, Query
from rsvp.embedded.rendering import SceneObject
from rsvp.embedded.scenes import Scene, render
from rsvp.embedded.traces import Describe, plain_name
from rsvp.embedded.vocabulary import STYLES
from rsvp.embedded.wording import Wording
from rsvp.lexicon import Lexicon
from rsvp.prompting import render as render_prompt
from rsvp.types import RgbArray

PHOTO_SHARE = 0.08  # of the images are photographs, which the reasoner has to refuse
COT_SHARE = 0.65  # of the prompts ask for the chain of thought
STRATEGY_SHARES: Mapping[str, float] = {"boxes": 0.4, "grid": 0.2, "points": 0.1, "marks": 0.3}
NATURAL_SHARE = 0.75  # of the scenes are asked about in natural wording
NATURAL_WORDING = Wording(natural=True)
NATURAL_KINDS = (
    *ALL_KINDS, "absent", "absent", "absent", "described", "described", "hidden", "hidden",
    "ordinal", "ordinal", "relation", "relation", "everything",
)  # fmt: skip
TRAIN_SEED = 1_000_003  # far from the seeds that people type

Rng = np.random.Generator
ReadText = Callable[[str], str]
TaskMaker = Callable[[str, Rng, Sequence[RgbArray], Lexicon | None], "Example"]


def cells(value: int) -> NDArray[np.int64]:
    """(CELLS * CELLS,) the value in every cell."""
    return np.full(CELLS * CELLS, value, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt and its true reply.

    Attributes:
        targets, reasoning: object indices, see `Query`.
        coordinates: the numbers in the reply are coordinates, where a neighbour is nearly right.
    """

    prompt: str
    reply: list[Piece]
    targets: tuple[int, ...]
    reasoning: tuple[int, ...]
    coordinates: bool


@dataclass(frozen=True, slots=True)
class Example:
    """An image with its turns, and what each cell of the image shows.

    Attributes:
        rgb: (SIZE, SIZE, 3) uint8, with the visual prompt of its strategy.
        cell_objects: (CELLS * CELLS,) index of the object in each cell, -1 for none.
        categories: (n,) vocabulary index of each object.
        boxes: (n, 4) xyxy, 0 to 1.
        mark_numbers: (n,) number of each object's mark, 0 for none; None where none are drawn.
        tag_numbers, tag_boxes: of each cell, see `MarkedScene`.
        details: (CELLS * CELLS,) class of the detail centred in each cell, see
            `looking.DETAIL_CLASSES`, 0 for none.
        detail_objects: (CELLS * CELLS,) the object that carries it, -1 for none.
    """

    rgb: RgbArray
    cell_objects: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float32]
    turns: list[Turn]
    mark_numbers: NDArray[np.int64] | None = None
    tag_numbers: NDArray[np.int64] = field(default_factory=lambda: cells(0))
    tag_boxes: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((CELLS * CELLS, 4), np.float32)
    )
    details: NDArray[np.int64] = field(default_factory=lambda: cells(0))
    detail_objects: NDArray[np.int64] = field(default_factory=lambda: cells(-1))

    @property
    def read_objects(self) -> NDArray[np.int64]:
        """(CELLS * CELLS,) the object whose tag or detail lies in each cell, -1 for none."""
        owners = self.detail_objects.copy()
        for i, number in enumerate(() if self.mark_numbers is None else self.mark_numbers):
            if number:
                owners[self.tag_numbers == number] = i
        return owners


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How the pictures and questions of the tasks are made.

    Attributes:
        photos: (H, W, 3) uint8 arrays, used as backgrounds now and then.
        describe: how things are called in the questions.
        read: what is done to a question before it is asked.
        wording: of the queries of "verify", as options of `render`.
        styles: of the drawings.
    """

    photos: Sequence[RgbArray] = ()
    describe: Describe = plain_name
    read: ReadText = str
    wording: Mapping[str, Any] = field(default_factory=dict)
    styles: Sequence[str] = tuple(STYLES)

    def rendering(self) -> dict[str, Any]:
        """What the scenes of questions are rendered with."""
        return {"photos": self.photos, "describe": self.describe, "styles": self.styles}


PLAIN = TaskOptions()


def scene_example(
    scene: Scene,
    rng: Rng,
    shares: Mapping[str, float] = STRATEGY_SHARES,
    lexicon: Lexicon | None = None,
) -> Example:
    """Draw the visual prompt of a random strategy; add prompts and true replies.

    Held-out queries are left out.

    Args:
        lexicon: what the queries are read with, as the pipeline does.
    """
    size = len(scene.rgb)
    strategy = sample_strategy(shares, rng)
    marked = mark_scene(scene, rng) if strategy == "marks" else None
    rgb = marked.rgb if marked else scene.rgb
    if strategy == "grid":
        rgb = grid_prompt(rgb, GRID)
    queries = [read_query(query, lexicon) for query in scene.queries if not query.unseen]
    if marked:
        queries = [q for query in queries if (q := restrict_to_marked(query, marked.numbers))]
    return Example(
        rgb if size == SIZE else resize(rgb),
        cell_objects(scene.objects, size),
        np.array([o.category.index for o in scene.objects]),
        np.array([o.box.xyxy for o in scene.objects], np.float32) / np.float32(size),
        [
            _turn(query, scene, strategy, marked, cot=bool(rng.random() < COT_SHARE))
            for query in queries
        ],
        **_mark_fields(marked, len(scene.objects)),
    )


def read_query(query: Query, lexicon: Lexicon | None) -> Query:
    """The query as the reasoner is asked it; words that it does not learn are left out."""
    if lexicon is None:
        return query
    return replace(query, text=lexicon.read(query.text).text or query.text)


def assemble(
    rgb: RgbArray,
    objects: Sequence[SceneObject],
    turns: list[Turn],
    marked: MarkedScene | None = None,
    **details: Any,
) -> Example:
    """An example of a (SIZE, SIZE, 3) picture and what it shows; `objects` are in its pixels.

    Args:
        details: `details` and `detail_objects` of an `Example`, where things carry some.
    """
    return Example(
        rgb,
        cell_objects(objects, SIZE),
        np.array([o.category.index for o in objects], np.int64),
        np.array([o.box.xyxy for o in objects], np.float32).reshape(-1, 4) / np.float32(SIZE),
        turns,
        **_mark_fields(marked, len(objects)),
        **details,
    )


def photo_example(
    photos: Sequence[RgbArray],
    queries: int,
    rng: Rng,
    shares: Mapping[str, float] = STRATEGY_SHARES,
    lexicon: Lexicon | None = None,
) -> Example:
    """A photograph with the queries of some scene, and the reply that it is not understood."""
    rgb = resize(photos[int(rng.integers(len(photos)))])
    strategy = sample_strategy(shares, rng)
    scene = render(rng, size=96, count=queries, **sample_wording(rng, lexicon))
    if strategy == "grid":
        rgb = grid_prompt(rgb, GRID)
    elif strategy == "marks":
        rgb = mark_anything(rgb, rng)
    prompts = [
        prompt_text(read_query(query, lexicon), strategy, cot=bool(rng.random() < COT_SHARE))
        for query in scene.queries
    ]
    return Example(
        rgb,
        cells(-1),
        np.zeros(0, dtype=np.int64),
        np.zeros((0, 4), dtype=np.float32),
        [Turn(prompt, [(NOT_UNDERSTOOD, None)], (), (), False) for prompt in prompts],
    )


def sample_wording(rng: Rng, lexicon: Lexicon | None) -> dict[str, Any]:
    """How a scene is asked about, as options of `render`; naturally only with a lexicon."""
    if lexicon is None or rng.random() >= NATURAL_SHARE:
        return {}
    return {"kinds": NATURAL_KINDS, "wording": NATURAL_WORDING}


def sample_strategy(shares: Mapping[str, float], rng: Rng) -> str:
    """A strategy, each as often as its share says."""
    weights = np.array(list(shares.values()), dtype=float)
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def prompt_text(query: Query, strategy: str, *, cot: bool) -> str:
    """The prompt that the pipeline sends to the embedded reasoner."""
    return render_prompt(f"compact/{strategy}.{'cot' if cot else 'direct'}", query=query.text)


def cell_objects(objects: Sequence[SceneObject], size: int) -> NDArray[np.int64]:
    """(CELLS * CELLS,) the object at the centre of each cell, -1 for none.

    An object at no centre gets the cell of its centroid, which a later object may take over.
    """
    owners = np.full((CELLS, CELLS), -1, dtype=np.int64)
    centers = ((np.arange(CELLS) + 0.5) * size / CELLS).astype(int)
    for i, o in enumerate(objects):
        owners[o.mask[np.ix_(centers, centers)]] = i
    for i, o in enumerate(objects):
        if not (owners == i).any():
            ys, xs = np.nonzero(o.mask)
            owners[int(ys.mean() * CELLS / size), int(xs.mean() * CELLS / size)] = i
    return owners.reshape(-1)


def resize(rgb: RgbArray) -> RgbArray:
    """The picture as a square of SIZE."""
    return np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _turn(
    query: Query, scene: Scene, strategy: str, marked: MarkedScene | None, *, cot: bool
) -> Turn:
    size = (scene.rgb.shape[0], scene.rgb.shape[1])
    marks = marked.numbers if marked else None
    reply = reply_pieces(query, scene.objects, size, strategy, cot=cot, marks=marks)
    prompt = prompt_text(query, strategy, cot=cot)
    return Turn(prompt, reply, query.targets, query.reasoning, strategy in ("boxes", "points"))


def _mark_fields(marked: MarkedScene | None, objects: int) -> dict[str, Any]:
    """The fields of an example that describe its marks."""
    if marked is None:
        return {}
    numbers = np.array([marked.numbers.get(i, 0) for i in range(objects)], dtype=np.int64)
    return {
        "mark_numbers": numbers,
        "tag_numbers": marked.tag_numbers,
        "tag_boxes": marked.tag_boxes,
    }


@dataclass
class ExampleBuffer:
    """Examples that are used several times; each draw replaces some of them by new ones.

    Args:
        capacity: examples kept.
        fresh: share of the draws that render a new example, once the buffer is full.
        photos: (H, W, 3) uint8 arrays: backgrounds, and images to refuse.
        queries: of a scene, at most.
        shares: strategy -> its share of the images.
        styles: of the drawings; each object gets one at random.
        grounds: (H, W, 3) uint8 arrays: backgrounds alone.
        task_shares: task -> its share of the examples, which `task_example` makes.
    """

    seed: int
    capacity: int
    fresh: float
    photos: Sequence[RgbArray]
    queries: int
    shares: Mapping[str, float] = field(default_factory=lambda: STRATEGY_SHARES)
    styles: Sequence[str] = tuple(STYLES)
    grounds: Sequence[RgbArray] = ()
    lexicon: Lexicon | None = None
    task_shares: Mapping[str, float] = field(default_factory=dict)
    task_example: TaskMaker | None = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.backgrounds = (*self.photos, *self.grounds)
        self.examples: list[Example] = []

    def draw(self, n: int) -> list[Example]:
        return [self._draw_one() for _ in range(n)]

    def _draw_one(self) -> Example:
        full = len(self.examples) >= self.capacity
        if full and self.rng.random() >= self.fresh:
            return self.examples[int(self.rng.integers(len(self.examples)))]
        example = self._new_example()
        if full:
            self.examples[int(self.rng.integers(self.capacity))] = example
        else:
            self.examples.append(example)
        return example

    def _new_example(self) -> Example:
        """A new scene with at least one turn to train on, a photograph, or one of a task."""
        draw = self.rng.random()
        for task, share in self.task_shares.items() if self.task_example else ():
            draw -= share
            if draw < 0 and self.task_example:
                return self.task_example(task, self.rng, self.backgrounds, self.lexicon)
        if self.photos and self.rng.random() < PHOTO_SHARE:
            return photo_example(self.photos, self.queries, self.rng, self.shares, self.lexicon)
        while True:
            size = SIZE if self.rng.random() < 0.6 else int(self.rng.integers(260, 360))
            scene = render(
                self.rng,
                size=size,
                count=self.queries,
                photos=self.backgrounds,
                styles=self.styles,
                **sample_wording(self.rng, self.lexicon),
            )
            example = scene_example(scene, self.rng, self.shares, self.lexicon)
            if example.turns:
                return example


def to_pixels(examples: Sequence[Example], rng: Rng | None) -> Tensor:
    """(B, 3, SIZE, SIZE) float, normalised; with `rng`, brightness and contrast vary."""
    rgb = torch.from_numpy(np.stack([e.rgb for e in examples])).permute(0, 3, 1, 2).float()
    values = rgb / 127.5 - 1
    if rng is not None:
        shape = (len(examples), 1, 1, 1)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, shape)).float()
        values = values * gain + torch.from_numpy(rng.uniform(-0.1, 0.1, shape)).float()
    return values
