"""Layouts of large scenes: small things where few of them overlap, and what can be read on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rsvp.embedded.details import (
    LARGEST,
    SMALLEST,
    VALUES,
    WHOLE,
    Layout,
    Thing,
    add_details,
    alternatives,
    place,
    readable,
    sample_thing,
)
from rsvp.embedded.drafts import Rng, alone, choice
from rsvp.embedded.rendering import SceneObject, paint, visible_objects
from rsvp.embedded.vocabulary import DEFAULT_STYLE, categories
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box

VIEW = 240  # side of the view that decides which details are covered, pixels
LEAST_VISIBLE = 0.6  # share of a thing
ALIKE = 0.35  # share of the near things whose detail shows what the first one's shows


class Seen(NamedTuple):
    """What questions are made of: the objects of a scene, and what can be read on each."""

    layout: Layout
    objects: tuple[SceneObject, ...]
    details: Sequence[Mapping[str, str]]

    def alone(self, among: Sequence[int] | None = None) -> list[int]:
        """The objects that are alone of their name; of those in `among` where it is given."""
        found = range(len(self.objects))
        return [i for i in found if (among is None or i in among) and alone(self.objects, i)]

    def near(self, i: int, k: int) -> bool:
        """Whether two things stand closer together than their two sides are long."""
        a, b = self.layout[i], self.layout[k]
        return float(np.hypot(a.x - b.x, a.y - b.y)) < a.side + b.side

    def carriers(self, kind: str, among: Sequence[int] | None = None) -> list[int]:
        """Those of them with a readable detail of a kind."""
        return [i for i in self.alone(among) if kind in self.details[i]]


def see(layout: Layout) -> Seen | None:
    """The objects of a layout and the details that can be read; None where too much is hidden."""
    placed = place(layout, WHOLE, VIEW)
    canvas = np.zeros((VIEW, VIEW, 3), np.uint8)
    objects = visible_objects(paint(canvas, placed), placed)
    if objects is None or min(o.visible for o in objects) < LEAST_VISIBLE:
        return None
    return Seen(layout, objects, readable(layout, objects))


def sample_layout(
    rng: Rng,
    *,
    theme: str,
    count: int | None = None,
    copies: int = 1,
    near: int = 0,
    inside: bool = False,
    styles: Sequence[str] = (DEFAULT_STYLE,),
) -> Layout | None:
    """Small things with few overlaps; None where there was no place for one.

    Args:
        theme: the kind of detail that most of them carry.
        count: how many, by default 4 to 8.
        copies: how many things are of the first one's category; no other category comes twice.
        near: so many things stand close to the first one.
        inside: the second thing stands inside the box of the first one, off its mask.
    """
    count = max(int(rng.integers(4, 9)), copies + 1) if count is None else count
    vocabulary = categories()
    kinds = [vocabulary[int(i)] for i in rng.choice(len(vocabulary), count, replace=False)]
    kinds[:copies] = [kinds[0]] * copies
    things: list[Thing] = []
    for k, category in enumerate(kinds):
        side = None
        if inside and k < 2:
            side = float(rng.uniform(0.13, LARGEST) if k == 0 else rng.uniform(SMALLEST, 0.12))
        thing = _with_details(
            sample_thing(category, rng, side=side, styles=styles), theme, rng, sure=k < 2
        )
        if 1 <= k <= near and rng.random() < ALIKE:
            thing = _with_value_of(things[0], thing, theme)
        if k == 1 and inside:
            found = _place_inside(thing, things[0], theme, rng)
        else:
            found = _place_free(thing, things, rng, near=1 <= k <= near)
        if found is None:
            return None
        things.append(found)
    return tuple(things[int(i)] for i in rng.permutation(len(things)))


def _with_details(thing: Thing, theme: str, rng: Rng, *, sure: bool) -> Thing:
    """The thing with a detail of the theme, mostly, and now and then with another one."""
    kinds = [theme] if sure or rng.random() < 0.75 else []
    others = [kind for kind in VALUES if kind != theme]
    if not kinds or rng.random() < 0.35:
        kinds.append(choice(others, rng))
    return add_details(thing, kinds, rng)


def _with_value_of(other: Thing, thing: Thing, kind: str) -> Thing:
    """The thing, with its detail of a kind showing what the other one's shows."""
    model = other.detail(kind)
    details = (replace(d, value=model.value) if model and d.kind == kind else d
               for d in thing.details)  # fmt: skip
    return replace(thing, details=tuple(details))


def _place_free(thing: Thing, things: Sequence[Thing], rng: Rng, *, near: bool) -> Thing | None:
    """The thing at a place off the others; `near`: beside the first of them."""
    margin = 0.6 * thing.side
    for _ in range(40):
        x, y = rng.uniform(margin, 1 - margin, 2)
        if near:
            angle = rng.uniform(0, 2 * np.pi)
            distance = (thing.side + things[0].side) * rng.uniform(0.62, 0.9)
            x, y = things[0].x + np.cos(angle) * distance, things[0].y + np.sin(angle) * distance
            if min(x, y) < margin or max(x, y) > 1 - margin:
                continue
        if all(np.hypot(x - t.x, y - t.y) > 0.6 * (thing.side + t.side) for t in things):
            return replace(thing, x=float(x), y=float(y))
    return None


def _place_inside(thing: Thing, host: Thing, theme: str, rng: Rng) -> Thing | None:
    """The thing with its detail inside the host's box, but with hardly any common pixels."""
    detail, hosted_detail = thing.detail(theme), host.detail(theme)
    if detail is None or hosted_detail is None:
        return None
    value = choice(alternatives(theme, hosted_detail.value), rng)
    changed = replace(detail, value=value)
    thing = replace(thing, details=tuple(changed if d is detail else d for d in thing.details))
    scale = 400.0
    size = round(2.4 * host.side * scale)
    window = Box(0, 0, 2.4 * host.side, 2.4 * host.side)
    middle = 1.2 * host.side
    hosted = _mask(replace(host, x=middle, y=middle), window, scale, size)
    box = mask_to_box(hosted)
    if box is None:
        return None
    for _ in range(60):
        # Its detail lies somewhere in the host's box, off the host's pixels.
        x, y = rng.uniform(box.x0, box.x1), rng.uniform(box.y0, box.y1)
        if hosted[int(y), int(x)]:
            continue
        moved = replace(
            thing, x=x / scale - detail.x * thing.side, y=y / scale - detail.y * thing.side
        )
        shape = _mask(moved, window, scale, size)
        if (shape & hosted).sum() < 0.05 * min(shape.sum(), hosted.sum()):
            dx, dy = host.x - middle, host.y - middle
            placed = replace(moved, x=moved.x + dx, y=moved.y + dy)
            edge = 0.5 * placed.side
            if min(placed.x, placed.y) > edge and max(placed.x, placed.y) < 1 - edge:
                return placed
    return None


def _mask(thing: Thing, window: Box, scale: float, size: int) -> BoolMask:
    """(size, size) bool, the thing alone."""
    (sprite,) = place((thing,), window, scale)
    mask = np.zeros((size, size), dtype=np.bool_)
    where, part = sprite.inside(size, size)
    mask[where] = part[..., 3] > 127
    return mask
