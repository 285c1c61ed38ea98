"""Holds a local model to the values that a reply's JSON schema allows for a text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_ENDS = ('"', '"}', '",', "")  # a tokenizer may have one token for a value's end and what follows
_BEFORE = 24  # tokens in which a key, the colon and the quote are written


class EnumConstraint:
    """A logits processor: behind ``"key": "`` only the values in the schema's `enum` are likely.

    Values are read from the schema's own properties, not from nested ones. A reply that is no JSON,
    or has another type there, stays as it is.

    Args:
        start: the first of the reply's tokens in a sequence.
        suppressed: tokens that the model never writes.
    """

    def __init__(
        self,
        tokenizer: Any,
        schema: Mapping[str, Any] | None,
        start: int,
        suppressed: Sequence[int] = (),
    ) -> None:
        self._tokenizer, self._start = tokenizer, start
        self._paths: dict[str, list[list[int]]] = {}
        for key, one in (schema or {}).get("properties", {}).items():
            texts = [v for v in one.get("enum", ()) if isinstance(v, str)]
            paths = [path for text in texts for path in self._tokens(text)]
            if usable := [path for path in paths if not set(path) & set(suppressed)]:
                self._paths[key] = usable
        keys = "|".join(map(re.escape, self._paths)) or r"(?!)"
        self._opening = re.compile(rf'"({keys})"\s*:\s*"\Z')
        self._open: dict[int, tuple[str, int]] = {}  # by row: the key, where its value begins

    def _tokens(self, value: str) -> list[list[int]]:
        """The ways to write a value."""
        text = json.dumps(value, ensure_ascii=False)[1:-1]
        return [self._tokenizer.encode(text + end, add_special_tokens=False) for end in _ENDS]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._paths:
            return scores
        scores = scores.clone()
        for row, sequence in enumerate(ids[:, self._start :].tolist()):
            if allowed := self._allowed(row, sequence):
                kept = scores[row, allowed]
                scores[row] = -float("inf")
                scores[row, allowed] = kept
        return scores

    def _allowed(self, row: int, sequence: Sequence[int]) -> list[int]:
        """The tokens that may follow; none where any may."""
        if row not in self._open:
            text = self._tokenizer.decode(sequence[-_BEFORE:], clean_up_tokenization_spaces=False)
            found = self._opening.search(text)
            if found is None:
                return []
            self._open[row] = found[1], len(sequence)
        key, begin = self._open[row]
        said = list(sequence[begin:])
        after = {
            p[len(said)] for p in self._paths[key] if len(p) > len(said) and p[: len(said)] == said
        }
        if not after:
            del self._open[row]
        return sorted(after)
