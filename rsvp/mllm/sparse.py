"""Sparse images: of an image in a conversation, the tokens of the patches that a mask touches.

The vision network encodes the whole image. The other tokens are dropped before the language model,
and the rest, with all text, keep the position ids that they have in the whole conversation. After
Y. Wei et al., Segmentation before Answering (SegAnswer), section 3.2, without its training. Only
classes that place image tokens by `image_grid_thw`, as the Qwen-VLs and GLM-4.1V do, are supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rsvp.masks import touched_cells
from rsvp.types import Message

if TYPE_CHECKING:
    import torch

_INPUTS = {"input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids"}


def places_by_grid(model: Any, inputs: Any = None) -> bool:
    """Whether the model places image tokens by `image_grid_thw`, and these inputs hold images."""
    positioned = hasattr(getattr(model, "model", None), "get_rope_index")
    usual = inputs is None or (set(inputs) == _INPUTS and len(inputs["input_ids"]) == 1)
    return positioned and usual


def is_supported(model: Any) -> bool:
    """Whether `shortened` works for the model's class."""
    takes_features = getattr(model, "_supports_mm_encoder_outputs", None)
    return places_by_grid(model) and callable(takes_features) and bool(takes_features())


def kept_tokens(messages: Sequence[Message], model: Any, inputs: Any) -> torch.Tensor | None:
    """(L,) bool, which of the prompt's L tokens are kept; None where all are.

    Args:
        inputs: of the whole conversation, batch of one.
    """
    if all(message.kept is None for message in messages):
        return None
    import torch

    merge = model.config.vision_config.spatial_merge_size
    grids = iter((inputs["image_grid_thw"][:, 1:] // merge).tolist())
    cells = []
    for message in messages:
        images = sum(not isinstance(part, str) for part in message.parts)
        cells += [torch.ones(next(grids), dtype=torch.bool) for _ in range(images)]
        if message.kept is not None:
            rows, columns = cells[-1].shape
            cells[-1] = torch.from_numpy(touched_cells(message.kept, rows, columns))
    is_image = inputs["mm_token_type_ids"][0] == 1
    keep = torch.ones_like(is_image)
    keep[is_image] = torch.cat([one.flatten() for one in cells]).to(keep.device)
    return keep


def shortened(model: Any, inputs: Any, keep: torch.Tensor, seen: int = 0) -> dict[str, Any]:
    """The arguments of `generate` without the tokens that are not kept.

    Args:
        inputs: of the whole conversation, batch of one.
        keep: (L,) bool, of all of its tokens.
        seen: so many images, from the first, are in the cache and are not encoded.
    """
    ids = inputs["input_ids"][:, keep]
    # Row 0 counts the tokens; the others are time, height and width.
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    positions = positions[:, :, keep]
    positions[0] = positions.new_tensor(range(ids.shape[1]))
    found: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": inputs["attention_mask"][:, keep],
        "position_ids": positions,
    }
    grids = inputs["image_grid_thw"]
    sizes, counts = grids.prod(-1).tolist(), image_tokens(model, inputs)
    if seen < len(sizes):
        images: Any = keep[inputs["mm_token_type_ids"][0] == 1]
        kept = images.split(counts)[seen:]
        encoded = model.model.get_image_features(
            inputs["pixel_values"][sum(sizes[:seen]) :], grids[seen:], return_dict=True
        )
        encoded.pooler_output = _rows(encoded.pooler_output, kept)
        if layers := getattr(encoded, "deepstack_features", None):
            encoded.deepstack_features = [_rows(layer, kept) for layer in layers]
        found["mm_encoder_outputs"] = {"image": encoded}
    return found


def image_tokens(model: Any, inputs: Any) -> list[int]:
    """How many tokens each image of the inputs has."""
    merge = model.config.vision_config.spatial_merge_size
    return [size // merge**2 for size in inputs["image_grid_thw"].prod(-1).tolist()]


def _rows(features: Sequence[torch.Tensor], kept: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [one[rows.to(one.device)] for one, rows in zip(features, kept, strict=True)]
