"""Texts without an image, and the things that they mean: they teach the words many times faster
than scenes can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipes.embedded.model import IMAGE_TOKENS
from rsvp.embedded import descriptions
from rsvp.embedded.drafts import choice
from rsvp.embedded.vocabulary import categories, keywords, uses
from rsvp.embedded.wording import Wording
from rsvp.lexicon import Lexicon
from rsvp.prompting import render as render_prompt

Rng = np.random.Generator

SHARES = {"own": 0.62, "name": 0.1, "shared": 0.16, "keyword": 0.06, "use": 0.06}
DROPPED = 0.15  # of the small words, as second-language speakers leave them out
SMALL_WORDS = frozenset(
    {"that", "which", "of", "you", "with", "would", "is", "it", "one", "to", "do", "can", "for"}
)
NATURAL = Wording(natural=True)
PROMPTS = [
    f"compact/{strategy}.{form}"
    for strategy in ("boxes", "grid", "points", "marks")
    for form in ("cot", "direct")
]


class Text(NamedTuple):
    """A prompt with a query, and the vocabulary indices of what the query means."""

    prompt: str
    categories: frozenset[int]


def sample_text(rng: Rng, lexicon: Lexicon) -> Text:
    """A query in natural wording about one thing or several."""
    while True:
        query, fits = _sample_query(rng)
        if text := lexicon.read(query).text:
            form = choice(PROMPTS, rng)
            return Text(render_prompt(form, query=drop_words(text, rng)), fits)


def _sample_query(rng: Rng) -> tuple[str, frozenset[int]]:
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind == "shared":
        form = choice(descriptions.FORMS, rng)
        found = list(descriptions.shared(form, unseen=False).items())
        text, fits = choice(found, rng)
        return _worded(form, text, rng), fits
    if kind in ("keyword", "use"):
        tables = {
            "keyword": keywords(),
            "use": uses(),
            "use without with": uses("uses_without_with"),
        }
        topic = kind
        if kind == "use":
            topic = choice(("use", "use without with"), rng)
        text, fits = choice(list(tables[topic].items()), rng)
        return NATURAL.text(topic, rng, text), fits
    index = int(rng.integers(len(categories())))
    form = choice(descriptions.FORMS, rng)
    texts = descriptions.of_category(form, unseen=False)[index]
    fits = frozenset([index])
    if kind == "name" or not texts:
        return NATURAL.text("name", rng, categories()[index].name), fits
    return _worded(form, choice(texts, rng), rng), fits


def _worded(form: str, text: str, rng: Rng) -> str:
    kind = "described by a question" if form == "questions" else choice(("described", "name"), rng)
    return NATURAL.text(kind, rng, text)


def drop_words(text: str, rng: Rng) -> str:
    """The text, now and then without some of its small words."""
    words = text.split()
    kept = [w for w in words if w not in SMALL_WORDS or rng.random() >= DROPPED]
    return " ".join(kept) or text


def text_states(model: Any, prompts: tuple[Tensor, Tensor]) -> Tensor:
    """(n, width) encoder states at the end of prompts that are read without an image.

    The texts keep the positions that they have after an image.

    Args:
        prompts: ids and attention mask, each (n, length).
    """
    ids, mask = prompts
    encoder = model.model.language_model.encoder
    places = torch.arange(ids.shape[1], device=ids.device) + encoder.embed_positions.offset
    table = encoder.embed_positions.weight
    shift = table[places + IMAGE_TOKENS] - table[places]
    embeds = model.get_input_embeddings()(ids) + shift
    states: Tensor = encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    last = mask.sum(1) - 1
    return states[torch.arange(len(ids)), last]


def meaning_loss(logits: Tensor, meanings: Sequence[frozenset[int]]) -> Tensor:
    """Cross-entropy with the meanings, equally likely each.

    Args:
        logits: (n, categories).
    """
    wanted = torch.zeros_like(logits)
    for row, fits in enumerate(meanings):
        wanted[row, list(fits)] = 1 / len(fits)
    return -(wanted * logits.log_softmax(-1)).sum(-1).mean()
