"""Repositories that cannot be loaded here, and the words in which they are refused."""

from __future__ import annotations

from family_folders import Json, Refused

_ONLY = r"no image-text-to-text class for its type '{}' \(only {}\).*--mllm openai:MODEL"
_EXTRA = r"pip install 'rsvp-segmentation\[vision\]'"


def _native(model_type: str, processor: str, images: str) -> tuple[Json, dict[str, Json]]:
    files = {
        "processor_config.json": {"processor_class": processor},
        "preprocessor_config.json": {
            "image_processor_type": images, "processor_class": processor
        },
    }  # fmt: skip
    return {"model_type": model_type}, files


def _own_code(model_type: str, *autos: str, parent: str = "llama") -> tuple[Json, dict[str, Json]]:
    """A configuration of transformers' own that names code for other auto classes."""
    named = dict.fromkeys(autos, f"modeling_{model_type}.Model")
    return {"model_type": parent, "auto_map": named}, {
        "preprocessor_config.json": {"image_processor_type": "CLIPImageProcessor"},
        "processor_config.json": {"processor_class": "LlavaProcessor", "patch_size": 14},
    }


REFUSED: dict[str, Refused] = {
    "Llama 4": Refused(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        *_native("llama4", "Llama4Processor", "Llama4ImageProcessorFast"),
        _EXTRA,
        "torchvision",
    ),
    "Command A Vision": Refused(
        "CohereLabs/command-a-vision-07-2025",
        *_native("cohere2_vision", "Cohere2VisionProcessor", "Cohere2VisionImageProcessorFast"),
        _EXTRA,
        "torchvision",
    ),
    "Phi-4 multimodal": Refused(
        "microsoft/Phi-4-multimodal-instruct",
        *_native("phi4_multimodal", "Phi4MultimodalProcessor", "Phi4MultimodalImageProcessorFast"),
        _EXTRA,
        "torchvision",
    ),
    "Molmo2": Refused(
        "allenai/Molmo2-8B",
        *_native("molmo2", "Molmo2Processor", "Molmo2ImageProcessor"),
        _EXTRA,
        "torchvision",
    ),
    "Kimi K2.5": Refused(
        "moonshotai/Kimi-K2.5",
        *_native("kimi_k25", "Kimi_K25Processor", "Kimi_K25ImageProcessor"),
        _EXTRA,
        "torchvision",
    ),
    "LFM2-VL": Refused(
        "LiquidAI/LFM2-VL-1.6B",
        *_native("lfm2_vl", "Lfm2VlProcessor", "Lfm2VlImageProcessorFast"),
        _EXTRA,
        "torchvision",
    ),
    # Their own code offers other auto classes only; the message does not depend on trusting it.
    "Molmo": Refused(
        "allenai/Molmo-7B-D-0924",
        *_own_code("molmo", "AutoModelForCausalLM"),
        _ONLY.format("llama", "AutoModelForCausalLM"),
    ),
    "MiniCPM-V 2.6": Refused(
        "openbmb/MiniCPM-V-2_6",
        *_own_code("minicpmv", "AutoModel", "AutoModelForCausalLM"),
        _ONLY.format("llama", "AutoModel and AutoModelForCausalLM"),
    ),
    "InternVL3, as first published": Refused(
        "OpenGVLab/InternVL3-8B",
        {
            "model_type": "internvl_chat",
            "auto_map": {
                "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
                "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            },
        },
        {},
        r"if you have read that code: --option trust_remote_code=true\Z",
    ),
    "a model of text": Refused(
        "meta-llama/Llama-3.2-1B-Instruct",
        *_own_code("llama"),
        _ONLY.format("llama", "AutoModelForCausalLM, a model of text alone"),
    ),
    "DeepSeek-VL2": Refused(
        "deepseek-ai/deepseek-vl2-tiny",
        *_native("deepseek_vl_v2", "DeepseekVLV2Processor", "DeepseekVLV2ImageProcessor"),
        "deepseek_vl_v2",
    ),
    "PaliGemma 2": Refused(
        "google/paligemma2-3b-mix-448",
        {"model_type": "paligemma"},
        {
            "preprocessor_config.json": {
                "image_processor_type": "SiglipImageProcessor",
                "image_seq_length": 1024,
                "processor_class": "PaliGemmaProcessor",
            }
        },
        "no chat template",
        template=False,
    ),
}
