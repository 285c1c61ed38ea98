"""The table of local families: what the files of each one's repository say, in tiny sizes.

See `family_folders.LocalFamily` for the columns.
"""

from __future__ import annotations

from typing import Any

from family_folders import Json, LocalFamily, chatml, turns
from tiny_models import QWEN_TOKENS

# ------------------------------------------------------------ parts that rows share

_LM: Json = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": "vocab",
    "max_position_embeddings": 8192, "pad_token_id": 257, "bos_token_id": 257,
    "eos_token_id": 256, "tie_word_embeddings": True,
}  # fmt: skip
_ENCODER: Json = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
_QWEN = (
    "<|im_end|>",
    "<|endoftext|>",
    *(t for t in QWEN_TOKENS if "im_end" not in t and "endof" not in t),
)
_BOXES = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
_QWEN_ANSWER = "<|object_ref_start|>cup<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>"
_QWEN_IDS: Json = {
    "image_token_id": "id:<|image_pad|>", "video_token_id": "id:<|video_pad|>",
    "vision_start_token_id": "id:<|vision_start|>", "vision_end_token_id": "id:<|vision_end|>",
}  # fmt: skip
_MEAN: Json = {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.27, 0.26, 0.28]}
_PIXELS: Json = {"size": {"shortest_edge": 3136, "longest_edge": 12544}}


def _qwen_files(processor: str, images: str, patch: int, **size: Any) -> dict[str, Json]:
    settings = {
        **_MEAN, **size, "patch_size": patch, "temporal_patch_size": 2, "merge_size": 2,
        "processor_class": processor,
    }  # fmt: skip
    return {
        "preprocessor_config.json": {**settings, "image_processor_type": images},
        "video_preprocessor_config.json": {
            **settings, "video_processor_type": "Qwen2VLVideoProcessor"
        },
    }  # fmt: skip


def _qwen_vision(patch: int, **more: Any) -> Json:
    return {
        "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "in_channels": 3,
        "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "out_hidden_size": 32, **more,
    }  # fmt: skip


def _mrope(*sections: int, **more: Any) -> Json:
    return {"rope_type": "default", "mrope_section": list(sections), "rope_theta": 1e4, **more}


_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN2_5_VL: Json = {
    **_LM, **_QWEN_IDS, "model_type": "qwen2_5_vl",  # all at the top, as in the repository
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "rope_theta": 1e6,
    "vision_config": _qwen_vision(14, fullatt_block_indexes=[0], window_size=56),
}  # fmt: skip
_SIGLIP: Json = {
    **_ENCODER, "image_size": 56, "patch_size": 14, "model_type": "siglip_vision_model",
    "vision_use_head": False,
}  # fmt: skip
_LLAMA: Json = {**_LM, "model_type": "llama"}
_QWEN2: Json = {**_LM, "model_type": "qwen2"}
_GLM = (
    "<|user|>", "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|assistant|>", "<|image|>",
    "<|video|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>",
    "<|end_of_video|>", "<|begin_of_box|>", "<|end_of_box|>", "<think>", "</think>",
)  # fmt: skip
_GLM_IDS: Json = {
    "image_token_id": "id:<|image|>", "video_token_id": "id:<|video|>",
    "image_start_token_id": "id:<|begin_of_image|>", "image_end_token_id": "id:<|end_of_image|>",
    "video_start_token_id": "id:<|begin_of_video|>", "video_end_token_id": "id:<|end_of_video|>",
}  # fmt: skip
_GLM_TEXT: Json = {
    **_LM, "model_type": "glm4v_text", "num_key_value_heads": 2,
    "rope_parameters": _mrope(1, 1, 2, partial_rotary_factor=0.5),
}  # fmt: skip
_GLM_VISION: Json = _qwen_vision(
    14, model_type="glm4v_vision", image_size=56, intermediate_size=32, hidden_size=32
)
_GLM_TEMPLATE = (
    "[gMASK]<sop>{%- for m in messages -%}{{ '<|' + m.role + '|>\n' }}"
    "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for p in m.content -%}"
    "{{ '<|begin_of_image|><|image|><|end_of_image|>' if p.type == 'image' else p.text }}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think></think>\n' }}"
    "{%- endif -%}{%- endif -%}"
)
_IDEFICS = (
    "<end_of_utterance>", "<|im_end|>", "<|im_start|>", "<image>", "<fake_token_around_image>",
    "<global-img>", *(f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)),
)  # fmt: skip
_IDEFICS_IMAGES: Json = {
    "image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 112},
    "max_image_size": {"longest_edge": 56}, "do_image_splitting": True,
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip
_IDEFICS_VISION: Json = {**_ENCODER, "image_size": 56, "patch_size": 14}

# ------------------------------------------------------------ the table

# fmt: off
FAMILIES: dict[str, LocalFamily] = {
    "Qwen2-VL": LocalFamily("Qwen/Qwen2-VL-2B-Instruct",
        {**_QWEN2_5_VL, "model_type": "qwen2_vl", "vision_config": {"depth": 1, "embed_dim": 16,
            "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2}},
        (*_QWEN, *_BOXES),
        chatml(_QWEN_IMAGE),
        "chat_template.json",
        _qwen_files("Qwen2VLProcessor", "Qwen2VLImageProcessor", 14, min_pixels=3136,
            max_pixels=12544),
        markup=_QWEN_ANSWER),
    "Qwen2.5-VL": LocalFamily("Qwen/Qwen2.5-VL-7B-Instruct",
        _QWEN2_5_VL,
        (*_QWEN, *_BOXES),
        chatml(_QWEN_IMAGE),
        "chat_template.json",
        _qwen_files("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", 14, min_pixels=3136,
            max_pixels=12544),
        markup=_QWEN_ANSWER,
        frame="resized-pixels"),
    # Nothing in the folder says how large an image may be: the class's own limit holds.
    "MiMo-VL": LocalFamily("XiaomiMiMo/MiMo-VL-7B-RL",
        _QWEN2_5_VL,
        (*_QWEN, *_BOXES),
        chatml(_QWEN_IMAGE),
        "chat_template.jinja",
        _qwen_files("Qwen2_5_VLProcessor", "Qwen2VLImageProcessorFast", 14),
        markup=_QWEN_ANSWER,
        frame="resized-pixels"),
    "Qwen2.5-Omni": LocalFamily("Qwen/Qwen2.5-Omni-7B",
        {"model_type": "qwen2_5_omni", "enable_audio_output": False,
            "thinker_config": {"model_type": "qwen2_5_omni_thinker", "text_config": {**_LM,
            "rope_parameters": _mrope(2, 3, 3)}, "vision_config": _qwen_vision(14,
            fullatt_block_indexes=[0], window_size=56), "audio_config": {"encoder_layers": 1,
            "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "d_model": 16, "output_dim": 32,
            "num_mel_bins": 8}, "image_token_index": "id:<|image_pad|>",
            "video_token_index": "id:<|video_pad|>", "audio_token_index": "id:<|AUDIO|>",
            "vision_start_token_id": "id:<|vision_start|>",
            "vision_end_token_id": "id:<|vision_end|>"}},
        (*_QWEN, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
        chatml(_QWEN_IMAGE),
        "chat_template.json",
        {"preprocessor_config.json": {**_MEAN, "min_pixels": 3136, "max_pixels": 12544,
            "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "feature_size": 8,
            "image_processor_type": "Qwen2VLImageProcessor",
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "Qwen2_5OmniProcessor"}},
        {"extra_special_tokens": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
            "audio_token": "<|AUDIO|>", "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>", "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>"}},
        frame="resized-pixels"),
    "Qwen3-VL": LocalFamily("Qwen/Qwen3-VL-2B-Instruct",
        {**_QWEN_IDS, "model_type": "qwen3_vl", "text_config": {**_LM,
            "model_type": "qwen3_vl_text", "rope_parameters": _mrope(4, 2, 2,
            mrope_interleaved=True)}, "vision_config": _qwen_vision(16, num_position_embeddings=16,
            deepstack_visual_indexes=[0])},
        (*_QWEN, *_BOXES),
        chatml(_QWEN_IMAGE),
        "chat_template.json",
        _qwen_files("Qwen3VLProcessor", "Qwen2VLImageProcessorFast", 16, **_PIXELS),
        markup='[{"bbox_2d": [10, 20, 30, 40], "label": "cup"}]'),
    "Qwen3.5": LocalFamily("Qwen/Qwen3.5-9B",
        {**_QWEN_IDS, "model_type": "qwen3_5", "text_config": {**_LM, "model_type": "qwen3_5_text",
            "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
            "linear_num_value_heads": 2, "rope_parameters": _mrope(2, 1, 1, mrope_interleaved=True,
            partial_rotary_factor=0.5)}, "vision_config": _qwen_vision(16,
            num_position_embeddings=16)},
        (*_QWEN, "<think>", "</think>"),
        chatml(_QWEN_IMAGE, "{%- if enable_thinking is defined and enable_thinking is false -%}"
            "{{ '<think>\n\n</think>\n\n' }}{%- else -%}{{ '<think>\n' }}{%- endif -%}"),
        "chat_template.jinja",
        _qwen_files("Qwen3VLProcessor", "Qwen2VLImageProcessorFast", 16, **_PIXELS),
        markup="A cup.</think>[10, 20, 30, 40]",
        thinking=(r"<think>\n\Z", r"</think>\n\n\Z")),
    "InternVL3": LocalFamily("OpenGVLab/InternVL3-1B-hf",
        {"model_type": "internvl", "text_config": _QWEN2, "image_seq_length": 4,
            "vision_config": {**_ENCODER, "model_type": "internvl_vision", "image_size": [56, 56],
            "patch_size": [14, 14]}, "image_token_id": "id:<IMG_CONTEXT>", "downsample_ratio": 0.5},
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>",
            "<video>", "<ref>", "</ref>", "<box>", "</box>"),
        chatml("<IMG_CONTEXT>\n"),
        "chat_template.jinja",
        {"processor_config.json": {"image_seq_length": 4, "processor_class": "InternVLProcessor"},
            "preprocessor_config.json": {**_MEAN, "crop_to_patches": True, "min_patches": 1,
            "max_patches": 4, "size": {"height": 56, "width": 56},
            "processor_class": "InternVLProcessor",
            "image_processor_type": "GotOcr2ImageProcessorFast"},
            "video_preprocessor_config.json": {"size": {"height": 56, "width": 56},
            "processor_class": "InternVLProcessor",
            "video_processor_type": "InternVLVideoProcessor"}},
        {"extra_special_tokens": {"start_image_token": "<img>", "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}},
        markup="<ref>cup</ref><box>[[10, 20, 30, 40]]</box>"),
    "LLaVA-OneVision": LocalFamily("llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        {"model_type": "llava_onevision", "text_config": _QWEN2, "vision_config": _SIGLIP,
            "image_token_index": "id:<image>", "video_token_index": "id:<video>",
            "image_grid_pinpoints": [[56, 56], [56, 112], [112, 56], [112, 112]],
            "vision_feature_layer": - 1, "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9"},
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<image>", "<video>"),
        chatml("<image>\n"),
        "chat_template.json",
        {"processor_config.json": {"num_image_tokens": 16, "vision_feature_select_strategy": "full",
            "processor_class": "LlavaOnevisionProcessor", "image_token": "<image>",
            "video_token": "<video>"},
            "preprocessor_config.json": {"image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": 56, "width": 56}, "image_mean": [0.5] *3, "image_std": [0.5] *3,
            "do_pad": True, "image_grid_pinpoints": [[56, 56], [56, 112], [112, 56], [112, 112]]}},
        frame="0-1"),
    "LLaVA-NeXT": LocalFamily("llava-hf/llava-v1.6-mistral-7b-hf",
        {"model_type": "llava_next", "text_config": {**_LM, "model_type": "mistral"},
            "vision_config": {**_ENCODER, "model_type": "clip_vision_model", "image_size": 56,
            "patch_size": 14, "projection_dim": 16}, "image_token_index": "id:<image>",
            "vision_feature_layer": - 1, "vision_feature_select_strategy": "default",
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]]},
        ("</s>", "<pad>", "<s>", "<image>"),
        turns("[INST] ", " [/INST]", " ", "<image>\n"),
        "chat_template.json",
        {"processor_config.json": {"patch_size": 14, "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1, "image_token": "<image>",
            "processor_class": "LlavaNextProcessor"}, "preprocessor_config.json": {**_MEAN,
            "image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 56},
            "crop_size": {"height": 56, "width": 56}, "image_grid_pinpoints": [[56, 112], [112, 56],
            [112, 112]]}},
        {"bos_token": "<s>"},
        frame="0-1"),
    "LLaVA-NeXT-Video": LocalFamily("llava-hf/LLaVA-NeXT-Video-7B-hf",
        {"model_type": "llava_next_video", "text_config": _LLAMA, "vision_config": {**_ENCODER,
            "model_type": "clip_vision_model", "image_size": 56, "patch_size": 14,
            "projection_dim": 16}, "image_token_index": "id:<image>",
            "video_token_index": "id:<video>", "vision_feature_layer": - 1,
            "vision_feature_select_strategy": "default", "image_grid_pinpoints": [[56, 112], [112,
            56], [112, 112]]},
        ("</s>", "<pad>", "<s>", "<image>", "<video>"),
        turns("USER: ", " ", "ASSISTANT: ", "<image>\n"),
        "processor_config.json",
        {"processor_config.json": {"patch_size": 14, "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1, "image_token": "<image>", "video_token": "<video>",
            "processor_class": "LlavaNextVideoProcessor"}, "preprocessor_config.json": {**_MEAN,
            "image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 56},
            "crop_size": {"height": 56, "width": 56}, "image_grid_pinpoints": [[56, 112], [112, 56],
            [112, 112]]}},
        {"bos_token": "<s>"},
        frame="0-1"),
    "Gemma 3": LocalFamily("google/gemma-3-4b-it",
        {"model_type": "gemma3", "text_config": {**_LM, "model_type": "gemma3_text"},
            "vision_config": _SIGLIP, "mm_tokens_per_image": 4,
            "boi_token_index": "id:<start_of_image>", "eoi_token_index": "id:<end_of_image>",
            "image_token_index": "id:<image_soft_token>"},
        ("<end_of_turn>", "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<start_of_image>",
            "<end_of_image>", "<image_soft_token>"),
        turns("<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>model\n",
            "<start_of_image>", before="{{ bos_token }}"),
        "chat_template.json",
        {"processor_config.json": {"image_seq_length": 4, "processor_class": "Gemma3Processor"},
            "preprocessor_config.json": {"image_processor_type": "Gemma3ImageProcessor",
            "image_mean": [0.5] *3, "image_std": [0.5] *3, "size": {"height": 56, "width": 56},
            "processor_class": "Gemma3Processor", "do_pan_and_scan": None}},
        {"bos_token": "<bos>", "extra_special_tokens": {"boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}},
        markup='[{"box_2d": [20, 10, 40, 30], "label": "cup"}]',
        frame="0-1000-yxyx"),
    "Gemma 4": LocalFamily("google/gemma-4-E4B-it",
        {"model_type": "gemma4", "text_config": {**_LM, "model_type": "gemma4_text",
            "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": "vocab"},
            "vision_config": {**_ENCODER, "model_type": "gemma4_vision", "num_key_value_heads": 2,
            "head_dim": 8, "patch_size": 16, "pooling_kernel_size": 3,
            "position_embedding_size": 128}, "audio_config": None, "boi_token_id": "id:<|image>",
            "eoi_token_id": "id:<image|>", "image_token_id": "id:<|image|>",
            "video_token_id": "id:<|video|>", "audio_token_id": "id:<|audio|>",
            "boa_token_id": "id:<|audio>"},
        ("<turn|>", "<pad>", "<eos>", "<bos>", "<|turn>", "<|image>", "<image|>", "<|image|>",
            "<|audio>", "<audio|>", "<|audio|>", "<|video|>", "<|channel>", "<channel|>",
            "<|think|>"),
        turns("<|turn>user\n", "<turn|>\n", "<|turn>model\n", "<|image|>",
            before="{{ bos_token }}{%- if enable_thinking is defined and enable_thinking -%}"
            "{{ '<|turn>system\n<|think|><turn|>\n' }}{%- endif -%}")
        + "{%- if add_generation_prompt and not enable_thinking | default(false) -%}"
        "{{ '<|channel>thought\n<channel|>' }}{%- endif -%}",
        "chat_template.jinja",
        {"processor_config.json": {"processor_class": "Gemma4Processor", "image_seq_length": 70,
            "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "patch_size": 16,
            "max_soft_tokens": 70, "pooling_kernel_size": 3, "image_seq_length": 70},
            "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
            "video_processor": {"video_processor_type": "Gemma4VideoProcessor"}}},
        {"bos_token": "<bos>", "extra_special_tokens": {"boi_token": "<|image>",
            "eoi_token": "<image|>", "image_token": "<|image|>", "audio_token": "<|audio|>",
            "boa_token": "<|audio>", "eoa_token": "<audio|>"}},
        markup="<|channel>thought\nA cup.<channel|>[20, 10, 40, 30]",
        thinking=(r"<\|think\|>", r"<\|channel>thought\n<channel\|>\Z"),
        frame="0-1000-yxyx"),
    "GLM-4.1V": LocalFamily("zai-org/GLM-4.1V-9B-Thinking",
        {**_GLM_IDS, "model_type": "glm4v", "text_config": _GLM_TEXT, "vision_config": _GLM_VISION},
        _GLM,
        _GLM_TEMPLATE,
        "chat_template.jinja",
        {"preprocessor_config.json": {**_MEAN, "image_processor_type": "Glm4vImageProcessor",
            "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            "processor_class": "Glm4vProcessor", "size": {"shortest_edge": 12544,
            "longest_edge": 25088}},
            "video_preprocessor_config.json": {"video_processor_type": "Glm4vVideoProcessor",
            "processor_class": "Glm4vProcessor"}},
        markup="A cup is here.</think><answer><|begin_of_box|>[10, 20, 30, 40]<|end_of_box|>"),
    "GLM-4.6V": LocalFamily("zai-org/GLM-4.6V-Flash",
        {**_GLM_IDS, "model_type": "glm46v", "text_config": _GLM_TEXT,
            "vision_config": _GLM_VISION},
        _GLM,
        _GLM_TEMPLATE,
        "chat_template.jinja",
        {"preprocessor_config.json": {**_MEAN, "image_processor_type": "Glm46VImageProcessor",
            "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            "processor_class": "Glm46VProcessor", "size": {"shortest_edge": 12544,
            "longest_edge": 25088}},
            "video_preprocessor_config.json": {"video_processor_type": "Glm46VVideoProcessor",
            "processor_class": "Glm46VProcessor"}},
        markup="<|begin_of_box|>[[10, 20, 30, 40]]<|end_of_box|>",
        thinking=(r"<\|assistant\|>\n\Z", r"<think></think>\n\Z")),
    "Idefics3": LocalFamily("HuggingFaceM4/Idefics3-8B-Llama3",
        {"model_type": "idefics3", "text_config": _LLAMA, "scale_factor": 2,
            "vision_config": _IDEFICS_VISION, "image_token_id": "id:<image>"},
        _IDEFICS,
        turns("User:", "<end_of_utterance>\n", "Assistant:", "<image>"),
        "processor_config.json",
        {"processor_config.json": {"image_seq_len": 4, "processor_class": "Idefics3Processor"},
            "preprocessor_config.json": {**_IDEFICS_IMAGES,
            "processor_class": "Idefics3Processor"}}),
    "SmolVLM2": LocalFamily("HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        {"model_type": "smolvlm", "text_config": _LLAMA, "scale_factor": 2,
            "vision_config": _IDEFICS_VISION, "image_token_id": "id:<image>"},
        _IDEFICS,
        turns("User:", "<end_of_utterance>\n", "Assistant:", "<image>"),
        "chat_template.json",
        {"processor_config.json": {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"},
            "preprocessor_config.json": {**_IDEFICS_IMAGES,
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor"}},
        needs="num2words"),
    "Mistral Small 3.1": LocalFamily("mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        {"model_type": "mistral3", "text_config": {**_LM, "model_type": "mistral"},
            "vision_config": {**_ENCODER, "model_type": "pixtral", "image_size": 112,
            "patch_size": 14, "head_dim": 8}, "image_token_index": "id:[IMG]",
            "spatial_merge_size": 2, "vision_feature_layer": - 1},
        ("</s>", "<pad>", "<s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        turns("[INST]", "[/INST]", "", "[IMG]", before="{{ bos_token }}"),
        "chat_template.json",
        {"processor_config.json": {"processor_class": "PixtralProcessor", "patch_size": 14,
            "spatial_merge_size": 2, "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]"}, "preprocessor_config.json": {**_MEAN,
            "image_processor_type": "PixtralImageProcessorFast", "patch_size": 14,
            "size": {"longest_edge": 112}, "processor_class": "PixtralProcessor"}},
        {"bos_token": "<s>"},
        needs="torchvision"),
    "Aya Vision": LocalFamily("CohereLabs/aya-vision-8b",
        {"model_type": "aya_vision", "text_config": {**_LM, "model_type": "cohere2",
            "layer_types": ["full_attention"]}, "vision_config": _SIGLIP, "downsample_factor": 2,
            "image_token_index": "id:<|IMG_PATCH|>", "vision_feature_layer": - 1},
        ("<|END_OF_TURN_TOKEN|>", "<PAD>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>",
            "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "<image>", "TILE_GLOBAL", *(f"TILE_{n}" for n in
            range(1, 5))),
        turns("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<image>", before="{{ bos_token }}"),
        "tokenizer_config.json",
        {"processor_config.json": {"processor_class": "AyaVisionProcessor", "patch_size": 14,
            "img_size": 56, "downsample_factor": 2},
            "preprocessor_config.json": {"image_processor_type": "GotOcr2ImageProcessor",
            "crop_to_patches": True, "min_patches": 1, "max_patches": 4, "size": {"height": 56,
            "width": 56}, "image_mean": [0.5] *3, "image_std": [0.5] *3,
            "processor_class": "AyaVisionProcessor"}},
        {"bos_token": "<BOS_TOKEN>"}),
    "DeepSeek-VL": LocalFamily("deepseek-community/deepseek-vl-1.3b-chat",
        {"model_type": "deepseek_vl", "text_config": _LLAMA, "vision_config": _SIGLIP,
            "image_token_id": "id:<image_placeholder>"},
        ("<|end_of_sentence|>", "<pad>", "<|begin_of_sentence|>", "<image_placeholder>"),
        turns("User: ", "\n\n", "Assistant: ", "<image_placeholder>", before="{{ bos_token }}"),
        "chat_template.jinja",
        {"processor_config.json": {"processor_class": "DeepseekVLProcessor",
            "num_image_tokens": 16},
            "preprocessor_config.json": {"image_processor_type": "DeepseekVLImageProcessorFast",
            "min_size": 14, "size": {"height": 56, "width": 56},
            "processor_class": "DeepseekVLProcessor"}},
        {"bos_token": "<|begin_of_sentence|>",
            "extra_special_tokens": {"image_token": "<image_placeholder>"}}),
    "Ovis2": LocalFamily("thisisiron/Ovis2-1B-hf",
        {"model_type": "ovis2", "text_config": _QWEN2, "hidden_size": 32, "vocab_size": "vocab",
            "vision_config": {**_ENCODER, "model_type": "ovis2_vision", "image_size": 56,
            "patch_size": 14, "vocab_size": 64, "hidden_stride": 2},
            "image_token_id": "id:<IMG_ATOM>", "visual_indicator_token_ids": ["id:<IMG_START>",
            "id:<IMG_GRID>", "id:<IMG_COL>", "id:<IMG_ROW>", "id:<IMG_END>"]},
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>",
            "<IMG_COL>", "<IMG_ROW>", "<IMG_END>", "<image>"),
        chatml("<image>\n"),
        "chat_template.jinja",
        {"processor_config.json": {"processor_class": "Ovis2Processor", "image_seq_length": 4},
            "preprocessor_config.json": {**_MEAN, "image_processor_type": "Ovis2ImageProcessorFast",
            "crop_to_patches": True, "min_patches": 1, "max_patches": 4, "size": {"height": 56,
            "width": 56}, "processor_class": "Ovis2Processor"}},
        frame="0-1"),
    "VideoLLaMA3": LocalFamily("lkhl/VideoLLaMA3-2B-Image-HF",
        {"model_type": "video_llama_3", "text_config": _QWEN2, "vision_config": {**_ENCODER,
            "model_type": "video_llama_3_vision", "patch_size": 14}, "image_token_id": "id:<image>",
            "video_token_id": "id:<video>"},
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<image>", "<video>"),
        chatml("<image>\n"),
        "chat_template.jinja",
        {"preprocessor_config.json": {"image_processor_type": "VideoLlama3ImageProcessorFast",
            "patch_size": 14, "temporal_patch_size": 1, "merge_size": 1, **_PIXELS,
            "image_mean": [0.5] *3, "image_std": [0.5] *3,
            "processor_class": "VideoLlama3Processor"}},
        {"extra_special_tokens": {"image_token": "<image>", "video_token": "<video>"}}),
    "MiniCPM-V 4.6": LocalFamily("openbmb/MiniCPM-V-4.6",
        {"model_type": "minicpmv4_6", "text_config": {**_LM, "model_type": "qwen3"},
            "vision_config": {**_ENCODER, "model_type": "minicpmv4_6_vision", "image_size": 112,
            "patch_size": 14, "insert_layer_id": 0, "num_hidden_layers": 2}, "insert_layer_id": 0,
            "image_size": 112, "image_token_id": "id:<unk>", "video_token_id": "id:<video>"},
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<unk>", "<video>", "<image>", "</image>",
            "<slice>", "</slice>", "<image_id>", "</image_id>"),
        chatml("<unk>\n", "{%- if enable_thinking is defined and enable_thinking is false -%}"
            "{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"),
        "chat_template.jinja",
        {"processor_config.json": {"processor_class": "MiniCPMV4_6Processor",
            "image_processor": {"image_processor_type": "MiniCPMV4_6ImageProcessor",
            "max_slice_nums": 2, "scale_resolution": 112, "patch_size": 14},
            "video_processor": {"video_processor_type": "MiniCPMV4_6VideoProcessor"}}},
        {"extra_special_tokens": {"image_token": "<unk>", "video_token": "<video>",
            "image_start_token": "<image>", "image_end_token": "</image>",
            "slice_start_token": "<slice>", "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>"}},
        thinking=(r"assistant\n\Z", r"</think>\n\n\Z")),
}
# fmt: on
