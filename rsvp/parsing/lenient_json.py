"""A lenient JSON reader: it reads what a careful person would still read as JSON, and no more.

It accepts trailing and missing commas, single and typographic quotes, unescaped inner quotes,
Python literals and tuples, bare words, comments, and text that stops in the middle. Containers
that the text never closed have `complete` False; a scalar cut off at the end is left out. Text is
read once: where reading fails, the containers that were complete by then are kept, and the caller
continues behind the failure. A depth limit and a budget bound the work and the memory.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

MAX_DEPTH = 32
# More JSON tokens than any model writes in one reply; only hostile text reaches it.
BUDGET = 24_000
_CONTAINER_UNITS = 2  # what a container costs, in tokens
_CHARS_PER_UNIT = 64

Node: TypeAlias = "bool | float | str | Array | Object | None"


@dataclass(slots=True)
class Array:
    """A list; `complete` is False when the text ended before its bracket did."""

    items: list[Node]
    complete: bool = True


@dataclass(slots=True)
class Object:
    """A dictionary; its keys are lower case with `_` for space and hyphen."""

    entries: dict[str, Node]
    complete: bool = True

    def key(self, names: tuple[str, ...]) -> str | None:
        """The first of `names` that the object has."""
        return next((name for name in names if name in self.entries), None)

    def first(self, names: tuple[str, ...], default: Node = None) -> Node:
        """The value under the first of `names` that the object has."""
        return next((self.entries[name] for name in names if name in self.entries), default)


@dataclass(frozen=True, slots=True)
class Document:
    """A container at `text[start:end]`, with all (normalised) keys in it at any depth.

    Documents inside of broken ones come without their keys, which the broken one has.
    """

    node: Array | Object
    start: int
    end: int
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Broken:
    """Not JSON: reading from `start` failed at `end`, after these (normalised) keys.

    Attributes:
        inside: the complete containers in it, outermost only, in order.
    """

    start: int
    end: int
    keys: frozenset[str]
    inside: tuple[Document, ...] = ()


def normalised(name: str) -> str:
    """A key as `Object` has it."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


class OutOfBudgetError(Exception):
    """Reading the text has cost too much."""


class _BrokenError(Exception):
    """The text at the current position cannot be JSON, or is nested deeper than any answer."""


class _EndError(Exception):
    """The text ended inside a scalar."""


# Besides the end of the text, the reader stops at a closing fence, closing tag or special token.
_ENDINGS = ("```", "</", "<|")
_BLANK = re.compile(r"(?:[\s\ufeff\u200b]++|//[^\n]*+|\#[^\n]*+|/\*.*?(?:\*/|\Z))*+", re.DOTALL)
_NUMBER = re.compile(
    r"[-+]?+(?:(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+|(?i:infinity|inf|nan))"
    r"(?![\w.+\-%])"
)
_FLAT_NUMBER = re.compile(r"-?+[0-9]++(?:\.[0-9]++)?+")
# A list of plain numbers, by far the most frequent container.
_FLAT_LIST = re.compile(
    r"\[[ \n]*+-?+[0-9]++(?:\.[0-9]++)?+(?:,[ \n]*+-?+[0-9]++(?:\.[0-9]++)?+)*+[ \n]*+\]"
)
# The start of a number, such as `12.5e-`, followed only by a closing fence.
_CUT_NUMBER = re.compile(r"[-+]?+[0-9.]*+(?:[eE][-+]?+)?+\s*+(?:\Z|```)")
_WORD = re.compile(r"[^\W\d][^\n,，:：{}\[\]()\"“”<>#/`]*+")
_KEY_WORD = re.compile(r"[\w$][\w$\-]*+")
_LITERALS: dict[str, Node] = {
    "null": None,
    "none": None,
    "undefined": None,
    "true": True,
    "false": False,
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
}
# An unescaped quote ends a string only where JSON can continue; otherwise it is part of the text.
_AFTER_STRING = (
    r"(?:[ \t]*+\n\s*+[\"'“‘{\[]"
    r"|\s*+(?:[:：}\]]|\Z|//|/\*|\#|```|</"
    r"|[,，]\s*+(?:[\"'“”‘’{\[(}\]/\#\-+.0-9]|(?i:true|false|null|none|nan)\b"
    r"|[^\W\d]\w*+\s*+:|\Z)))"
)


def _string_pattern(opening: str, closing: str) -> re.Pattern[str]:
    inner = rf"(?:[^{closing}\\]++|\\.|[{closing}](?!{_AFTER_STRING}))*+"
    return re.compile(rf"[{opening}]({inner})[{closing}]", re.DOTALL)


_DOUBLE = _string_pattern('"', '"')
_SINGLE = _string_pattern("'", "'")
_CURLY_DOUBLE = _string_pattern("“”„", '“”"')
_CURLY_SINGLE = _string_pattern("‘’", "‘’'")
_STRINGS = {'"': _DOUBLE, "'": _SINGLE, "‘": _CURLY_SINGLE, "’": _CURLY_SINGLE}
_STRINGS |= dict.fromkeys("“”„", _CURLY_DOUBLE)
_CLOSERS = {"{": "}", "[": "]", "(": ")"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Reader:
    """Reads containers out of one text; all reads share one budget.

    Args:
        budget: JSON tokens that may be read.
    """

    def __init__(self, text: str, budget: int = BUDGET) -> None:
        self.text = text
        self.left = budget
        self._pos = 0
        self._keys: set[str] = set()
        self._done: list[Document] = []

    def read(self, start: int) -> Document | Broken:
        """Read the container that opens at `start`.

        Raises:
            OutOfBudgetError: when the reads of this text have cost too much.
        """
        self._pos = start
        self._keys = set()
        self._done = []
        self.spend(1)
        try:
            node = self._container(0)
        except _BrokenError:
            end = max(self._pos, start + 1)
            return Broken(start, end, frozenset(self._keys), tuple(self._done))
        return Document(node, start, self._pos, frozenset(self._keys))

    def spend(self, units: int) -> None:
        """Count work against the budget."""
        self.left -= units
        if self.left < 0:
            raise OutOfBudgetError

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Match at the position and move behind it; the cost grows with the length."""
        found = pattern.match(self.text, self._pos)
        if found:
            self.spend(1 + (found.end() - self._pos) // _CHARS_PER_UNIT)
            self._pos = found.end()
        return found

    def _at_end(self) -> bool:
        """Skip blanks and comments; whether the text ends here."""
        blank = _BLANK.match(self.text, self._pos)
        if blank and blank.end() > self._pos:
            self.spend((blank.end() - self._pos) // _CHARS_PER_UNIT)
            self._pos = blank.end()
        return self._pos >= len(self.text) or self.text.startswith(_ENDINGS, self._pos)

    def _take(self, characters: str) -> bool:
        if self.text[self._pos : self._pos + 1] not in characters:
            return False
        self._pos += 1
        return True

    def _container(self, depth: int) -> Array | Object:
        if depth >= MAX_DEPTH:
            raise _BrokenError
        self.spend(_CONTAINER_UNITS)
        start = self._pos
        opening = self.text[start]
        flat = opening == "[" and _FLAT_LIST.match(self.text, start)
        if flat:
            self.spend(self.text.count(",", start, flat.end()))
            numbers = _FLAT_NUMBER.finditer(self.text, start, flat.end())
            self._pos = flat.end()
            node: Array | Object = Array([float(number[0]) for number in numbers])
        else:
            self._pos += 1
            members, complete = self._members(_CLOSERS[opening], depth, keyed=opening == "{")
            if opening == "{":
                node = Object(dict(members), complete)
                repeats = len(members) > len(node.entries)
                if repeats and any(node.entries[name] != value for name, value in members):
                    raise _BrokenError  # a key with two values
            else:
                node = Array([value for _, value in members], complete)
        if node.complete and opening != "(":
            while self._done and self._done[-1].start > start:
                self._done.pop()
            self._done.append(Document(node, start, self._pos, frozenset()))
        return node

    def _members(
        self, closer: str, depth: int, *, keyed: bool
    ) -> tuple[list[tuple[str, Node]], bool]:
        """The (key, value) pairs up to the closing bracket, and whether there was one."""
        members: list[tuple[str, Node]] = []
        while not self._at_end():
            if self._take(closer):
                return members, True
            try:
                members.append((self._key() if keyed else "", self._value(depth)))
            except _EndError:
                break
            value = members[-1][1]
            if isinstance(value, Array | Object) and not value.complete:
                break
            if not self._at_end():
                self._take(",，")
        return members, False

    def _key(self) -> str:
        """A key and its colon, up to the value."""
        if self.text[self._pos] in _STRINGS:
            key = self._string()
        else:
            word = self._match(_KEY_WORD)
            if not word:
                raise _BrokenError
            key = word[0]
        if self._at_end():
            raise _EndError
        if not self._take(":："):
            raise _BrokenError
        if self._at_end():
            raise _EndError
        name = normalised(key)
        self._keys.add(name)
        return name

    def _value(self, depth: int) -> Node:
        first = self.text[self._pos]
        if first in "{[(":
            return self._container(depth + 1)
        if first in _STRINGS:
            return self._string()
        number = self._match(_NUMBER)
        if number:
            if self._pos == len(self.text):
                raise _EndError  # the next digit may be missing
            return float(number[0])
        if first in "-+.0123456789" and _CUT_NUMBER.match(self.text, self._pos):
            raise _EndError
        return self._word()

    def _word(self) -> Node:
        """A literal, or a bare word taken as a string."""
        word = self._match(_WORD)
        if not word:
            raise _BrokenError
        if self._pos == len(self.text):
            raise _EndError
        if self.text[self._pos] not in ",，}])\n#/`":
            raise _BrokenError
        bare = word[0].strip()
        return _LITERALS.get(bare.lower(), bare)

    def _string(self) -> str:
        found = self._match(_STRINGS[self.text[self._pos]])
        if not found:
            self.spend((len(self.text) - self._pos) // _CHARS_PER_UNIT)
            self._pos = len(self.text)
            raise _EndError
        return _unescape(found[1])


def _unescape(raw: str) -> str:
    """Resolve escapes; surrogate pairs become one character, unpaired surrogates U+FFFD."""
    if "\\" in raw:
        raw = _ESCAPE.sub(_character, raw)
    if raw.isascii():
        return raw
    return raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _character(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) == 5:
        return chr(int(escape[1:], 16))
    return _ESCAPES.get(escape, escape)
