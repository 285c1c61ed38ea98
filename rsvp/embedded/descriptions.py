"""Ordinary English for the things of the scenes: `world/descriptions.toml`, written by hand, and
`world/wordnet.toml`, synonyms, kinds and definitions from WordNet.

A description is a noun that replaces the name ("puppy"), a noun phrase ("animal that barks") or a
complete question ("what would fetch a stick?"). It fits one name of the vocabulary, or the names
that it lists, and no other.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from rsvp.embedded.vocabulary import FOLDER, categories

Form = Literal["nouns", "phrases", "questions"]
FORMS: tuple[Form, ...] = get_args(Form)
WRITTEN, WORDNET = "descriptions.toml", "wordnet.toml"  # in FOLDER
HELD_OUT = 5  # one description in five is never trained on


@dataclass(frozen=True, slots=True)
class Description:
    """A way to ask for things.

    Attributes:
        form: "nouns" and "phrases" read after an article, "questions" alone.
        categories: the vocabulary indices that it fits.
    """

    text: str
    form: Form
    categories: frozenset[int]

    @property
    def unseen(self) -> bool:
        return zlib.crc32(self.text.encode()) % HELD_OUT == 0


@cache
def descriptions() -> tuple[Description, ...]:
    return (*read(WRITTEN), *read(WORDNET))


def read(file: str) -> tuple[Description, ...]:
    """The descriptions of a file: those of each name, then those that several names share."""
    tables = tomllib.loads((FOLDER / file).read_text(encoding="utf-8"))
    index = {c.name: c.index for c in categories()}
    shared = tables.pop("shared", [])
    found = [d for name, table in tables.items() for d in _read(table, [index[name]])]
    found += [d for table in shared for d in _read(table, [index[n] for n in table["names"]])]
    return tuple(found)


def _read(table: Mapping[str, Any], indices: Iterable[int]) -> list[Description]:
    fitting = frozenset(indices)
    return [Description(text, form, fitting) for form in FORMS for text in table.get(form, ())]


@cache
def of_category(form: Form, *, unseen: bool) -> tuple[tuple[str, ...], ...]:
    """For each category the texts of a form that fit it alone."""
    found: list[list[str]] = [[] for _ in categories()]
    for d in descriptions():
        if d.form == form and d.unseen == unseen and len(d.categories) == 1:
            found[next(iter(d.categories))].append(d.text)
    return tuple(map(tuple, found))


@cache
def shared(form: Form, *, unseen: bool) -> Mapping[str, frozenset[int]]:
    """The texts of a form that several categories share -> these categories."""
    return {
        d.text: d.categories
        for d in descriptions()
        if d.form == form and d.unseen == unseen and len(d.categories) > 1
    }
