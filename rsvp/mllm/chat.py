"""Messages to a local model's inputs, with its own chat template and processor.

Works with any processor of transformers, and imports none of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image as PilImage

from rsvp.platform.bounded import OutOfBounds, bounded
from rsvp.types import Message

_log = logging.getLogger(__name__)

_IMAGE_PART = {"type": "image"}
# Qwen3.5, GLM-4.5V (GLM-V issue 138) and Gemma 4 (its prompt formatting page) have the first one,
# Kimi K2.5 (SGLang's page on it) and Granite the second.
_SWITCHES = ("enable_thinking", "thinking")
_OPEN_THOUGHT = re.compile(r"(<think>|◁think▷|\[THINK\])\s*\Z")


class Chat:
    """The chat format of one model.

    Args:
        processor: a transformers processor with a `tokenizer` and an `image_processor`.
        enable_thinking: what the template's variable of this name is; None leaves it undefined.
        trusted: the template is our own; another one may never end, or fill the memory, and is run
            within bounds.

    Raises:
        ValueError: neither the processor nor its tokenizer has a chat template.
    """

    def __init__(
        self, processor: Any, enable_thinking: bool | None = None, *, trusted: bool = False
    ) -> None:
        template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
        if isinstance(template, dict):  # others are for tools and documents
            template = template.get("default")
        if not isinstance(template, str):
            raise ValueError("it has no chat template; take an instruction-tuned model")
        self.processor, self.template, self._trusted = processor, template, trusted
        flag, switches = enable_thinking, [name for name in _SWITCHES if name in template]
        self._variables = {} if flag is None else dict.fromkeys(switches, flag)
        if flag is not None and not switches:
            _log.warning("enable_thinking has no effect: the chat template has no such variable")
        self._control = _control_tokens(processor.tokenizer)

    def inputs(self, messages: Sequence[Message], prompt: str | None = None) -> Any:
        """The model's inputs for one reply: a BatchFeature of torch tensors, batch of one.

        Args:
            prompt: the messages as `render` writes them, where that is known already.
        """
        text = self.render(messages) if prompt is None else prompt
        parts = [part for message in messages for part in message.parts]
        images = [PilImage.fromarray(part) for part in parts if not isinstance(part, str)]
        options: dict[str, Any] = {"return_tensors": "pt"}
        bos = self.processor.tokenizer.bos_token
        if bos and text.startswith(bos):
            options["add_special_tokens"] = False  # the template has written it
        return self.processor(text=[text], images=images or None, **options)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt as text, with one image token per image where the template writes them.

        A template that refuses system messages gets their text before the first user message.

        Raises:
            OutOfBounds: the template needs too much time or memory.
            ValueError: the template refuses the conversation; the message is the template's.
        """
        from jinja2 import TemplateError

        try:
            return self._apply(messages)
        except OutOfBounds:
            raise
        except (TemplateError, ValueError) as error:
            if len(messages) < 2 or messages[0].role != "system":
                raise ValueError(f"its chat template refuses: {error}") from error
        first = Message(messages[1].role, (*messages[0].parts, "\n\n", *messages[1].parts))
        return self._apply([first, *messages[2:]])

    def reply_text(self, prompt: str, ids: Sequence[int], generation: Any) -> str:
        """The text of generated tokens, with the model's own markup such as ``<|box_start|>``.

        Only the tokens that begin, end and pad a text are left out. A thinking tag that the prompt
        ended with is put in front, so that a thought without its end is known as one.

        Args:
            generation: the GenerationConfig, for the ids of these tokens.
        """
        tokenizer = self.processor.tokenizer
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        found = [getattr(one, name) for one in (generation, tokenizer) for name in names]
        left_out = {i for ids in found for i in ([ids] if isinstance(ids, int) else ids or ())}
        text = tokenizer.decode(
            [i for i in ids if i not in left_out],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        opened = _OPEN_THOUGHT.search(prompt)
        return f"{opened[1] if opened else ''}{text}".strip()

    def _apply(self, messages: Sequence[Message]) -> str:
        if self._trusted:
            return self._applied(messages)
        return bounded(lambda: self._applied(messages))

    def _applied(self, messages: Sequence[Message]) -> str:
        # The tokenizer renders, not the processor: some processors need video settings here.
        return str(
            self.processor.tokenizer.apply_chat_template(
                [self._template_message(message) for message in messages],
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=True,
                **self._variables,
            )
        )

    def _template_message(self, message: Message) -> dict[str, Any]:
        """A message for the template: parts, or one string where the template knows no parts."""
        if "text" not in self.template:
            texts = [self._escape(part) for part in message.parts if isinstance(part, str)]
            return {"role": message.role, "content": "".join(texts)}
        parts = [
            {"type": "text", "text": self._escape(part)} if isinstance(part, str) else _IMAGE_PART
            for part in message.parts
        ]
        return {"role": message.role, "content": parts}

    def _escape(self, text: str) -> str:
        """Split control tokens by a space, so that no query can end its own turn."""
        return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches special tokens such as ``<s>``, but not words and white space that are special."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    marked = [t for t in special if len(t) > 2 and not t.isalnum() and not t.isspace()]
    longest_first = sorted(marked, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
