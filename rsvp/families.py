"""What is known of the families of models: one row each, the table that docs/models.md shows.

A family is found by the `model_type` of the model's config.json, where its folder or the hub's
cache has one, else by its name. Every row names the public text that its facts come from.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Literal

from rsvp.platform import machine

MAX_SIDE = 1536  # pixels, see `ModelFamily.max_side`

Region = Literal["boxes", "points", "grid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """What is known of the models of one family.

    Attributes:
        name: empty where the family is unknown, so that all else is assumed.
        pattern: a regular expression; found anywhere in a model's name or folder, case ignored, it
            means this family. `.` after a digit stands for the hub's "2.5", Ollama's "2.5vl" and
            the config's "2_5".
        model_types: what config.json of such models calls them.
        frame: the coordinate frame of their boxes, a `rsvp.frames.FrameKind`.
        box_key: the JSON key under which they learned to write a box.
        strategy: what the `api` preset asks for: boxes or points of families that were trained to
            write coordinates, the grid's bands of all others.
        thinking: how their thinking is switched off or bounded; empty where they have none.
        max_side: images are shrunk to this longest side, in pixels: beyond it models resize or tile
            anyway, and uploads grow.
        max_pixels: and to this area; None without a limit.
        multiple: sides that are multiples of this many pixels are not resized further.
        source: where the frame stands; empty where no public text was found, so that it is assumed.
        run: what of such models was run for this project: names of tests/families, of a class with
            tiny random weights or of a server's dialect.
        profile: the folder of `prompts/` that is written for them.
        single_turn: they were trained on conversations of one question and one reply.
        min_confidence: mean token probability below which their replies are doubted; None where
            that is unknown.
        lexicon: their folder lists all words that they know.
    """

    name: str = ""
    pattern: str = ""
    model_types: tuple[str, ...] = ()
    frame: str = "0-1000"
    box_key: str = "box"
    strategy: Region = "boxes"
    thinking: str = ""
    max_side: int = MAX_SIDE
    max_pixels: int | None = None
    multiple: int = 1
    source: str = ""
    run: tuple[str, ...] = ()
    profile: str = "full"
    single_turn: bool = False
    min_confidence: float | None = None
    lexicon: bool = False

    def doubts(self, confidence: float | None) -> bool:
        """Whether a reply of this confidence is below `min_confidence`."""
        least = self.min_confidence
        return confidence is not None and least is not None and confidence < least

    def view_side(self, height: int, width: int) -> int:
        """The longest side, in pixels, of what is sent of an image of this size."""
        if self.max_pixels is None:
            return self.max_side
        long, short = max(height, width), min(height, width)
        return min(self.max_side, math.isqrt(self.max_pixels * long // short))


UNKNOWN = ModelFamily(strategy="grid")

_ENABLE = "`enable_thinking` of the chat template"
_EFFORT = "`reasoning_effort`"
_PROCESSORS = "huggingface/transformers, src/transformers/models"

FAMILIES: tuple[ModelFamily, ...] = (
    # The embedded reasoner learned that a coordinate's neighbors are nearly right, so it is never
    # sure of one: on 180 scenes the first percentile of its confidence is 0.72, the median 0.78.
    ModelFamily(
        name="embedded",
        pattern=r"^(rsvp[-_])?embedded$|embedded[/\\]weights[/\\]reasoner",
        frame="percent",
        source="recipes/embedded",
        run=("all of it, see eval/README.md",),
        profile="compact",
        single_turn=True,
        min_confidence=0.68,
        lexicon=True,
    ),
    ModelFamily(
        name="UI-TARS 1.5",
        pattern=r"ui[-_]?tars[-_]?(7b[-_]?)?1.5",
        frame="resized-pixels",
        multiple=28,
        source="bytedance/UI-TARS#157, #195; built on Qwen2.5-VL",
    ),
    ModelFamily(
        name="UI-TARS, Doubao, Seed-VL",
        pattern=r"ui[-_]?tars|doubao|seed[-_]?1.\d[-_]?vl",
        source="bytedance/UI-TARS#195; web-infra-dev/midscene, model adapters",
    ),
    ModelFamily(
        name="Qwen2.5-VL and models trained from it",
        pattern=r"qwen[-_]?2.5[-_]?(vl|omni)|qwen[-_]?vl[-_]?(max|plus)|vision[-_]?reasoner"
        r"|seg[-_]?zero|mimo[-_]?vl|vlm[-_]?r1",
        model_types=("qwen2_5_vl", "qwen2_5_omni"),
        frame="resized-pixels",
        box_key="bbox_2d",
        thinking="none; MiMo-VL always, but for `/no_think` at the end of the question "
        "(XiaomiMiMo/MiMo-VL#6); others trained by reinforcement where the prompt asks for it",
        multiple=28,
        source="QwenLM/Qwen3-VL#940, #957, #1741; QwenLM/Qwen2.5-Omni#236; om-ai-lab/VLM-R1#198; "
        "XiaomiMiMo/MiMo-VL#16; VisionReasoner loads Qwen2_5_VLForConditionalGeneration; "
        "web-infra-dev/midscene, qwen adapter",
        run=("Qwen2.5-VL", "MiMo-VL", "Qwen2.5-Omni"),
    ),
    ModelFamily(
        name="Qwen2-VL, QVQ",
        pattern=r"qwen[-_]?2[-_]?vl|qvq",
        model_types=("qwen2_vl",),
        multiple=28,
        source="QwenLM/Qwen3-VL#1485; likaixin2000/ScreenSpot-Pro-GUI-Grounding#7",
        run=("Qwen2-VL",),
    ),
    ModelFamily(
        name="Qwen3-VL, Qwen3-Omni",
        pattern=r"qwen[-_]?3[-_]?(vl|omni)",
        model_types=("qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe"),
        box_key="bbox_2d",
        thinking="by the checkpoint: Instruct does not think, Thinking does",
        multiple=32,
        source="QwenLM/Qwen3-VL#1741, #1927, #1937",
        run=("Qwen3-VL",),
    ),
    ModelFamily(
        name="Qwen3.5 and later",
        pattern=r"qwen[-_]?3[._]\d|qwen[4-9]",
        model_types=("qwen3_5", "qwen3_5_moe", "qwen4_exp"),
        box_key="bbox_2d",
        thinking=_ENABLE,
        multiple=32,
        source="QwenLM/Qwen3.8-Flash-Next#4; web-infra-dev/midscene, qwen adapter",
        run=("Qwen3.5",),
    ),
    ModelFamily(
        name="InternVL 2 to 3.5",
        pattern=r"intern[-_]?vl",
        model_types=("internvl", "internvl_chat"),
        thinking="3.5: where the system prompt asks for it, and the larger ones by themselves "
        "(OpenGVLab/InternVL#1118, #1141)",
        source="OpenGVLab/InternVL#1016; "
        "internvl.readthedocs.io/en/latest/get_started/chat_data_format.html",
        run=("InternVL3",),
    ),
    ModelFamily(
        name="GLM-4.1V to 4.6V",
        pattern=r"glm[-_]?\d(.\d)?v|glm[-_]?v\b",
        model_types=("glm4v", "glm4v_moe", "glm46v"),
        box_key="bbox_2d",
        thinking=f"4.1V always (zai-org/GLM-V#37); later {_ENABLE}",
        multiple=28,
        source="zai-org/GLM-V#114, #118, #161; skills.sh/zai-org/glm-skills/glmv-grounding",
        run=("GLM-4.1V", "GLM-4.6V"),
    ),
    ModelFamily(
        name="Gemini",
        pattern=r"gemini",
        frame="0-1000-yxyx",
        box_key="box_2d",
        thinking=_EFFORT,
        source="cloud.google.com/vertex-ai/generative-ai/docs/bounding-box-detection",
        run=("gemini",),
    ),
    ModelFamily(
        name="PaliGemma 1 and 2",
        pattern=r"pali[-_]?gemma",
        model_types=("paligemma",),
        frame="0-1024-yxyx",
        source=f"{_PROCESSORS}/paligemma: 1024 <loc> tokens; answers its own task prompts only",
    ),
    ModelFamily(
        name="Gemma 4",
        pattern=r"gemma[-_]?4",
        model_types=("gemma4", "gemma4_unified"),
        frame="0-1000-yxyx",
        box_key="box_2d",
        thinking=_ENABLE,
        source="ai.google.dev/gemma/docs/capabilities/vision; Burhan-Q/gemma4, ADDITIONAL_INFO.md",
        run=("Gemma 4",),
    ),
    ModelFamily(
        name="Gemma 3",
        pattern=r"gemma",
        model_types=("gemma3", "gemma3n"),
        frame="0-1000-yxyx",
        box_key="box_2d",
        strategy="grid",
        source="huggingface.co/google/gemma-3-4b-it/discussions/38: likely Gemini's form; "
        "ariG23498/gemma3-object-detection#6: not trained for it",
        run=("Gemma 3",),
    ),
    ModelFamily(
        name="Molmo2",
        pattern=r"molmo[-_]?2",
        model_types=("molmo2",),
        strategy="points",
        source='allenai/molmo2; <points coords="image id x y …"> in thousandths, as public parsers '
        "of its replies read it",
    ),
    ModelFamily(
        name="Molmo",
        pattern=r"molmo",
        model_types=("molmo",),
        frame="percent",
        strategy="points",
        source="huggingface.co/allenai/Molmo-7B-D-0924: <point x= y=> in percent",
    ),
    ModelFamily(
        name="Claude",
        pattern=r"claude",
        frame="pixels",
        thinking="off unless the request has `thinking`",
        max_side=1568,
        max_pixels=1_150_000,
        source="platform.claude.com/docs/en/build-with-claude/vision-coordinates; of /vision, as "
        "quoted in cnighswonger/claude-code-cache-fix#87: up to 1568 pixels a side and 1568 tokens "
        "of 750 pixels no model resizes",
        run=("anthropic",),
    ),
    ModelFamily(
        name="GPT, o-series",
        pattern=r"(^|[^a-z])(chat)?gpt|(^|/)o\d",
        strategy="grid",
        thinking=_EFFORT,
        source="the RSVP paper asks GPT-4o for bands; "
        "sanand0/blog, llms-still-do-not-locate-bounding-boxes-well",
        run=("openai", "azure"),
    ),
    ModelFamily(
        name="Kimi-VL, Kimi K2.5 and later",
        pattern=r"kimi",
        model_types=("kimi_vl", "kimi_k25"),
        frame="0-1",
        box_key="bbox_2d",
        thinking="VL by the checkpoint; K2.5 `thinking` of the request "
        "(platform.kimi.ai/docs/api/models-overview)",
        source="MoonshotAI/Kimi-VL#52, #56; of K2.5 only an unanswered question, "
        "MoonshotAI/Kimi-K2.5#15",
        run=("moonshot",),
    ),
    ModelFamily(
        name="MiniCPM-V, MiniCPM-o",
        pattern=r"minicpm[-_]?[vo]",
        model_types=("minicpmv", "minicpmo", "minicpmv4_6", "minicpmv4_7"),
        thinking=f"4.5 and later {_ENABLE} (OpenBMB/MiniCPM-V#988, #996)",
        source="OpenBMB/MiniCPM-V#772, #982",
        run=("MiniCPM-V 4.6",),
    ),
    ModelFamily(
        name="Ovis2.5",
        pattern=r"ovis",
        model_types=("ovis2", "ovis2_5"),
        frame="0-1",
        thinking=_ENABLE,
        source="ATH-MaaS/Ovis#119; huggingface.co/AIDC-AI/Ovis2.5-9B; vllm-project/vllm#23088",
        run=("Ovis2",),
    ),
    ModelFamily(
        name="DeepSeek-VL2",
        pattern=r"deepseek[-_]?vl",
        model_types=("deepseek_vl_v2", "deepseek_vl", "deepseek_vl_hybrid"),
        source="deepseek-ai/DeepSeek-VL2#60, #100: 0 to 999; VL 1 has no boxes",
        run=("DeepSeek-VL",),
    ),
    ModelFamily(name="Keye", pattern=r"keye", source="Kwai-Keye/Keye#14"),
    ModelFamily(
        name="Florence-2",
        pattern=r"florence",
        model_types=("florence2",),
        source=f"{_PROCESSORS}/florence2: 1000 <loc_> tokens; answers its own task prompts only",
        run=("Florence-2",),
    ),
    ModelFamily(
        name="LLaVA-NeXT, LLaVA-OneVision",
        pattern=r"llava",
        model_types=("llava", "llava_next", "llava_next_video", "llava_onevision"),
        frame="0-1",
        strategy="grid",
        source="haotian-liu/LLaVA#606: fractions of the padded square",
        run=("LLaVA-OneVision", "LLaVA-NeXT", "LLaVA-NeXT-Video"),
    ),
    ModelFamily(
        name="Llama 4, Llama 3.2 Vision",
        pattern=r"llama[-_]?4|llama[-_]?3.2",
        model_types=("llama4", "mllama"),
        strategy="grid",
    ),
    ModelFamily(
        name="Pixtral, Mistral 3",
        pattern=r"pixtral|mistral|ministral|magistral",
        model_types=("mistral3", "pixtral"),
        strategy="grid",
    ),
    ModelFamily(
        name="Idefics 3, SmolVLM",
        pattern=r"idefics|smolvlm",
        model_types=("idefics2", "idefics3", "smolvlm"),
        strategy="grid",
        run=("Idefics3",),
    ),
    ModelFamily(
        name="Aya Vision, Command A Vision",
        pattern=r"\baya\b|command[-_]?a",
        model_types=("aya_vision", "cohere2_vision"),
        strategy="grid",
        run=("Aya Vision",),
    ),
    ModelFamily(
        name="Phi-3.5 and Phi-4 multimodal",
        pattern=r"\bphi[-_]?[34]",
        model_types=("phi4_multimodal", "phi3_v", "phi4mm"),
        strategy="grid",
    ),
    ModelFamily(
        name="Step3 and later",
        pattern=r"\bstep[-_]?3",
        model_types=("step3_vl", "step3p7"),
        strategy="grid",
        thinking="always (stepfun-ai/Step3-VL-10B#17)",
    ),
)


def family(model: str) -> ModelFamily:
    """The family of a model's name or folder; `UNKNOWN` (0-1000 xyxy, full prompts) of others."""
    name = model.rstrip("/\\")
    found = [row for row in FAMILIES if row.pattern and re.search(row.pattern, name, re.IGNORECASE)]
    if found and found[0].profile != UNKNOWN.profile:
        return found[0]  # the embedded model's config.json names a class that others have too
    kind = _model_type(model)
    return next((row for row in FAMILIES if kind in row.model_types), (*found, UNKNOWN)[0])


def _model_type(model: str) -> str | None:
    """`model_type` of the config.json of a folder, or of a hub id that was downloaded before."""
    folder = machine.local_path(model) or machine.hub_snapshot(model)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8")) if folder else None
    except (OSError, ValueError):
        return None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else None
