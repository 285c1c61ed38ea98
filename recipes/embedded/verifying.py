"""Training examples of verifying: right and wrong masks on a scene, and what to say about each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.embedded.examples import PLAIN, Example, Rng, TaskOptions, Turn, assemble
from recipes.embedded.marks import MarkedScene, tag_cells
from recipes.embedded.model import SIZE
from recipes.embedded.task_replies import MaskVerdict, verify_pieces
from rsvp.drawing import draw_masks
from rsvp.embedded.queries import Query
from rsvp.embedded.scenes import Scene, render
from rsvp.masks import mask_iou_matrix, mask_to_box
from rsvp.prompting import render as render_prompt
from rsvp.types import BoolMask
from rsvp.verify import MAX_TARGETS

QUERIES = 4  # of a scene, at most
# What stands in the place of a target: its mask, a bad one, another object's, or nothing.
PLACES = {"right": 0.62, "bad": 0.18, "wrong": 0.1, "nothing": 0.1}
SURPLUS = 0.22  # share of the scenes with a surplus mask, or two
ACCEPTED_IOU = 0.72  # of a mask with a target, from which it is right
CORRECTED_IOU = 0.12  # from which it is a bad mask of the target, not one of something else
SHOWN_SHARE = 0.3  # of a mask's pixels that an object needs to be what it shows
LEAST_SIDE = 4  # of a mask's box, pixels


def verify_example(rng: Rng, options: TaskOptions = PLAIN) -> Example:
    """A scene with numbered masks as the pipeline draws them, made for one of its queries.

    Other queries are asked about the same masks: one at most of those that all masks are wrong for.
    """
    queries: list[Query] = []
    while not queries:
        scene = render(
            rng,
            size=SIZE,
            count=QUERIES,
            photos=options.photos,
            styles=options.styles,
            **options.wording,
        )
        queries = [q for q in scene.queries if not q.unseen]
    masks = sample_masks(scene, queries[0], rng)
    rgb, tags, boxes = draw_masks(scene.rgb, masks)
    numbers = list(range(1, len(masks) + 1))
    ious = _ious(masks, scene)
    owners = {i: int(k) + 1 for i, k in enumerate(ious.argmax(0)) if ious[k, i] >= CORRECTED_IOU}
    marked = MarkedScene(rgb, owners, *tag_cells(tags, numbers, boxes, SIZE))
    turns: list[Turn] = []
    all_wrong = 0  # queries beside the first one for which all masks are wrong
    for q in queries:
        verdicts, missing = judge(masks, scene, q)
        if turns and all(v.verdict == "reject" for v in verdicts):
            all_wrong += 1
            if all_wrong > 1:
                continue
        reply = verify_pieces(verdicts, missing, scene.objects, SIZE)
        prompt = render_prompt("compact/verify", query=options.read(q.text))
        turns.append(Turn(prompt, reply, q.targets, q.reasoning, coordinates=True))
    return assemble(rgb, scene.objects, turns, marked)


def sample_masks(scene: Scene, query: Query, rng: Rng) -> list[BoolMask]:
    """(SIZE, SIZE) bool each: masks that a pipeline may have found for the query."""
    others = [i for i in range(len(scene.objects)) if i not in query.targets]
    masks: list[BoolMask] = []
    for i in query.targets:
        way = str(rng.choice(list(PLACES), p=list(PLACES.values())))
        if way == "wrong" and others:
            masks.append(
                _shifted(scene.objects[others[int(rng.integers(len(others)))]].mask, 1, rng)
            )
        elif way == "bad":
            masks.append(bad_mask(scene, i, rng))
        elif way == "right":
            masks.append(_shifted(scene.objects[i].mask, 2, rng))
    if rng.random() < SURPLUS:
        for _ in range(1 if rng.random() < 0.7 else 2):
            i = int(rng.integers(len(scene.objects)))
            bad = rng.random() < 0.3
            masks.append(
                bad_mask(scene, i, rng) if bad else _shifted(scene.objects[i].mask, 1, rng)
            )
    large = [m for m in masks if (b := mask_to_box(m)) and min(b.width, b.height) >= LEAST_SIDE]
    return [large[int(k)] for k in rng.permutation(len(large))[:MAX_TARGETS]]


def bad_mask(scene: Scene, i: int, rng: Rng) -> BoolMask:
    """A half of an object, the object shifted, or merged with the nearest other one."""
    o = scene.objects[i]
    way = int(rng.integers(3))
    if way == 0:
        axis = int(rng.integers(2))
        cut = o.box.center[1 - axis] + rng.uniform(-0.15, 0.15) * (o.box.height, o.box.width)[axis]
        inside = (np.arange(SIZE) + 0.5 < cut) == (rng.random() < 0.5)
        half: BoolMask = o.mask & (inside[:, None] if axis == 0 else inside[None])
        return half
    if way == 1:
        return _shifted(o.mask, 0, rng, by=rng.uniform(0.3, 0.55) * min(o.box.width, o.box.height))
    others = [k for k in range(len(scene.objects)) if k != i]
    near = min(
        others, key=lambda k: np.hypot(*np.subtract(scene.objects[k].box.center, o.box.center))
    )
    return o.mask | scene.objects[near].mask


def judge(
    masks: Sequence[BoolMask], scene: Scene, query: Query
) -> tuple[list[MaskVerdict], list[int]]:
    """The true verdict on each mask, and the targets that none of them shows.

    A target's best mask is accepted or corrected; every other one is rejected.
    """
    ious = _ious(masks, scene)
    pairs = [
        (float(ious[k, i]), k, i)
        for k in range(len(masks))
        for i in query.targets
        if ious[k, i] >= CORRECTED_IOU
    ]
    best: dict[int, tuple[int, float]] = {}
    for iou, k, i in sorted(pairs, reverse=True):
        if k not in best and i not in {j for j, _ in best.values()}:
            best[k] = (i, iou)
    verdicts = []
    for k, mask in enumerate(masks):
        if k in best:
            i, iou = best[k]
            right = iou >= ACCEPTED_IOU
            box = None if right else scene.objects[i].box
            verdicts.append(MaskVerdict("accept" if right else "correct", i, box))
        else:
            verdicts.append(MaskVerdict("reject", _shown(mask, scene)))
    found = {i for i, _ in best.values()}
    return verdicts, [i for i in query.targets if i not in found]


def _ious(masks: Sequence[BoolMask], scene: Scene) -> NDArray[np.float32]:
    """(masks, objects) IoU."""
    if not masks:
        return np.zeros((1, len(scene.objects)), np.float32)
    return mask_iou_matrix(np.stack(masks), np.stack([o.mask for o in scene.objects]))


def _shown(mask: BoolMask, scene: Scene) -> int | None:
    """The object that covers most of a mask, if it is enough."""
    shares = [float((mask & o.mask).sum()) / max(1, mask.sum()) for o in scene.objects]
    best = int(np.argmax(shares))
    return best if shares[best] >= SHOWN_SHARE else None


def _shifted(mask: BoolMask, most: int, rng: Rng, by: float = 0.0) -> BoolMask:
    """A mask moved by up to `most` pixels each way, or by a distance in a random direction."""
    dy, dx = (int(v) for v in rng.integers(-most, most + 1, 2))
    if by:
        angle = rng.uniform(0, 2 * np.pi)
        dy, dx = round(by * np.sin(angle)), round(by * np.cos(angle))
    moved = np.zeros_like(mask)
    height, width = mask.shape
    moved[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = mask[
        max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)
    ]
    return moved
