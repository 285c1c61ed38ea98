"""Keeps what a local model computed for the beginning of a conversation, for the next one.

Rounds of verification, repeated questions and closer looks begin with the same text and image:
their keys and values need not be computed again. Only classes that place image tokens by
`image_grid_thw`, as the Qwen-VLs do, are supported, with caches that can be cut at any token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MIN_TOKENS = 64  # fewer are not worth it
_INPUTS = {"input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids"}


@dataclass(slots=True)
class _Kept:
    """What is kept of the last call: its tokens with those it wrote, its images, its cache."""

    ids: list[int]
    images: list[torch.Tensor]
    cache: Any


class PrefixCache:
    """The keys and values of the last conversation of one model.

    Attributes:
        reused: how many tokens the last call did not compute again.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self.reused = 0

    def generate(self, model: Any, inputs: Any, **options: Any) -> torch.Tensor:
        """`model.generate` of one sequence; the same tokens, but for rounding."""
        kept, self._kept, self.reused = self._kept, None, 0
        if not _is_supported(model, inputs):
            found: torch.Tensor = model.generate(**inputs, **options)
            return found
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        ids, images = inputs["input_ids"][0].tolist(), _images(inputs)
        types = inputs["mm_token_type_ids"][0].tolist()
        reused = _common(kept, ids, images, types) if kept else 0
        arguments, cache = dict(inputs), DynamicCache(config=model.config)
        if kept and reused >= MIN_TOKENS:
            cache = kept.cache
            cache.crop(reused - cache.get_seq_length())
            self.reused = reused
            # The positions of all tokens, and the pixels of those images that are new.
            arguments["position_ids"] = model._prepare_position_ids_for_generation(
                inputs["input_ids"], arguments
            )
            seen = _runs(types[:reused])
            arguments["image_grid_thw"] = inputs["image_grid_thw"][seen:]
            rows = sum(len(image) for image in images[:seen])
            arguments["pixel_values"] = inputs["pixel_values"][rows:]
            if seen == len(images):
                del arguments["image_grid_thw"], arguments["pixel_values"]
        kept = None  # before the new one grows
        found = model.generate(**arguments, past_key_values=cache, **options)
        if all(type(layer) is DynamicLayer for layer in cache.layers):
            length = cache.get_seq_length()
            self._kept = _Kept(found[0, :length].tolist(), images, cache)
        return found


def _is_supported(model: Any, inputs: Any) -> bool:
    positioned = hasattr(getattr(model, "model", None), "get_rope_index")
    return positioned and set(inputs) == _INPUTS and len(inputs["input_ids"]) == 1


def _images(inputs: Any) -> list[torch.Tensor]:
    """The rows of patches of each image."""
    return list(inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist()))


def _common(kept: _Kept, ids: list[int], images: list[torch.Tensor], types: list[int]) -> int:
    """How many tokens begin both conversations; whole images of the same pixels alone.

    The last token is always computed again: it gives the first one of the reply.
    """
    pairs = zip(kept.ids, ids, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(kept.ids), len(ids)))
    same = min(same, len(ids) - 1, int(kept.cache.get_seq_length()))
    image = -1
    for i in range(same):
        if types[i] and (i == 0 or not types[i - 1]):
            image += 1
            end = next((k for k in range(i, len(types)) if not types[k]), len(types))
            if end > same or image >= len(kept.images) or not _equal(kept.images, images, image):
                return i
    return same


def _equal(first: list[torch.Tensor], second: list[torch.Tensor], index: int) -> bool:
    a, b = first[index], second[index]
    return a.shape == b.shape and bool((a == b).all())


def _runs(types: list[int]) -> int:
    """How many images there are among the tokens."""
    return sum(1 for i, kind in enumerate(types) if kind and (i == 0 or not types[i - 1]))
