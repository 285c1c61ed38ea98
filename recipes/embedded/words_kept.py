"""A reasoner that has gained tokens serves the VLSM that was trained on the embeddings it had.

A VLSM refuses every text encoder but its own, by digest. Tokens added behind the others change the
digest and nothing that the VLSM reads: where the rows that it was trained on are all still there,
it is told the new digest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from rsvp.platform.pretrained import weights_digest
from rsvp.segmenters.text_encoder import TextEncoder

MOST_GAINED = 64  # tokens at the end of the table that may be new


def digest_of_first(n: int, encoder: TextEncoder) -> str:
    """The digest that a table of embeddings had when it held its first n tokens alone."""
    words = {text: row for text, row in encoder.tokenizer.get_vocab().items() if row < n}
    rows = cast(Tensor, encoder.net.weight)[:n]
    table = nn.Embedding(n, rows.shape[1], _weight=rows)
    return weights_digest(table, json.dumps(sorted(words.items())).encode())


def vouch(vlsm: Path, source: str) -> bool:
    """Let a VLSM's folder take the text encoder `source`, if what it was trained on is in it.

    Returns:
        Whether the two fit, as they were or with the new digest.
    """
    file = vlsm / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    trained_on = config["text_encoder"]["sha256"]
    encoder = TextEncoder(source)
    if trained_on == encoder.digest:
        return True
    size = len(cast(Tensor, encoder.net.weight))
    earlier = range(size - 1, max(0, size - MOST_GAINED), -1)
    if not any(digest_of_first(n, encoder) == trained_on for n in earlier):
        return False
    config["text_encoder"]["sha256"] = encoder.digest
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return True
