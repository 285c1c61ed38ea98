"""What the user asks: an image, a query, and maybe boxes, points or hints; checked once, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput
from rsvp.images import ImageSource, as_array, load_image
from rsvp.types import Box, Image, Point, Proposal

BoxLike = Box | Sequence[float] | str
PointLike = Point | Sequence[float] | str
# Arrays and tensors are (n, 4) boxes, (n, 2) or (n, 3) points, or a single one of them.
Boxes = Sequence[BoxLike] | NDArray[Any]
Points = Sequence[PointLike] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Hint:
    """Where the MLLM may look, and what is not meant; empty by default.

    Attributes:
        within: only targets inside this box count; xyxy in pixels of the image.
        exclude: points on objects that are not meant.
        like: boxes around examples of what is meant, for a detector that finds more of them.
    """

    within: Box | None = None
    exclude: tuple[Point, ...] = ()
    like: tuple[Box, ...] = ()

    def __bool__(self) -> bool:
        return self.within is not None or bool(self.exclude or self.like)


@dataclass(frozen=True, slots=True)
class Request:
    """One query on one image. Made by `make_request`, which checks everything.

    Attributes:
        prompts: the user's own boxes and points; where there are any, no MLLM is asked.
    """

    image: Image
    query: str = ""
    prompts: tuple[Proposal, ...] = ()
    hint: Hint = field(default_factory=Hint)


def make_request(
    image: ImageSource,
    query: str = "",
    boxes: Boxes | None = None,
    points: Points | None = None,
    *,
    labels: Sequence[str] | None = None,
    within: BoxLike | None = None,
    exclude: Points | None = None,
    like: Boxes | None = None,
) -> Request:
    """Check what the user asks.

    Args:
        image: what `rsvp.images.load_image` takes.
        query: in any language; may be empty with boxes or points.
        boxes: xyxy in pixels, each a target; what lies outside the image is cut off. A list, or an
            (n, 4) array or tensor.
        points: (x, y) in pixels, or (x, y, 0) for "not this"; all of them mean one target, and go
            with the box where there is exactly one.
        labels: what the boxes show, one for each or one for all; by default the query.
        within: a hint for the MLLM, xyxy in pixels.
        exclude: hints for the MLLM, (x, y) in pixels.
        like: examples for it and for the strategy's detector, xyxy in pixels.

    Raises:
        BadInput: an image, query, box or point that cannot be used; hints beside boxes or points.
    """
    if not isinstance(query, str):
        raise BadInput(f"a query is text, found {type(query).__name__}")
    loaded = load_image(image)
    prompts = _prompts(loaded, query if labels is None else labels, _listed(boxes), _listed(points))
    if not prompts and not query.strip():
        raise BadInput("the query is empty: say what to look for, or give a box or a point")
    hint = Hint(
        None if within is None else _clipped(to_box(within, "within"), loaded),
        tuple(
            replace(_inside(to_point(p, "exclude"), loaded), positive=False)
            for p in _listed(exclude) or ()
        ),
        tuple(_clipped(to_box(box, "like"), loaded) for box in _listed(like) or ()),
    )
    if hint and prompts:
        raise BadInput(
            "boxes and points are targets, for which no MLLM is asked: leave out within, exclude "
            "and like"
        )
    return Request(loaded, query, prompts, hint)


def to_box(value: BoxLike, name: str = "a box") -> Box:
    """A box however the caller writes it: a `Box`, four numbers, or ``"x0,y0,x1,y1"``."""
    if isinstance(value, Box):
        return value
    return Box(*_numbers(value, (4,), f"{name} is X0,Y0,X1,Y1 in pixels"))


def to_point(value: PointLike, name: str = "a point") -> Point:
    """A point however the caller writes it: a `Point`, numbers, or ``"x,y"``."""
    if isinstance(value, Point):
        return value
    form = f"{name} is X,Y in pixels (or X,Y,0 for 'not this')"
    x, y, *positive = _numbers(value, (2, 3), form)
    if positive and positive[0] not in (0, 1):
        raise BadInput(f"a point's third number is 1 or 0 ('not this'), found {positive[0]:g}")
    return Point(x, y, not positive or positive[0] == 1)


def _prompts(
    image: Image,
    labels: str | Sequence[str],
    boxes: list[Any] | None,
    points: list[Any] | None,
) -> tuple[Proposal, ...]:
    """The user's boxes and points as labelled proposals.

    Args:
        labels: the query, for all of them; or as `make_request` takes them.
    """
    if boxes is None and points is None:
        if not isinstance(labels, str):
            raise BadInput("labels name boxes or points: give some, or leave the labels out")
        return ()
    if boxes == [] or points == []:
        raise BadInput("the list of boxes or points is empty; leave it out to ask the MLLM")
    on_image = [_clipped(to_box(box), image) for box in boxes or ()]
    clicks = tuple(_inside(to_point(point), image) for point in points or ())
    names = [labels] if isinstance(labels, str) else list(labels)
    if len(names) not in (1, max(len(on_image), 1)) or not all(isinstance(n, str) for n in names):
        raise BadInput(f"{len(names)} labels for {len(on_image) or 1} targets: give one for each")
    if not clicks:
        named = zip(names * (len(on_image) // len(names)), on_image, strict=True)
        return tuple(Proposal(label, box, raw=box.xyxy) for label, box in named)
    if len(on_image) > 1:
        raise BadInput("points go with one box or with none: give the boxes one at a time")
    if not on_image and not any(click.positive for click in clicks):
        raise BadInput("every point says 'not this': give a box or one point on the target")
    return (Proposal(names[0], on_image[0] if on_image else None, clicks),)


def _listed(values: Any) -> list[Any] | None:
    """Boxes or points as a list; a single one, written as numbers, becomes a list of one.

    Raises:
        BadInput: it is no list, array or tensor.
    """
    if values is None:
        return None
    array = as_array(values)
    items = values if array is None else array.tolist()
    if isinstance(items, str | bytes | Box | Point) or not isinstance(items, Sequence):
        raise BadInput(f"boxes and points are lists of them, found {values!r}")
    numbers = bool(items) and all(isinstance(v, float | int | np.number) for v in items)
    return [items] if numbers else list(items)


def _numbers(value: Sequence[float] | str, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        parts = value.split(",") if isinstance(value, str) else value
        numbers = [float(number) for number in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in counts:
        raise BadInput(f"{form}, found {value!r}")
    return numbers


def _clipped(box: Box, image: Image) -> Box:
    """The part of a box that lies on the image; BadInput where there is none."""
    part = box.intersection(Box(0.0, 0.0, float(image.width), float(image.height)))
    if part is None:
        shown = ",".join(f"{number:g}" for number in box.xyxy)
        raise BadInput(f"the box {shown} lies outside the image of {image.width}x{image.height}")
    return part


def _inside(point: Point, image: Image) -> Point:
    """The point itself; BadInput where it lies outside the image."""
    if not (0 <= point.x < image.width and 0 <= point.y < image.height):
        raise BadInput(
            f"the point {point.x:g},{point.y:g} lies outside the image "
            f"of {image.width}x{image.height}"
        )
    return point
