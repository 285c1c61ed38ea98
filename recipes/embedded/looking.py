"""Training examples of looking again: views of large scenes, and the close looks at their things.

A close look is the window around some things, enlarged to what the reasoner sees; sometimes with
everything outside the things' masks taken away. Views and looks are drawn from layouts at the size
that is needed, not cut out of a large picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from recipes.embedded.examples import PLAIN, Example, ReadText, Rng, TaskOptions, Turn, assemble
from recipes.embedded.model import CELLS, SIZE
from recipes.embedded.task_replies import answer_pieces, look_pieces
from rsvp.answer import question_variables
from rsvp.embedded import backgrounds
from rsvp.embedded.details import (
    VALUES,
    WHOLE,
    Thing,
    add_details,
    place,
    sample_thing,
)
from rsvp.embedded.layouts import Seen, sample_layout, see
from rsvp.embedded.questions import (
    ChoiceQuestion,
    absent_question,
    both_question,
    cluttered_question,
    detail_question,
    relation_question,
    render_qa,
)
from rsvp.embedded.rendering import SceneObject, paint
from rsvp.embedded.traces import Describe
from rsvp.embedded.vocabulary import Category, categories
from rsvp.looks import BACKGROUNDS, look_window, take_away
from rsvp.masks import mask_to_box
from rsvp.prompting import render as render_prompt
from rsvp.types import BoolMask, Box, RgbArray

T = TypeVar("T", bound=np.generic)

VIEWS, SHEETS = 0.25, 0.35  # shares of the examples that show a whole scene, or a sheet
LOOKS = {"single": 0.45, "cluttered": 0.25, "pair": 0.2, "region": 0.1}  # shares of the others
QUESTIONS = 4  # about a picture, at most
GUESSED = 0.25  # share of the questions about details that are also asked of the view
OPEN = 0.2  # share of the questions without choices
ABSENT = 0.15  # share of the close looks with a question about a thing that is not there
MASKED = 0.5  # share of the looks at one thing or two with everything else taken away
STRETCHED = 0.35  # share of the looks whose window is no square
JITTER = 0.06  # standard deviation of an edge of the reasoner's box, of the thing's side
LEAST_SIDE = 76  # of a thing whose details are asked for, pixels of the look
LEAST_PIXELS = 60  # of a thing in a close look; less is no object of it
SHEET_ROW = 2  # things in a row of a sheet, at most
DETAIL_CLASSES = {
    detail: number
    for number, detail in enumerate(((k, v) for k, vs in VALUES.items() for v in vs), start=1)
}


def qa_example(rng: Rng, options: TaskOptions = PLAIN) -> Example:
    """A view with what to look at, a close look with answers, or a sheet."""
    draw = rng.random()
    if draw < SHEETS:
        return sheet_example(rng, options)
    return view_example(rng, options) if draw < SHEETS + VIEWS else look_example(rng, options)


def sheet_example(rng: Rng, options: TaskOptions = PLAIN) -> Example:
    """Rows of things with many details that are large enough to be read, and no question."""
    n = int(rng.integers(1, SHEET_ROW + 1))
    layout = []
    for row, column in np.ndindex(n, n):
        category = categories()[int(rng.integers(len(categories())))]
        thing = sample_thing(
            category, rng, side=float(rng.uniform(0.75, 1)) / n, styles=options.styles
        )
        kinds = [str(kind) for kind in rng.permutation(list(VALUES))]
        x, y = (np.array([column, row]) + 0.5 + rng.normal(0, 0.05, 2)) / n
        layout.append(replace(add_details(thing, kinds, rng), x=float(x), y=float(y)))
    rgb, masks = _draw(layout, WHOLE, rng, options.photos)
    visible = [i for i, m in enumerate(masks) if m.sum() >= LEAST_PIXELS]
    things, masks = [layout[i] for i in visible], [masks[i] for i in visible]
    objects = [_object(t.category, m) for t, m in zip(things, masks, strict=True)]
    return assemble(rgb, objects, [], **_detail_cells(things, masks, WHOLE))


def view_example(rng: Rng, options: TaskOptions = PLAIN) -> Example:
    """The view of a whole scene: what to look at, answers at once, and guesses."""
    scene = render_qa(rng, size=SIZE, count=QUESTIONS, **options.rendering())
    turns = []
    for q in scene.questions:
        prompt = render_prompt("compact/look", **question_variables(options.read(q.text)))
        turns.append(Turn(prompt, look_pieces(q, scene.objects), q.targets, q.targets, False))
        if rng.random() < (GUESSED if q.needs_look else 0.5):
            turns.append(_answer_turn(q, scene.objects, rng, options.read, close=False))
    return assemble(scene.rgb, scene.objects, turns)


def look_example(
    rng: Rng,
    options: TaskOptions = PLAIN,
    kind: str | None = None,
) -> Example:
    """A close look at one or two things or at a region, with answers.

    Args:
        kind: one of `LOOKS`; drawn by its share where it is None.
    """
    kind = kind or str(rng.choice(list(LOOKS), p=list(LOOKS.values())))
    seen, questions, shown, window = _sample_look(kind, rng, options)
    rgb, masks = _draw(seen.layout, window, rng, options.photos)
    if kind != "region" and rng.random() < MASKED:
        rgb = mask_outside(rgb, np.logical_or.reduce([masks[i] for i in shown]), rng)
        masks = [m if i in shown else np.zeros_like(m) for i, m in enumerate(masks)]
    rgb, masks = _square(rgb), [_square(m) for m in masks]
    visible = [i for i, m in enumerate(masks) if m.sum() >= LEAST_PIXELS]
    things, masks = [seen.layout[i] for i in visible], [masks[i] for i in visible]
    objects = [_object(t.category, m) for t, m in zip(things, masks, strict=True)]
    turns = []
    for q in questions:
        if set(q.targets) <= set(visible):
            renumbered = replace(q, targets=tuple(visible.index(i) for i in q.targets))
            turns.append(_answer_turn(renumbered, objects, rng, options.read, close=True))
    return assemble(rgb, objects, turns, **_detail_cells(things, masks, window))


def _detail_cells(
    things: Sequence[Thing], masks: Sequence[BoolMask], window: Box
) -> dict[str, Any]:
    """Which details can be read in the cells of a picture, and the things that carry them.

    Args:
        masks: (SIZE, SIZE) what is shown of each thing.
        window: of the scene, that the picture shows.
    """
    details, owners = np.zeros(CELLS * CELLS, np.int64), np.full(CELLS * CELLS, -1)
    scale = SIZE / max(window.width, window.height)
    for i, (thing, mask) in enumerate(zip(things, masks, strict=True)):
        for detail in thing.details if thing.side * scale >= LEAST_SIDE else ():
            center = thing.place(detail).center
            x = (center[0] - window.x0) / window.width
            y = (center[1] - window.y0) / window.height
            if 0 <= x < 1 and 0 <= y < 1 and mask[int(y * SIZE), int(x * SIZE)]:
                cell = int(y * CELLS) * CELLS + int(x * CELLS)
                details[cell], owners[cell] = DETAIL_CLASSES[detail.kind, detail.value], i
    return {"details": details, "detail_objects": owners}


def _sample_look(
    kind: str, rng: Rng, options: TaskOptions
) -> tuple[Seen, list[ChoiceQuestion], Sequence[int], Box]:
    """What a look of this kind is at: a layout, questions, the things shown, and the window."""
    counts = {"single": (1, 4), "region": (3, 6)}.get(kind, (2, 4))
    while True:
        theme, count = str(rng.choice(list(VALUES))), int(rng.integers(*counts))
        layout = sample_layout(
            rng,
            theme=theme,
            count=count,
            near=count - 1,
            inside=kind == "cluttered",
            styles=options.styles,
        )
        seen = None if layout is None else see(layout)
        found = [] if seen is None else _questions(kind, theme, seen, rng, options.describe)
        if not seen or not found:
            continue
        shown = range(count) if kind == "region" else found[0].targets
        window = _window([seen.objects[i].box for i in shown], rng, wide=kind == "region")
        scale = SIZE / max(window.width, window.height)
        readable = [
            q
            for q in found
            if not q.needs_look or min(scale * seen.layout[i].side for i in q.targets) >= LEAST_SIDE
        ]
        if any(q.targets for q in readable):
            return seen, readable, shown, window


def _questions(
    kind: str, theme: str, seen: Seen, rng: Rng, describe: Describe
) -> list[ChoiceQuestion]:
    """Questions about the things that a look of this kind shows; empty where there is none."""
    if kind == "cluttered":
        first = cluttered_question(seen, rng, describe)
    elif kind == "pair":
        first = both_question(seen, rng, describe, theme)
    else:
        first = detail_question(seen, rng, describe, theme)
    if first is None:
        return []
    among = range(len(seen.objects)) if kind == "region" else first.targets
    found = [first]
    details = [str(d) for d in rng.choice(list(VALUES), QUESTIONS)]
    if kind == "pair":
        found += [q for d in details[:2] if (q := both_question(seen, rng, describe, d, among))]
    if kind in ("pair", "region"):
        found += [q for q in [relation_question(seen, rng, describe, among)] if q]
    found += [q for d in details if (q := detail_question(seen, rng, describe, d, among))]
    if rng.random() < ABSENT:
        found.insert(1, absent_question(seen, rng, describe))
    return found[:QUESTIONS]


def _answer_turn(
    q: ChoiceQuestion, objects: Sequence[SceneObject], rng: Rng, read: ReadText, *, close: bool
) -> Turn:
    choices = () if rng.random() < OPEN else q.choices
    prompt = render_prompt("compact/answer", **question_variables(read(q.text), choices))
    return Turn(prompt, answer_pieces(q, objects, close=close), q.targets, q.targets, False)


def _window(boxes: Sequence[Box], rng: Rng, *, wide: bool) -> Box:
    """The padded window around boxes of the view, as the reasoner would place them.

    In fractions of the scene's side, inside the scene.
    """
    corners = np.array([b.xyxy for b in boxes])
    sides = np.array([[b.width, b.height] * 2 for b in boxes])
    corners = (corners + rng.normal(0, JITTER, corners.shape) * sides) / SIZE
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    size = np.maximum(high - low, 0.03)
    center = (low + high) / 2 + rng.normal(0, 0.15 if wide else 0.0, 2) * size
    around = Box(*map(float, (*(center - size / 2), *(center + size / 2))))
    padding, square = float(rng.uniform(0.1, 0.3)), bool(rng.random() >= STRETCHED)
    return look_window([around], Box(0, 0, 1, 1), padding=padding, square=square)


def _draw(
    layout: Sequence[Thing], window: Box, rng: Rng, photos: Sequence[RgbArray]
) -> tuple[RgbArray, list[BoolMask]]:
    """The window, its longer side SIZE pixels, and the (h, w) mask of each thing."""
    scale = SIZE / max(window.width, window.height)
    width, height = (max(1, round(v * scale)) for v in (window.width, window.height))
    canvas = _background(max(window.width, window.height), rng, photos)[:height, :width].copy()
    placed = place(layout, window, scale)
    top = paint(canvas, placed)
    return canvas, [top == i for i in range(len(layout))]


def _background(side: float, rng: Rng, photos: Sequence[RgbArray]) -> RgbArray:
    """(SIZE, SIZE, 3) a part of a background, of this side relative to the whole, enlarged."""
    whole = backgrounds.draw(SIZE, rng, photos)
    cut = max(24, round(min(side, 1.0) * SIZE))
    x, y = rng.integers(SIZE - cut + 1, size=2)
    part = Image.fromarray(whole[y : y + cut, x : x + cut])
    rgb = np.array(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return backgrounds.grain(rgb, rng) if rng.random() < 0.5 else rgb


def mask_outside(rgb: RgbArray, kept: BoolMask, rng: Rng) -> RgbArray:
    """The picture with everything outside a mask taken away, as `rsvp.looks` does it.

    The mask's edge is drawn a little too far outside or inside, as a segmenter does.
    """
    mask = Image.fromarray(kept.astype(np.uint8) * 255)
    grown = int(rng.integers(-1, 3))
    if grown > 0:
        mask = mask.filter(ImageFilter.MaxFilter(2 * grown + 1))
    elif grown < 0:
        mask = mask.filter(ImageFilter.MinFilter(3))
    return take_away(rgb, np.asarray(mask) > 0, str(rng.choice(BACKGROUNDS)))


def _square(picture: NDArray[T]) -> NDArray[T]:
    """A picture or a mask, stretched to a square of SIZE."""
    if picture.shape[:2] == (SIZE, SIZE):
        return picture
    kind = Image.Resampling.BILINEAR if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), kind))


def _object(category: Category, mask: BoolMask) -> SceneObject:
    box = mask_to_box(mask)
    assert box is not None  # only masks with pixels are asked for
    return SceneObject(category, mask, box, 1.0, None)
