"""Keeps what a local model computed for the beginning of a conversation, for the next one.

Rounds of verification, repeated questions and closer looks begin with the same text and image:
their keys and values need not be computed again. Only classes that place image tokens by
`image_grid_thw`, as the Qwen-VLs do, are supported, with caches that can be cut at any token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rsvp.mllm import sparse

if TYPE_CHECKING:
    import torch

MIN_TOKENS = 64  # fewer are not worth it


class _Image(NamedTuple):
    """An image's rows of patches, and which of its tokens are kept."""

    patches: torch.Tensor
    kept: torch.Tensor


@dataclass(slots=True)
class _Kept:
    """What is kept of the last call: its tokens with those it wrote, its images, its cache."""

    ids: list[int]
    images: list[_Image]
    cache: Any


class PrefixCache:
    """The keys and values of the last conversation of one model.

    Attributes:
        reused: how many tokens the last call did not compute again.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self.reused = 0

    def generate(
        self, model: Any, inputs: Any, keep: torch.Tensor | None = None, **options: Any
    ) -> torch.Tensor:
        """`model.generate` of one sequence; the same tokens, but for rounding.

        Args:
            keep: see `rsvp.mllm.sparse.kept_tokens`.
        """
        kept, self._kept, self.reused = self._kept, None, 0
        if not sparse.places_by_grid(model, inputs):
            return generate_plain(model, inputs, keep, **options)
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        images, names = _images(model, inputs, keep), ("input_ids", "mm_token_type_ids")
        rows = [inputs[name][0] if keep is None else inputs[name][0, keep] for name in names]
        ids, types = (row.tolist() for row in rows)
        reused = _common(kept, ids, images, types) if kept else 0
        cache, seen = DynamicCache(config=model.config), 0
        if kept and reused >= MIN_TOKENS:
            cache = kept.cache
            cache.crop(reused - cache.get_seq_length())
            self.reused, seen = reused, _runs(types[:reused])
        arguments = dict(inputs)
        if keep is not None:
            arguments = sparse.shortened(model, inputs, keep, seen)
        elif self.reused:
            # The positions of all tokens, and the pixels of those images that are new.
            arguments["position_ids"] = model._prepare_position_ids_for_generation(
                inputs["input_ids"], arguments
            )
            arguments["image_grid_thw"] = inputs["image_grid_thw"][seen:]
            first = sum(len(image.patches) for image in images[:seen])
            arguments["pixel_values"] = inputs["pixel_values"][first:]
            if seen == len(images):
                del arguments["image_grid_thw"], arguments["pixel_values"]
        kept = None  # before the new one grows
        found: torch.Tensor = model.generate(**arguments, past_key_values=cache, **options)
        if all(type(layer) is DynamicLayer for layer in cache.layers):
            length = cache.get_seq_length()
            self._kept = _Kept(found[0, :length].tolist(), images, cache)
        return found


def generate_plain(
    model: Any, inputs: Any, keep: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """`model.generate` without a cache of before; see `PrefixCache.generate`."""
    arguments = inputs if keep is None else sparse.shortened(model, inputs, keep)
    found: torch.Tensor = model.generate(**arguments, **options)
    return found


def _images(model: Any, inputs: Any, keep: torch.Tensor | None) -> list[_Image]:
    is_image = inputs["mm_token_type_ids"][0] == 1
    kept = is_image[is_image] if keep is None else keep[is_image]
    patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
    return list(map(_Image, patches, kept.split(sparse.image_tokens(model, inputs))))


def _common(kept: _Kept, ids: list[int], images: list[_Image], types: list[int]) -> int:
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


def _equal(first: list[_Image], second: list[_Image], index: int) -> bool:
    pairs = zip(first[index], second[index], strict=True)
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in pairs)


def _runs(types: list[int]) -> int:
    """How many images there are among the tokens."""
    return sum(1 for i, kind in enumerate(types) if kind and (i == 0 or not types[i - 1]))
