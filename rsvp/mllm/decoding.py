"""What `generate` is given beside its settings: it watches a reply being written, and bounds it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rsvp.mllm import tell_written

if TYPE_CHECKING:
    import torch

_ENDS = ('"', '"}', '",', "")  # a tokenizer may have one token for a value's end and what follows
_BEFORE = 24  # tokens in which a key, the colon and the quote are written


class EnumConstraint:
    """A logits processor: behind ``"key": "`` only the values in the schema's `enum` are likely.

    Values are read from the schema's own properties, not from nested ones. A reply that is no JSON,
    or has another type there, stays as it is, and so do values that the model cannot write.

    Args:
        start: the first of the reply's tokens in a sequence.
    """

    def __init__(self, tokenizer: Any, schema: Mapping[str, Any] | None, start: int) -> None:
        self._tokenizer, self._start = tokenizer, start
        self._paths: dict[str, list[list[int]]] = {}
        for key, one in (schema or {}).get("properties", {}).items():
            texts = [value for value in one.get("enum", ()) if isinstance(value, str)]
            if texts:
                self._paths[key] = [path for text in texts for path in self._tokens(text)]
        keys = "|".join(map(re.escape, self._paths)) or r"(?!)"
        self._opening = re.compile(rf'"({keys})"\s*:\s*"\Z')
        self._open: dict[int, tuple[list[list[int]], int]] = {}  # by row: paths, where they begin

    def _tokens(self, value: str) -> list[list[int]]:
        """The ways to write a value."""
        text = json.dumps(value, ensure_ascii=False)[1:-1]
        return [self._tokenizer.encode(text + end, add_special_tokens=False) for end in _ENDS]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._paths:
            return scores
        scores = scores.clone()
        for row, sequence in enumerate(ids[:, self._start :].tolist()):
            if allowed := self._allowed(row, sequence, scores[row]):
                kept = scores[row, allowed]
                scores[row] = -float("inf")
                scores[row, allowed] = kept
        return scores

    def _allowed(self, row: int, sequence: list[int], scores: torch.Tensor) -> list[int]:
        """The tokens that may follow; none where any may."""
        if row not in self._open:
            text = self._tokenizer.decode(sequence[-_BEFORE:], clean_up_tokenization_spaces=False)
            found = self._opening.search(text)
            if found is None:
                return []
            # A token that may never be written has no logit.
            paths = [p for p in self._paths[found[1]] if bool(scores[p].isfinite().all())]
            self._open[row] = paths, len(sequence)
        paths, begin = self._open[row]
        said = sequence[begin:]
        after = {p[len(said)] for p in paths if len(p) > len(said) and p[: len(said)] == said}
        if not after:
            del self._open[row]
        return sorted(after)


class Confidence:
    """A logits processor that records the probability of each step's likeliest tokens.

    Raises:
        ValueError: the network overflows; its choices would all be the same token.
    """

    def __init__(self) -> None:
        self._log_probs: list[list[float]] = []  # of each step, one a sequence

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        log_probs = (scores.max(-1).values - scores.logsumexp(-1)).tolist()
        if not all(map(math.isfinite, log_probs)):
            used = str(scores.dtype).removeprefix("torch.")
            raise ValueError(
                f"its logits are not finite ({used} weights or activations overflow); use another "
                "number type: --option dtype=float32, or bfloat16 where the device has it"
            )
        self._log_probs.append(log_probs)
        return scores

    def mean(self, row: int, count: int) -> float:
        """Mean probability of the first `count` choices of a sequence; 0 when there were none."""
        probabilities = [math.exp(step[row]) for step in self._log_probs[:count]]
        return sum(probabilities) / len(probabilities) if probabilities else 0.0


class Streamer:
    """What `generate` gives the tokens of one reply to; see `rsvp.mllm.tell_written`.

    Args:
        decode: token ids to the text of a reply.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] | None = None  # None before the prompt, which comes first

    def put(self, ids: torch.Tensor) -> None:
        """The prompt's ids, then the id of each token."""
        if self._ids is None:
            self._ids = written = []
        else:
            written = self._ids
            written += ids.flatten().tolist()
            tell_written(lambda: self._decode(written))

    def end(self) -> None:
        """Nothing is left to do."""
