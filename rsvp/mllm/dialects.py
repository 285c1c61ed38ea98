"""How servers of chat completions switch a model's thinking on and off.

There is no common field. What each server reads (docs/servers.md; the tests' table has sources):

- DashScope, ModelScope, SiliconFlow: ``enable_thinking`` beside the messages;
- OpenRouter: ``reasoning``, one object for every provider;
- Moonshot, Z.ai, DeepSeek, Anthropic: ``thinking`` with a type;
- OpenAI, Azure, Gemini, Ollama: ``reasoning_effort``, of which "none" is off;
- vLLM, SGLang, llama.cpp and the rest: a variable of the model's chat template.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

OPENAI_URL = "https://api.openai.com/v1"

_OPENAI = re.compile(r"https?://([^/]*@)?api\.openai\.com([:/?]|$)", re.IGNORECASE)
_TOP_LEVEL = re.compile(r"dashscope|aliyuncs|modelscope|siliconflow")
_OPENROUTER = re.compile(r"openrouter\.ai")
_TYPED = re.compile(r"moonshot|kimi|\bz\.ai|bigmodel|deepseek|anthropic")
_EFFORT = re.compile(r"openai\.com|azure\.com|googleapis\.com|ollama|:11434$")


def thinking_fields(base_url: str, enable: bool) -> dict[str, Any]:
    """The fields of a request that switch thinking on or off at the server of `base_url`."""
    host = urlsplit(base_url).netloc.rpartition("@")[2].lower()
    if _TOP_LEVEL.search(host):
        return {"enable_thinking": enable}
    if _OPENROUTER.search(host):
        return {"reasoning": {"enabled": enable}}
    if _TYPED.search(host):
        return {"thinking": {"type": "enabled" if enable else "disabled"}}
    if _EFFORT.search(host):
        return {"reasoning_effort": "medium" if enable else "none"}
    return {"chat_template_kwargs": {"enable_thinking": enable}}


def is_openai(base_url: str) -> bool:
    """Whether it is OpenAI's own server, which needs a key."""
    return _OPENAI.match(base_url.strip()) is not None


def is_azure(base_url: str) -> bool:
    """Whether the server wants its key in a header named ``api-key``."""
    return (urlsplit(base_url).hostname or "").endswith(".azure.com")
