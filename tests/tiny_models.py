"""Folders of real classes with small random weights, laid out as the hub lays them out.

Every function writes one folder that `from_pretrained` reads and returns it. Seeded, so that two
calls write the same model. A tiny vocabulary: single bytes and each family's special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MBartConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for p in m.content -%}"
    "{{ '$IMAGE' if p.type == 'image' else p.text }}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
LAST_USER_TEXT = (
    "{%- set asked = (messages | selectattr('role', 'equalto', 'user') | list)[-1]['content'] -%}"
    "{%- if asked is string -%}{{ asked }}{%- else -%}"
    "{%- for part in asked -%}{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def tiny_tokenizer(
    special: Sequence[str], template: str, **options: Any
) -> PreTrainedTokenizerFast:
    """Byte-level: one token a byte, then the special tokens, in order, from id 256 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    options = {"clean_up_tokenization_spaces": False, "chat_template": template, **options}
    return PreTrainedTokenizerFast(tokenizer_object=core, **options)


def tiny_qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL as on the hub: a torchvision image processor's name, a video processor's file."""
    tokenizer, ids = _qwen_tokenizer()
    config = Qwen3VLConfig(
        text_config={**_QWEN_TEXT, "head_dim": 16, "rope_parameters": _rope([4, 2, 2])},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "patch_size": 16, "out_hidden_size": 64, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **ids,
    )  # fmt: skip
    model = _seeded(Qwen3VLForConditionalGeneration, config)
    return _save_qwen(folder, model, tokenizer, "Qwen3VLProcessor", patch=16)


def tiny_qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL, the same way."""
    tokenizer, ids = _qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={**_QWEN_TEXT, "rope_parameters": _rope([4, 2, 2])},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "patch_size": 14, "out_hidden_size": 64, "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        **ids,
    )  # fmt: skip
    model = _seeded(Qwen2_5_VLForConditionalGeneration, config)
    return _save_qwen(folder, model, tokenizer, "Qwen2_5_VLProcessor", patch=14)


def tiny_llava(folder: Path) -> Path:
    """LLaVA: an image-only processor; its chat template lies with the tokenizer."""
    tokens = ("<s>", "</s>", "<pad>", "<image>", "<|im_start|>", "<|im_end|>")
    tokenizer = tiny_tokenizer(
        tokens, CHATML.replace("$IMAGE", "<image>\n"),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=256, eos_token_id=257,
        pad_token_id=258,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=32,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=259)
    _seeded(LlavaForConditionalGeneration, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _image_size(28).save_pretrained(folder)
    settings = {
        "processor_class": "LlavaProcessor", "image_token": "<image>", "patch_size": 14,
        "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
    }  # fmt: skip
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


def tiny_florence2(folder: Path, *, width: int = 32, size: int = 72, layers: int = 1) -> Path:
    """Florence-2: encoder-decoder, no image token in the template, the prompt is the last question.

    Args:
        width: of the language model.
        size: side of the square image, a multiple of 24; it becomes (size / 24)² + 1 tokens.
    """
    tokenizer = tiny_tokenizer(
        ("<pad>", "<s>", "</s>", "<image>"), LAST_USER_TEXT,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    cells = size // 24
    vision = Florence2VisionConfig(
        depths=[1, 1, 1], patch_size=[8, 3, 3], patch_stride=[6, 2, 2], patch_padding=[1, 1, 1],
        patch_prenorm=[False, True, True], embed_dim=[16, 32, width], num_heads=[2, 4, 4],
        num_groups=[2, 4, 4], window_size=4, drop_path_rate=0.0, projection_dim=width,
        max_position_embeddings=cells, max_temporal_embeddings=1,
    )  # fmt: skip
    special = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
    special["decoder_start_token_id"] = 258
    text = MBartConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=3 * width,
        decoder_ffn_dim=3 * width, max_position_embeddings=512, forced_eos_token_id=None,
        init_std=0.3, **special,
    )  # fmt: skip
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=259, **special)
    model = _seeded(Florence2ForConditionalGeneration, config)
    model.generation_config = GenerationConfig(**special)
    model.to(torch.bfloat16).save_pretrained(folder)
    image_processor = _image_size(size)
    image_processor.image_seq_length = 1 + cells * cells
    Florence2Processor(image_processor, tokenizer).save_pretrained(folder)
    return folder


_QWEN_TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 256 + len(QWEN_TOKENS), "tie_word_embeddings": True,
    "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 256,
}  # fmt: skip


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": sections, "rope_theta": 10000.0}


def _qwen_tokenizer() -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    tokenizer = tiny_tokenizer(
        QWEN_TOKENS, CHATML.replace("$IMAGE", QWEN_IMAGE),
        eos_token="<|im_end|>", pad_token="<|endoftext|>",
    )  # fmt: skip
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return tokenizer, dict(zip(names, range(259, 263), strict=True))


def _save_qwen(folder: Path, model: Any, tokenizer: Any, processor: str, *, patch: int) -> Path:
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=2, size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    )
    images.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    # What the hub's folders say; only a torchvision build has the classes.
    named = {"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": processor}
    path.write_text(json.dumps({**settings, **named}))
    video = {
        **settings,
        "video_processor_type": "Qwen2VLVideoProcessor",
        "processor_class": processor,
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    return folder


def _image_size(side: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        do_resize=True, size={"height": side, "width": side}, resample=Image.Resampling.BILINEAR,
        do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip


def _seeded(model: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(config).eval()
