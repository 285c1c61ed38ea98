"""The reasoner's architecture, a small Florence2 of transformers, and its export.

A bidirectional encoder reads the image and the prompt, a decoder writes the reply.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
    MBartConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

from recipes.embedded.loop import save_bf16
from rsvp.errors import BadInput

SIZE = 240  # side of the image that the reasoner sees, pixels
CELLS = 10  # image tokens a side
WIDTH = 256
IMAGE_TOKENS = 1 + CELLS * CELLS

# A dict of Any: Florence2Config takes them, but declares none of them.
SPECIAL_IDS: dict[str, Any] = {
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


def build_model(vocabulary: int, image_token: int) -> Florence2ForConditionalGeneration:
    """The architecture, with random weights."""
    vision = Florence2VisionConfig(
        depths=[1, 1, 3], patch_size=[8, 3, 3], patch_stride=[6, 2, 2], patch_padding=[1, 1, 1],
        patch_prenorm=[False, True, True], embed_dim=[64, 128, 256], num_heads=[2, 4, 8],
        num_groups=[2, 4, 8], window_size=10, drop_path_rate=0.0, projection_dim=WIDTH,
        max_position_embeddings=CELLS, max_temporal_embeddings=1,
    )  # fmt: skip
    text = MBartConfig(
        vocab_size=vocabulary, d_model=WIDTH, encoder_layers=3, decoder_layers=3,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=768,
        decoder_ffn_dim=768, max_position_embeddings=256, dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, scale_embedding=False, forced_eos_token_id=None, **SPECIAL_IDS,
    )  # fmt: skip
    config = Florence2Config(
        vision_config=vision, text_config=text, image_token_id=image_token, **SPECIAL_IDS
    )
    model = Florence2ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        **SPECIAL_IDS, num_beams=1, do_sample=False
    )
    return model


@torch.no_grad()
def load_model(folder: Path, vocabulary: int) -> tuple[Any, int]:
    """A trained model to fine-tune, with new rows for the tokens that its tokenizer has gained.

    The second value is how many rows it had.

    The token embeddings are frozen, because the VLSM was trained on them. The new rows are random,
    with the mean and spread of the others; the rest of the network learns to use them.

    Raises:
        BadInput: the folder holds no model of this architecture.
    """
    model: Any
    try:
        model = Florence2ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{folder} holds no reasoner to fine-tune: {error}") from error
    table = model.get_input_embeddings().weight
    mean, spread, known = table.mean(0), table.std(0), len(table)
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    table = model.get_input_embeddings().weight.requires_grad_(False)
    noise = torch.randn(vocabulary - known, WIDTH, generator=torch.Generator().manual_seed(0))
    table[known:] = mean + spread * noise
    return model, known


@torch.no_grad()
def order_numbers(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give neighbouring numbers neighbouring embeddings: sines along fixed directions."""
    table = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    waves = torch.tensor([0.5, 1, 2, 4, 8, 16])
    value = torch.arange(101)[:, None] / 100
    features = torch.cat([torch.sin(np.pi * value * waves), torch.cos(np.pi * value * waves)], 1)
    for end in (",", "]"):
        directions = torch.randn(features.shape[1], table.shape[1], generator=generator)
        ids = [tokenizer.convert_tokens_to_ids(f"{n}{end}") for n in range(101)]
        table[ids] += 0.02 * features @ directions


def export(
    model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, *, unwritten: Collection[int] = ()
) -> None:
    """Write the folder that `from_pretrained` reads: bf16 safetensors, processor, tokenizer.

    Args:
        unwritten: tokens that are never generated.
    """
    model.generation_config.suppress_tokens = sorted(unwritten) or None
    save_bf16(model, folder)
    image_processor: Any = CLIPImageProcessorPil(
        do_resize=True, size={"height": SIZE, "width": SIZE},
        resample=Image.Resampling.BILINEAR, do_center_crop=False,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    image_processor.image_seq_length = IMAGE_TOKENS
    Florence2Processor(image_processor, tokenizer).save_pretrained(folder)
