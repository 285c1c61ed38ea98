"""The values in a reply: boxes, points, bands and marks, in whatever form a model wrote them.

Numbers stay in the model's own frame and are not checked against any range: swapped corners and
numbers out of range are left to `rsvp.frames`. A value that is not certain raises `Unreadable`,
whose message goes into the repeated request.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection

from rsvp.parsing.lenient_json import Array, Document, Node, Object, OutOfBudgetError, Reader

Numbers = tuple[float, ...]
Pair = tuple[float, float]

# Corner names in the order x0, y0, x1, y1. Not x/y/w/h: its x, y may be the centre.
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_CORNER_PAIRS = (
    ("top_left", "bottom_right"),
    ("upper_left", "lower_right"),
    ("left_top", "right_bottom"),
)
_LEFT_TOP_SIZE = ("left", "top", "width", "height")
CORNER_NAMES = frozenset((*sum((*_CORNERS, *_CORNER_PAIRS), ()), *_LEFT_TOP_SIZE, "x", "y"))
_BAND_ENDS = (("start", "end"), ("from", "to"), ("first", "last"), ("min", "max"))
_NUMERAL = re.compile(r"\s*+[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+\s*+")
_LIST_TEXT = re.compile(r"[-+0-9.eE,，\s\[\]()]*+")
_TAG = re.compile(r"<[/|]{0,2}[A-Za-z_]\w{0,30}\|?>")
_BRACKETS = str.maketrans("<>{}", "[][]")
_MAX_LIST_TEXT = 5_000
_MAX_WHOLE = 1_000_000
_MAX_SPAN = 100  # twice as many as a grid has
_BAND_WORDS = re.compile(r"\b(?:rows?|columns?|cols?|bands?|marks?|numbers?|no)\b|[#\[\]()]")
_BAND_DASH = re.compile(r"\s*(?:-|–|—|~|\.\.+|\bto\b|\bthrough\b)\s*")
_BAND_COMMA = re.compile(r"\s*(?:(?:,|，|、|;|&|\band\b)\s*)+|\s+")
_BAND_ITEM = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?")


class Unreadable(ValueError):
    """A value is not what it should be; the message quotes it."""


def preview(node: Node) -> str:
    """A node in one short line, for messages."""
    if isinstance(node, Array):
        inner = ", ".join(
            "…" if isinstance(i, Array | Object) else preview(i) for i in node.items[:8]
        )
        return _short(f"[{inner}{', …' if len(node.items) > 8 else ''}]")
    if isinstance(node, Object):
        return "{" + ", ".join(f"{key[:20]!r}: …" for key in list(node.entries)[:6]) + "}"
    if isinstance(node, float) and math.isfinite(node):
        return f"{node:g}"
    return _short("null" if node is None else repr(node))


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def number(node: Node) -> float:
    """A finite number, also where it is written as a string."""
    if isinstance(node, str) and len(node) <= 400 and _NUMERAL.fullmatch(node):
        node = float(node)
    if not isinstance(node, float) or not math.isfinite(node):
        raise Unreadable(f"{preview(node)} is not a number")
    return node


def whole(node: Node) -> int | None:
    """A whole number, also where it is written as a string; None for anything else."""
    with contextlib.suppress(Unreadable):
        value = number(node)
        return int(value) if value == int(value) and abs(value) <= _MAX_WHOLE else None
    return None


def words(node: Node) -> str:
    """A value as text: yes or no for a boolean; "" where it is neither text nor number."""
    if isinstance(node, bool):
        return "yes" if node else "no"
    if isinstance(node, float):
        return f"{node:g}"
    return node.strip() if isinstance(node, str) else ""


def is_flat(node: Node) -> bool:
    """Whether this is a list of numbers (or strings of numbers) only."""
    return isinstance(node, Array) and all(
        isinstance(item, float) or (isinstance(item, str) and _NUMERAL.fullmatch(item))
        for item in node.items
    )


def is_number_list(node: Node) -> bool:
    """Whether this is a flat list that is not empty."""
    return isinstance(node, Array) and bool(node.items) and is_flat(node)


def list_in(text: str) -> Array:
    """The list in a string: `12, 30`, `[12, 30]`, `(12, 30), (50, 80)`, `{<12><30>}`."""
    wrapped = f"[{_TAG.sub(' ', text[:_MAX_LIST_TEXT]).translate(_BRACKETS)}]"
    if len(text) <= _MAX_LIST_TEXT and _LIST_TEXT.fullmatch(wrapped):
        with contextlib.suppress(OutOfBudgetError):
            found = Reader(wrapped).read(0)
            if isinstance(found, Document) and found.end == len(wrapped):
                node = found.node
                named = isinstance(node, Array) and any(isinstance(i, str) for i in node.items)
                if isinstance(node, Array) and node.complete and not named:
                    return node
    raise Unreadable(f"{preview(text)} is not a list of numbers")


def is_named_box(names: Collection[str]) -> bool:
    """Whether these are the names of a box's corners, as in `{"x1": …, "y1": …, …}`."""
    return any(set(box) <= set(names) for box in (*_CORNERS, *_CORNER_PAIRS, _LEFT_TOP_SIZE))


def boxes(node: Node, *, y_first: bool = False) -> list[Numbers]:
    """One or several boxes, four numbers each, in the order in which the model wrote them.

    Args:
        y_first: the frame puts y before x; boxes with named corners are put in that order too.
    """
    if isinstance(node, str):
        return boxes(list_in(node), y_first=y_first)
    if isinstance(node, Object):
        return [_named_box(node, y_first)]
    if not isinstance(node, Array) or not node.items:
        raise Unreadable(f"{preview(node)} is not a box")
    if is_flat(node):
        if len(node.items) != 4:
            raise Unreadable(f"{preview(node)} is not four numbers")
        return [tuple(number(item) for item in node.items)]
    if pairs := corner_pairs(node):
        return pairs
    if not all(isinstance(item, Array | Object | str) for item in node.items):
        raise Unreadable(f"{preview(node)} is not a box")
    return [box for item in node.items for box in boxes(item, y_first=y_first)]


def corner_pairs(node: Array) -> list[Numbers]:
    """The boxes of `[[x0, y0], [x1, y1], …]`; none where it may be a polygon."""
    pairs = [item.items for item in node.items if isinstance(item, Array) and is_flat(item)]
    if len(pairs) != len(node.items) or len(pairs) % 2 or any(len(pair) != 2 for pair in pairs):
        return []
    flat = [number(value) for pair in pairs for value in pair]
    found = [tuple(flat[at : at + 4]) for at in range(0, len(flat), 4)]
    if len(found) > 1 and not all(box[0] < box[2] and box[1] < box[3] for box in found):
        return []
    return found


def _named_box(node: Object, y_first: bool) -> Numbers:
    for pair in _CORNER_PAIRS:
        if set(pair) <= node.entries.keys():
            ends = [points(node.entries[name], y_first=y_first) for name in pair]
            if any(len(end) != 1 for end in ends):
                raise Unreadable(f"{preview(node)} is not a box")
            return (*ends[0][0], *ends[1][0])
    for names in _CORNERS:
        if set(names) <= node.entries.keys():
            x0, y0, x1, y1 = (number(node.entries[name]) for name in names)
            break
    else:
        if not set(_LEFT_TOP_SIZE) <= node.entries.keys():
            raise Unreadable(f"{preview(node)} is not a box")
        x0, y0, width, height = (number(node.entries[name]) for name in _LEFT_TOP_SIZE)
        x1, y1 = x0 + width, y0 + height
    return (y0, x0, y1, x1) if y_first else (x0, y0, x1, y1)


def points(node: Node, *, y_first: bool = False) -> list[Pair]:
    """One or several points: `[x, y]`, `[[x, y], …]`, `{"x": …, "y": …}`, `"(x, y)"`."""
    if isinstance(node, str):
        return points(list_in(node), y_first=y_first)
    if isinstance(node, Object):
        if not {"x", "y"} <= node.entries.keys():
            raise Unreadable(f"{preview(node)} is not a point")
        x, y = number(node.entries["x"]), number(node.entries["y"])
        return [(y, x) if y_first else (x, y)]
    if not isinstance(node, Array) or not node.items:
        raise Unreadable(f"{preview(node)} is not a point")
    if is_flat(node):
        if len(node.items) != 2:
            raise Unreadable(f"{preview(node)} is not two numbers")
        return [(number(node.items[0]), number(node.items[1]))]
    if not all(isinstance(item, Array | Object) for item in node.items):
        raise Unreadable(f"{preview(node)} is not a point")
    return [point for item in node.items for point in points(item, y_first=y_first)]


def bands(node: Node) -> tuple[int, ...]:
    """Band or mark numbers: `[3, 4]`, `3`, `"3-5"`, `"rows 3, 4"`, `["3", "5-6"]`; not empty.

    `{"start": 3, "end": 5}` is the same as `"3-5"`.
    """
    if isinstance(node, Array) and node.items:
        return tuple(band for item in node.items for band in _band_item(item))
    if isinstance(node, Object):
        for first, last in _BAND_ENDS:
            if {first, last} <= node.entries.keys():
                ends = (_band_item(node.entries[first]), _band_item(node.entries[last]))
                return _span(ends[0][0], ends[1][-1], preview(node))
    if isinstance(node, float | str):
        return _band_item(node)
    raise Unreadable(f"{preview(node)} is not a list of band numbers")


def _band_item(node: Node) -> tuple[int, ...]:
    if isinstance(node, str):
        return _bands_in(node)
    number(node)
    if (value := whole(node)) is None:
        raise Unreadable(f"{preview(node)} is not a whole band number")
    return (value,)


def _bands_in(text: str) -> tuple[int, ...]:
    plain = _BAND_WORDS.sub(" ", text[:400].lower())
    plain = _BAND_COMMA.sub(",", _BAND_DASH.sub("-", plain).strip(" ,;."))
    found: list[int] = []
    for item in plain.split(","):
        match = _BAND_ITEM.fullmatch(item)
        if not match or len(text) > 400:
            raise Unreadable(f"{preview(text)} does not name bands")
        first, last = int(match[1]), int(match[2] or match[1])
        found.extend(_span(first, last, preview(text)))
        if len(found) > _MAX_SPAN:
            raise Unreadable(f"{preview(text)} spans too many bands")
    return tuple(found)


def _span(first: int, last: int, written: str) -> tuple[int, ...]:
    first, last = min(first, last), max(first, last)
    if last - first >= _MAX_SPAN:
        raise Unreadable(f"{written} spans too many bands")
    return tuple(range(first, last + 1))
