"""The names under which models write targets, regions and choices."""

from __future__ import annotations

import re
from typing import Literal

from rsvp.parsing.lenient_json import Array, Node, Object
from rsvp.parsing.selection import LABEL
from rsvp.parsing.values import CORNER_NAMES, corner_pairs, is_named_box, is_number_list

Expect = Literal["box", "bands", "points", "marks"]

TARGETS = ("targets", "target")
COORDINATES = ("coordinates", "coords", "position", "location", "coordinate")
ONLY_BOX = (
    *("box", "bbox", "bbox_2d", "box_2d", "bounding_box", "boundingbox", "boxes", "bboxes"),
    *("bounding_boxes", "xyxy", "bbox_xyxy", "box_xyxy", "bbox_coordinates", "box_coordinates"),
)
BOX = (*ONLY_BOX, *COORDINATES)
POINTS = ("points", "point", "point_2d", "points_2d", "xy", *COORDINATES)
NOT_POINTS = ("not", "not_points", "negative", "negative_points", "exclude")
SURE_MARKS = (
    *("marks", "mark", "mark_number", "mark_numbers", "mark_id", "mark_ids", "mark_no"),
    *("final_answer_masks",),
)
MARKS = (*SURE_MARKS, "number", "id")
ROWS = ("rows", "row")
COLUMNS = ("columns", "column", "cols", "col")
SINGULAR = {"box": "box", "points": "points", "marks": "marks"}
STEP_TEXT = ("text", "step", "thought", "description", "content")
REASON = ("reason", "explanation", "rationale", "reasoning", "why")
FORM = ("format", "box_format", "bbox_format", "coordinate_format", "bbox_mode")
STEPS = ("steps", "reasoning_steps", "thoughts", "chain_of_thought", "reasoning")
REGION = frozenset((*BOX, *POINTS, *MARKS, *ROWS, *COLUMNS))
ANSWER = REGION.union(TARGETS)
REPLY = ANSWER.union(STEPS)
KNOWN = ANSWER.union(LABEL, CORNER_NAMES, ("reason",)) - {"target"}
_STEP_MARKS = ("text", "step", "thought")
_NOT_A_LABEL = re.compile(
    r"size|image|crop|colou?r|shape|padding|resolution|rgb|range|score|select|ind(?:ex|ices)|step"
    r"|count|number|_ids?\Z|data|value|info|meta|subject|anchor|reference|closest|nearest|similar"
)
_ARTICLE = re.compile(r"\A\s*(?:the|an?)\s")
_PLACEHOLDER = re.compile(
    r"[xy]_?(?:[0-9]|min|max)|string|number|int(?:eger)?|float|\.{3}|…|<.{0,40}>|[a-d]",
    re.IGNORECASE,
)
_NAMES = ("label", "name", "object", "class", "category")


def is_entry(node: Object, expect: str) -> bool:
    """Whether an object looks like one target, and not like a reasoning step."""
    if node.key(_STEP_MARKS) and not node.key(LABEL):
        return False
    return has_region(node, expect)


def has_region(node: Object, expect: str) -> bool:
    """Whether an object has a region of the expected kind."""
    if expect == "box":
        return node.key(BOX) is not None or is_named_box(node.entries)
    if expect == "bands":
        return node.key(ROWS) is not None and node.key(COLUMNS) is not None
    if expect == "points":
        return node.key(POINTS) is not None or {"x", "y"} <= node.entries.keys()
    if node.key(SURE_MARKS):
        return True
    return node.key(MARKS) is not None and node.key(_NAMES) is not None


def labelled(node: Object, expect: str) -> Array | None:
    """The entries of `{"mug": [12, 30, 50, 80]}`, where labels are the keys; None if it is not so.

    Beside them only words may stand, such as a reason.
    """
    found: list[Node] = []
    for name, value in node.entries.items():
        if isinstance(value, str) or value is None:
            continue
        if len(name) < 2 or name in REPLY or _NOT_A_LABEL.search(name[:100]):
            return None
        if isinstance(value, Object) and is_entry(value, expect):
            found.append(Object({"label": name, **value.entries}))
        elif expect != "bands" and _is_region(value, expect):
            found.append(Object({"label": name, SINGULAR[expect]: value}))
        else:
            return None
    return Array(found) if found else None


def _is_region(value: Node, expect: str) -> bool:
    if not isinstance(value, Array) or not value.items:
        return False
    length = {"box": 4, "points": 2}.get(expect, len(value.items))
    if is_number_list(value):
        return len(value.items) == length
    if expect == "box" and corner_pairs(value):
        return True
    return expect != "marks" and all(
        isinstance(item, Array) and is_number_list(item) and len(item.items) == length
        for item in value.items
    )


def is_form(node: Node) -> bool:
    """Whether a region in it is a placeholder, such as `[x0, y0, x1, y1]`: it shows the form."""
    if isinstance(node, Object):
        return any(is_form(value) for value in node.entries.values())
    if not isinstance(node, Array):
        return False
    return any(
        is_form(item) or (isinstance(item, str) and bool(_PLACEHOLDER.fullmatch(item.strip()[:60])))
        for item in node.items
    )


def labels(targets: Node) -> set[str]:
    """The labels of entries, in lower case; empty where one has none, or is used twice."""
    items = targets.items if isinstance(targets, Array) else [targets]
    found = [item.first(LABEL) if isinstance(item, Object) else None for item in items]
    names = {_ARTICLE.sub("", name.lower()).strip() for name in found if isinstance(name, str)} - {
        ""
    }
    return names if len(names) == len(found) else set()
