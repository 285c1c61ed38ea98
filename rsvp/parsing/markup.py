"""Regions in the tags and tokens of model families, as entries like those of JSON replies.

Boxes: `<ref>…</ref><box>…</box>` (InternVL, MiniCPM-V), `<|box_start|>` (Qwen2-VL), `<|det|>`
(DeepSeek-VL2), `<bbox>` (Seed), `<p>…</p>{<x><y><x><y>}` (MiniGPT-v2), `dog<loc_1>…` (Florence-2),
`<loc0001>… dog` (PaliGemma). Points: `<point x= y=>` (Molmo), `<points coords=>` (Molmo2).
Numbers stay in the order in which they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rsvp.parsing.lenient_json import Array, Node, Object
from rsvp.parsing.values import Unreadable, number, preview

MAX_REGIONS = 1_000  # of one reply

_REFERENCE = (
    r"(?:<(?:ref|p)>|<\|(?:object_ref_start|ref)\|>)([^<]{0,500})"
    r"(?:</(?:ref|p)>|<\|(?:object_ref_end|/ref)\|>)\s{0,20}"
)
_LINE_LABEL = r"^[ \t]{0,8}(?:[-*•][ \t]{1,3})?([^\W\d][^<>\n:{}\[\]\"]{0,60}):[ \t]{0,8}"
_BOX = re.compile(
    rf"(?:{_REFERENCE}|(?m:{_LINE_LABEL}))?"
    r"(?:(?:<b?box>|<\|(?:box_start|det)\|>)([^<]{0,5000})"
    r"(?:</b?box>|<\|(?:box_end|/det)\|>)"
    r"|((?:\{(?:<[0-9]{1,4}>){4}\}(?:<delim>)?){1,100}))"
)
_BRACES = re.compile(r"\{[^{}]+\}")
_BEGUN = re.compile(r"(?:<b?box>|<\|(?:box_start|det)\|>)\s{0,5}[\[({0-9]")
_LOC = re.compile(r"((?:<loc_?[0-9]{1,4}>)+)([^<>\n;]{0,200})")
_LABEL_BEFORE = re.compile(r"[^<>\n;]{0,200}\Z")
_LOC_NUMBER = re.compile(r"[0-9]+")
_POINT = re.compile(rf"(?:{_REFERENCE})?<points?(?:\s([^<>]{{1,5000}}))?>([^<]{{0,500}})</points?>")
_ATTRIBUTE = re.compile(r"\b([xy])([0-9]{0,4})\s{0,5}=\s{0,5}[\"']([^\"']{0,40})[\"']")
_COORDS = re.compile(r"\bcoords\s{0,5}=\s{0,5}[\"']([0-9\s.]{1,4000})[\"']")
_GENERIC = re.compile(
    r"(?:the |final |predicted |its )*(?:bounding[ _-]?box(?:es)?|b?box(?:es)?|bbox(?:_2d)?"
    r"|box_2d|coord(?:inate)?s?|positions?|locations?|regions?|answers?|results?|outputs?|points?"
    r"|targets?|marks?|response|assistant)(?: coordinates)?(?: (?:is|are))?",
    re.IGNORECASE,
)


def read(text: str, kind: str) -> list[Node]:
    """The entries of the expected kind, "box" or "points", in tags in the text.

    Raises:
        Unreadable: a tag without its numbers, or more tags than any reply needs.
    """
    readers = {"box": (_boxes, _locations), "points": (_points,)}.get(kind, ())
    found: list[Node] = []
    for reader in readers:
        for entry in reader(text):
            found.append(entry)
            if len(found) > MAX_REGIONS:
                raise Unreadable(f"the reply has more than {MAX_REGIONS} regions")
    return found


def label_of(text: str) -> str:
    """What stands before a region, as its label; words such as "bounding box" are none."""
    label = text.strip("*_`\"' \t").rstrip(":=-–— ").strip("*_`\"' ")
    return "" if _GENERIC.fullmatch(label) else label


def entry(label: str, **regions: Node) -> Object:
    """An entry as a JSON reply would have it."""
    return Object({"label": label, **regions})


def _boxes(text: str) -> Iterator[Object]:
    if "box" in text or "det|>" in text or "{<" in text:
        end = 0
        for match in _BOX.finditer(text):
            label = match[1].strip() if match[1] else label_of(match[2] or "")
            for part in (match[3],) if match[4] is None else _BRACES.findall(match[4]):
                yield entry(label, box=part.replace("><", ",").strip("{<>}"))
            end = match.end()
        if _BEGUN.search(text, end):
            raise Unreadable("the reply was cut off inside of a box")


def _locations(text: str) -> Iterator[Object]:
    """Runs of location tokens: the label stands before them (`_`), or behind them."""
    for match in _LOC.finditer(text):
        numbers: list[Node] = [float(value[0]) for value in _LOC_NUMBER.finditer(match[1])]
        before = match[1].startswith("<loc_")
        if len(numbers) % 4 or (len(numbers) > 4 and not before):
            raise Unreadable(f"{preview(Array(numbers))} is not four numbers")
        label = match[2]
        if before:
            found = _LABEL_BEFORE.search(text[max(0, match.start() - 200) : match.start()])
            label = found[0] if found else ""
        for at in range(0, len(numbers), 4):
            yield entry(label.strip(), box=Array(numbers[at : at + 4]))


def _points(text: str) -> Iterator[Object]:
    for match in _POINT.finditer(text) if "<point" in text else ():
        if match[2] is None:
            yield entry((match[1] or "").strip(), points=match[3])
            continue
        for point in _attributes(match[2]):
            yield entry(match[3].strip(), points=point)


def _attributes(text: str) -> list[Node]:
    """`x1="10" y1="20" x2=…`, or `coords="1 1 555 169"` of image, object, x, y, object, x, y …"""
    if coords := _COORDS.search(text):
        numbers = [number(value) for value in coords[1].split()[1:]]
        if not numbers or len(numbers) % 3:
            raise Unreadable(f"{preview(coords[1])} is not one image and triples of numbers")
        return [Array([*numbers[at + 1 : at + 3]]) for at in range(0, len(numbers), 3)]
    found: dict[str, dict[str, Node]] = {}
    for axis, index, value in _ATTRIBUTE.findall(text):
        found.setdefault(index, {})[axis] = number(value)
    if not found or any(len(pair) != 2 for pair in found.values()):
        raise Unreadable("a <point> tag has no x and y")
    return [Object(pair) for pair in found.values()]
