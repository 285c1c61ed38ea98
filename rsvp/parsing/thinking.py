"""Whether a reply ended inside the model's thinking."""

from __future__ import annotations

import re

# An opening or a closing mark of thinking: Qwen, DeepSeek, GLM; Kimi; gpt-oss; Gemma 4; Magistral.
_MARK = re.compile(
    r"<(?P<a>/?)(?:think|thinking|thought|reasoning)>|◁(?P<b>/?)think▷"
    r"|<\|channel\|>analysis|<\|channel>thought|(?P<c><\|channel\|>final|<channel\|>)"
    r"|\[(?P<d>/?)THINK\]",
    re.IGNORECASE,
)


def is_cut_thought(text: str) -> bool:
    """Whether a reply that was cut at the token limit ended before its answer began.

    It is empty; its last mark of thinking is an opening one; or, as many chat templates write that
    mark into the prompt, prose without a mark went on behind a complete JSON draft.
    """
    marks = list(_MARK.finditer(text))
    if marks:
        return not any(marks[-1].groupdict().values())
    if not text.strip():
        return True
    closed = text.count("{") == text.count("}") and text.count("[") == text.count("]")
    goes_on = bool(re.search(r"[\]}][^\]}]*[^\W\d_][^\]}]*\Z", text))
    return closed and goes_on and not text.lstrip().startswith(("{", "[", "```"))
