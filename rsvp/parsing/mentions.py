"""Where a text names the objects of a reasoning path; there the objects' numbers are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

_WRITTEN = re.compile(r"\s?[\[(]#?([0-9]{1,4})[\])]")
_ARTICLE = re.compile(r"\A(?:the|an?)\s+", re.IGNORECASE)


class Named(Protocol):
    """What has a label, and maybe a number."""

    @property
    def label(self) -> str: ...

    @property
    def number(self) -> int | None: ...


N = TypeVar("N", bound=Named)


def plain_label(label: str) -> str:
    """A label as labels are compared: lower case, without article and double blanks."""
    return _ARTICLE.sub("", " ".join(label.split())).lower()


def pieces(text: str, named: Sequence[N]) -> Iterator[tuple[str, N | None]]:
    """The text in pieces, in order: those that are a label come with what they name.

    Each label is found once, longer ones first; a piece "" at the end stands for what the text does
    not name.
    """
    free = list(range(len(named)))
    spans: list[tuple[int, int, N]] = []
    for place in sorted(free, key=lambda i: -len(named[i].label)):
        one = named[place]
        span = _find(text, one.label, [(start, end) for start, end, _ in spans])
        if span:
            spans.append((*span, one))
            free.remove(place)
    position = 0
    for start, end, one in sorted(spans, key=lambda span: span[0]):
        if position < start:
            yield text[position:start], None
        yield text[start:end], one
        position = end
    if position < len(text):
        yield text[position:], None
    for place in free:
        yield "", named[place]


def numbered(text: str, named: Sequence[Named]) -> str:
    """The text with the number of each object behind its label; [?] where it has none.

    What the text does not name is added at its end.
    """
    written = ""
    for piece, one in pieces(text, named):
        if one is not None and not piece:
            written += f"{' ' * bool(written)}({one.label} {tag(one)})" if one.label else tag(one)
        else:
            written += piece if one is None else f"{piece} {tag(one)}"
    return written


def tag(one: Named) -> str:
    """The number of an object as texts and pictures show it."""
    return f"[{'?' if one.number is None else one.number}]"


def written_number(text: str, label: str) -> int | None:
    """The number that a text itself writes behind a label: "the mug (2)"."""
    span = _find(text, label, ())
    found = span and _WRITTEN.match(text, span[1])
    return int(found[1]) if found else None


def _find(text: str, label: str, taken: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The first place of a label, as whole words, that is not taken."""
    label = label.strip()
    if not label or len(label) > len(text):
        return None
    # Scripts without blanks between words have no word edges.
    before = r"(?<!\w)" if label[0].isascii() else ""
    after = r"(?!\w)" if label[-1].isascii() else ""
    for found in re.finditer(before + re.escape(label) + after, text, re.IGNORECASE):
        start, end = found.span()
        if all(end <= first or last <= start for first, last in taken):
            return start, end
    return None
