"""What servers of chat completions answer, each in its own dialect. One row a server.

The fields of a row are as the sources show them; issues are named ``owner/repository#number``.
Numbers in refusals are adapted to what rsvp sends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, Any, dict[str, str]]
SSE = {"Content-Type": "text/event-stream; charset=utf-8"}
THINKS = "Let me see."
PROMPT, WRITTEN, THOUGHT = 900, 60, 40  # tokens: read; written; of these, of the thought


@dataclass(frozen=True)
class Refusal:
    """A refusal, and what the next request must do.

    Attributes:
        sent: options of the backend with which it is provoked.
        drops: the parameter, or type of reply format, that is left out then.
        limit: the token limit that is sent then.
    """

    body: Any
    drops: str | None = None
    limit: int | None = None
    status: int = 400
    sent: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """One server.

    Attributes:
        host, path: of its URL; tests resolve every host to loopback.
        thought: the fields of a message that hold thinking; () where it is not returned.
        empty: the message's content where the token limit cut the thought; ... for none.
        first: events before a stream's first token.
        usage_beside_finish: the stream's last chunk holds both.
        hides_thought_tokens: ``completion_tokens`` counts none of the thought, only the total does.
        done: the stream ends with ``[DONE]``.
        refusals: see `Refusal`.
        no_images: how a model without eyes refuses a picture.
        busy: a rate limit, and the seconds that it asks to wait; None where it names none.
        thinking_off: the fields by which `enable_thinking=false` reaches it.
        source: where all this was seen.
    """

    name: str
    host: str
    path: str
    thought: tuple[str, ...]
    empty: Any
    refusals: tuple[Refusal, ...]
    no_images: tuple[int, Any]
    busy: tuple[int, Any, dict[str, str], float | None]
    thinking_off: Mapping[str, Any]
    source: str
    first: tuple[str, ...] = ()
    usage_beside_finish: bool = False
    hides_thought_tokens: bool = False
    done: bool = True

    def usage(self, thought: int = THOUGHT) -> dict[str, Any]:
        """900 tokens read, 60 written."""
        written = WRITTEN - thought if self.hides_thought_tokens else WRITTEN
        total = PROMPT + WRITTEN
        return {"prompt_tokens": PROMPT, "completion_tokens": written, "total_tokens": total}

    def whole(self, text: str | None, finish: str = "stop", thought: str = THINKS) -> Answer:
        """A reply in one piece; without text, all tokens went into the thought."""
        message: dict[str, Any] = {"role": "assistant", **dict.fromkeys(self.thought, thought)}
        content = self.empty if text is None else text
        if content is not ...:
            message["content"] = content
        usage = self.usage(WRITTEN if text is None else THOUGHT)
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return 200, {"object": "chat.completion", "choices": [choice], "usage": usage}, {}

    def stream(
        self, text: str | None, finish: str = "stop", thought: str = "Let me see."
    ) -> Answer:
        """The same reply as server-sent events."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [dict.fromkeys(self.thought, piece) for piece in pieces(thought)]
        deltas += [{"content": piece} for piece in pieces(text or "")]
        chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        last: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
        usage = {"usage": self.usage(WRITTEN if text is None else THOUGHT)}
        end = [{**last, **usage}] if self.usage_beside_finish else [last, {"choices": [], **usage}]
        events = [*self.first, *(f"data: {json.dumps(chunk)}" for chunk in (*chunks, *end))]
        body = "\n\n".join([*events, *(["data: [DONE]"] if self.done else [])]) + "\n\n"
        return 200, body.encode(), SSE


def pieces(text: str) -> list[str]:
    """The text in pieces of seven characters, so that words and numbers are split."""
    return [text[i : i + 7] for i in range(0, len(text), 7)]


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def flat(message: str) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": "BadRequestError", "code": 400}


def detail(name: str) -> dict[str, Any]:
    """Pydantic's refusal of an extra field, as FastAPI sends it."""
    loc = ["body", name]
    return {
        "detail": [{"type": "extra_forbidden", "loc": loc, "msg": "Extra inputs not permitted"}]
    }


NO_EFFORT = {"reasoning_effort": "none"}
TEMPLATE_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
TYPE_OFF = {"thinking": {"type": "disabled"}}
LOW = {"reasoning_effort": "low"}
OFF = {"enable_thinking": False}
PICTURE_PARTS = "messages[1].content[1]: unknown variant `image_url`, expected `text`"

DIALECTS = (
    Dialect(
        "openai", "api.openai.com", "/v1", (), "",
        (
            Refusal(error("Unsupported value: 'temperature' does not support 0 with this model. "
                          "Only the default (1) value is supported.", param="temperature",
                          code="unsupported_value"), "temperature"),
            Refusal(error("Your organization must be verified to stream this model. Please go to: "
                          "https://platform.openai.com/settings/organization/general",
                          param="stream", code="unsupported_value"), "stream"),
            Refusal(error("max_tokens is too large: 8192. This model supports at most 4096 "
                          "completion tokens, whereas you provided 8192.",
                          param="max_tokens"), limit=4096),
            Refusal(error("Unrecognized request argument supplied: reasoning_effort"),
                    "reasoning_effort", sent=LOW),
            Refusal(error("Invalid schema for response_format 'reply': 'minItems' is not permitted",
                          param="response_format", code=None), "json_schema"),
        ),
        (400, error("Invalid content type. image_url is only supported by certain models.")),
        (429, error("Rate limit reached for gpt-5.1: Limit 30000, Used 29000. Please try again in "
                    "7.5s.", code="rate_limit_exceeded"), {}, 7.5),
        NO_EFFORT,
        "lobehub/lobehub#9385 (stream); find 'max_tokens is too large' (public tests of clients)",
    ),
    Dialect(
        "azure", "rsvp.openai.azure.com", "/openai/deployments/gpt?api-version=2025-01-01", (), "",
        (
            Refusal(error("Unsupported parameter: 'max_tokens' is not supported with this model. "
                          "Use 'max_completion_tokens' instead.", param="max_tokens",
                          code="unsupported_parameter"), "max_tokens"),
            Refusal(error("Unrecognized request argument supplied: stream_options"),
                    "stream_options"),
        ),
        (400, error("This model does not support image inputs.", code="BadRequest")),
        (429, {"error": {"code": "429", "message": "Requests have exceeded the token rate limit. "
                         "Please retry after 6 seconds."}}, {"retry-after": "6"}, 6.0),
        NO_EFFORT,
        "sashabaranov/go-openai#444 (api-key, api-version, the first chunk without choices)",
        first=('data: {"id":"","choices":[],"prompt_filter_results":[{"prompt_index":0,'
               '"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}],'
               '"usage":null}',),
    ),
    Dialect(
        "gemini", "generativelanguage.googleapis.com", "/v1beta/openai", (), ...,
        (
            Refusal([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
                     'Invalid JSON payload received. Unknown name "stream_options": Cannot find '
                     "field."}}], "stream_options"),
            Refusal([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
                     "Thinking budget is not supported for this model"}}],
                    "reasoning_effort", sent=OFF),
        ),
        (400, [{"error": {"code": 400, "message": "Image input modality is not supported",
                          "status": "INVALID_ARGUMENT"}}]),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message":
                          "You exceeded your current quota. Please retry in 12.5s."}}], {}, 12.5),
        NO_EFFORT,
        "n4ze3m/page-assist#406 (errors in a list); router-for-me/CLIProxyAPI#5743 (thoughts only "
        "in the total); stanford-crfm/helm#3804 (no content)",
        usage_beside_finish=True, hides_thought_tokens=True,
    ),
    Dialect(
        "anthropic", "api.anthropic.com", "/v1", (), "",
        (
            Refusal(error("`temperature` is deprecated for this model."), "temperature"),
            Refusal(error("max_tokens: 8192 > 4096, which is the maximum allowed number of output "
                          "tokens for claude-3-haiku"), limit=4096),
        ),
        (400, error("messages.1.content.1: image input is not supported by this model")),
        (429, {"error": {"type": "rate_limit_error", "message": "This request would exceed your "
                         "organization's rate limit"}}, {"retry-after": "19"}, 19.0),
        TYPE_OFF,
        "docs.anthropic.com/en/api/openai-sdk; droidrun/mobilerun#348 (temperature)",
    ),
    Dialect(
        "vllm", "gpu-server", "/v1", ("reasoning", "reasoning_content"), None,
        (
            Refusal(error("This model's maximum context length is 8192 tokens. However, you "
                          "requested 8192 output tokens and your prompt contains at least 1 input "
                          "tokens, for a total of at least 8193 tokens.", param="input_tokens",
                          code=400), limit=4096),
            Refusal(flat("This model's maximum context length is 8192 tokens. However, you "
                         "requested 10092 tokens (1900 in the messages, 8192 in the completion). "
                         "Please reduce the length of the messages or completion."), limit=6292),
            Refusal(flat("Failed to compile the grammar: unsupported feature uniqueItems"),
                    "json_schema"),
        ),
        (400, flat("facebook/opt-125m is not a multimodal model None")),
        (503, flat("The engine is overloaded"), {}, None),
        TEMPLATE_OFF,
        "vllm-project/vllm#29408 (stream), #42474 and #20409 (context), #17349 (thinking); "
        "studio-dots-ai/dots.ocr#61 (images)",
    ),
    Dialect(
        "sglang", "sglang-host", "/v1", ("reasoning_content",), None,
        (
            Refusal(flat("Requested token count exceeds the model's maximum context length of 8192 "
                         "tokens. You requested a total of 10092 tokens: 1900 tokens from the "
                         "input messages and 8192 tokens for the completion."), limit=6292),
        ),
        (400, flat("This model does not support image input")),
        (503, {"error": {"message": "The request queue is full."}}, {}, None),
        TEMPLATE_OFF,
        "sgl-project/sglang python/sglang/srt/managers/tokenizer_manager.py (context), #20789",
    ),
    Dialect(
        "ollama", "ollama", "/v1", ("reasoning",), "",
        (
            Refusal(error('"llava:7b" does not support thinking', param=None, code=None),
                    "reasoning_effort", sent=LOW),
            Refusal(error('think value "medium" is not supported for this model', param=None),
                    "reasoning_effort", sent={"enable_thinking": True}),
        ),
        (400, error("this model does not support image input", param=None)),
        (503, error("server busy, please try again. maximum pending requests exceeded"), {}, None),
        NO_EFFORT,
        "ollama/ollama#15288 (reply), #14820 (thinking off), #12561; Gitlawb/openclaude#1371",
        done=True,
    ),
    Dialect(
        "lm-studio", "lm-studio", "/v1", ("reasoning_content",), "",
        (
            Refusal({"error": "'response_format.type' must be 'json_schema' or 'text'"},
                    "json_schema"),
        ),
        (400, {"error": "Model does not support images. Please use a model that does."}),
        (500, {"error": "The model is loading"}, {}, None),
        TEMPLATE_OFF,
        "lmstudio-ai/lmstudio-bug-tracker#1990 (thinking eats all tokens), #2322 (200 with an "
        "error in the stream); find \"must be 'json_schema' or 'text'\"",
    ),
    Dialect(
        "llama.cpp", "llama-server", "/v1", ("reasoning_content",), "",
        (
            Refusal(error("failed to parse grammar", code=400), "json_schema"),
        ),
        (500, {"error": {"code": 500, "type": "server_error", "message": "image input is not "
                         "supported - hint: if this is unexpected, you may need to provide the "
                         "mmproj"}}),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
         {}, None),
        TEMPLATE_OFF,
        "ggml-org/llama.cpp#15377 (images)",
        usage_beside_finish=True,
    ),
    Dialect(
        "dashscope", "dashscope.aliyuncs.com", "/compatible-mode/v1", ("reasoning_content",), "",
        (
            Refusal(error("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should "
                          "be [1, 2048]", code="invalid_parameter_error", param=None), limit=2048),
            Refusal(error("<400> InternalError.Algo.InvalidParameter: Json mode response is not "
                          "supported when enable_thinking is true", param=None), "json_schema",
                    sent={"enable_thinking": True}),
            Refusal(error("parameter.enable_thinking is not supported by this model", param=None),
                    "enable_thinking", sent=OFF),
        ),
        (400, error("The model does not support image input", code="invalid_parameter_error")),
        (429, error("Requests rate limit exceeded, please try again later.",
                    code="limit_requests"), {}, None),
        {"enable_thinking": False},
        "1Panel-dev/MaxKB#2401, open-webui/open-webui#10507 (max_tokens); presenton/presenton#184; "
        "langchain4j/langchain4j#3974 (thinking)",
    ),
    Dialect(
        "moonshot", "api.moonshot.ai", "/v1", ("reasoning_content",), "",
        (
            Refusal(error("invalid temperature: only 1 is allowed for this model"), "temperature"),
            Refusal(error("cannot specify both 'thinking' and 'reasoning_effort'"), "thinking",
                    sent={**LOW, **OFF}),
        ),
        (400, error(f"Invalid request: {PICTURE_PARTS}")),
        (429, error("Your account is rate limited, please try again after 1 seconds",
                    code="rate_limit_reached_error"), {}, 1.0),
        TYPE_OFF,
        "Warma10032/VideoAdGuard#34 (temperature); HKUDS/nanobot#3939; yilewang/llm-for-zotero#65",
        usage_beside_finish=True,
    ),
    Dialect(
        "openrouter", "openrouter.ai", "/api/v1", ("reasoning",), "",
        (
            Refusal(error("Provider returned error", code=400, metadata={"provider_name": "OpenAI",
                          "raw": '{"error": {"message": "Your organization must be verified to '
                          'stream this model.", "param": "stream"}}'}), "stream"),
            Refusal(error("Provider returned error", code=400, metadata={
                          "provider_name": "Moonshot AI", "raw":
                          "invalid temperature: only 1 is allowed for this model"}), "temperature"),
        ),
        (404, {"error": {"message": "No endpoints found that support image input", "code": 404}}),
        (429, {"error": {"message": "Provider returned error", "code": 429, "metadata": {
               "raw": "gemini is temporarily rate-limited upstream. Please retry in 3s"}}}, {}, 3),
        {"reasoning": {"enabled": False}},
        "BeehiveInnovations/pal-mcp-server#134 (raw); nexu-io/nexu#875 (images); comment lines: "
        "find ': OPENROUTER PROCESSING'",
        first=(": OPENROUTER PROCESSING", ": OPENROUTER PROCESSING"),
    ),
    Dialect(
        "fastapi", "gateway", "/v1", (), None,
        (
            Refusal(detail("stream_options"), "stream_options", status=422),
            Refusal(detail("temperature"), "temperature", status=422),
            Refusal(detail("chat_template_kwargs"), "chat_template_kwargs", status=422, sent=OFF),
        ),
        (422, {"detail": "image_url: image parts are not supported"}),
        (502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}, None),
        TEMPLATE_OFF,
        "pydantic's documentation of extra_forbidden: gateways with strict request models",
    ),
)  # fmt: skip
