"""Writes the folders of `local_families` and `refused_families`.

A family holds what its repository's files hold. The sizes are tiny and the weights random. Strings
``id:TOKEN`` in a config become the token's id, ``vocab`` the size of the vocabulary. Templates have
the markers and switches of the real ones, in a few lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForMultimodalLM
from transformers.utils import logging

Json = dict[str, Any]


@dataclass(frozen=True)
class LocalFamily:
    """A family's repository.

    Attributes:
        repo: whose layout it is; its name decides nothing, `config` does.
        tokens: special tokens, from id 256 on.
        template: the chat template; empty where the repository has none.
        template_in: the file that holds it.
        files: the processor's files.
        frame: how the family writes coordinates; rsvp/families.toml has the sources.
        markup: an answer in the family's own words, with its special tokens.
        thinking: regular expressions that only the prompt with thinking has, and only the other.
        needs: a package without which the processor cannot be made.
    """

    repo: str
    config: Json
    tokens: tuple[str, ...]
    template: str
    template_in: str
    files: Mapping[str, Json]
    tokenizer: Json = field(default_factory=dict)
    frame: str = "0-1000"
    markup: str = '{"targets": []}'
    thinking: tuple[str, str] | None = None
    needs: str = ""


def write_folder(family: LocalFamily, folder: Path) -> Path:
    """Write the family's repository into `folder`, its weights in several files."""
    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer(family.tokens, "", **_tokenizer_options(family))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    config = _filled(family.config, family.tokens)
    kind = config["model_type"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CONFIG_MAPPING[kind].from_dict(config)
        model = AutoModelForMultimodalLM.from_config(getattr(made, "thinker_config", made))
    prefix = "thinker." if hasattr(made, "thinker_config") else ""
    logging.disable_progress_bar()
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    if prefix:
        _prefix_weights(folder, prefix)
    if (folder / "generation_config.json").exists():
        (folder / "generation_config.json").unlink()
    _write(folder / "config.json", {"architectures": [type(model).__name__], **config})
    ends = {"eos_token_id": tokenizer.eos_token_id, "repetition_penalty": 1.5, "do_sample": True}
    _write(folder / "generation_config.json", {**ends, "top_k": 20, "temperature": 0.7})
    for name, settings in family.files.items():
        _write(folder / name, settings)
    _write_template(family, folder)
    return folder


def _write_template(family: LocalFamily, folder: Path) -> None:
    place = folder / family.template_in
    if family.template_in.endswith(".jinja"):
        place.write_text(family.template)
    elif family.template:
        settings = json.loads(place.read_text()) if place.exists() else {}
        template: Any = family.template
        if family.template_in == "tokenizer_config.json":  # Cohere's way
            names = {"default": template, "tool_use": "{{ 'for tools' }}"}
            template = [{"name": name, "template": text} for name, text in names.items()]
        _write(place, {**settings, "chat_template": template})


def _tokenizer_options(family: LocalFamily) -> Json:
    common = {"eos_token": family.tokens[0], "pad_token": family.tokens[1]}
    return {"model_input_names": ["input_ids", "attention_mask"], **common, **family.tokenizer}


def _prefix_weights(folder: Path, prefix: str) -> None:
    from safetensors.torch import load_file, save_file

    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = {prefix + key: file for key, file in index["weight_map"].items()}
    for file in set(index["weight_map"].values()):
        tensors = load_file(folder / file)
        save_file({prefix + k: v for k, v in tensors.items()}, folder / file, {"format": "pt"})
    _write(folder / "model.safetensors.index.json", index)


def _filled(value: Any, tokens: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, tokens) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, tokens) for one in value]
    if value == "vocab":
        return 256 + len(tokens)
    if isinstance(value, str) and value.startswith("id:"):
        return 256 + tokens.index(value.removeprefix("id:"))
    return value


def _write(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2))


@dataclass(frozen=True)
class Refused:
    """A repository that cannot be loaded, at least not without an optional package.

    Attributes:
        words: a regular expression that finds the reason in the message.
        needs: the package whose absence is the reason.
        template: whether it has a chat template.
    """

    repo: str
    config: Json
    files: Mapping[str, Json]
    words: str
    needs: str = ""
    template: bool = True


def write_refused(refused: Refused, folder: Path) -> Path:
    """Write the repository, with one tensor for its weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    tokens = ("<|im_end|>", "<image>", "<audio>", "<|im_start|>")
    named = {"image_token": "<image>", "audio_token": "<audio>"}
    tokenizer = tiny_tokenizer(tokens, chatml("<image>"), extra_special_tokens=named)
    if not refused.template:
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    for name, settings in {"config.json": refused.config, **refused.files}.items():
        _write(folder / name, settings)
    return folder


def chatml(image: str, start: str = "") -> str:
    """A ChatML template; `start` is what the assistant's turn begins with."""
    return (
        "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}"
        "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for p in m.content -%}"
        f"{{{{ '{image}' if p.type == 'image' else p.text }}}}"
        "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}" + start + "{%- endif -%}"
    )


def turns(user: str, end: str, assistant: str, image: str, *, before: str = "") -> str:
    """A template without a system role of its own: its text stands in a user's turn."""
    return (
        before + "{%- for m in messages -%}"
        f"{{{{ '{assistant}' if m.role == 'assistant' else '{user}' }}}}"
        "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for p in m.content -%}"
        f"{{{{ '{image}' if p['type'] == 'image' else p['text'] }}}}"
        f"{{%- endfor -%}}{{%- endif -%}}{{{{ '{end}' }}}}{{%- endfor -%}}"
        f"{{%- if add_generation_prompt -%}}{{{{ '{assistant}' }}}}{{%- endif -%}}"
    )
