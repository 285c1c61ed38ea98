"""What both Grounding DINO backends need before a network: folders, a tokenizer, a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform.devices import checked_device
from rsvp.platform.hub import hub_folder
from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from transformers import AutoTokenizer, BertConfig  # noqa: E402

TEXT_ENCODER = "bert-base-uncased"
_TEXT_FILES = ["config.json", "tokenizer*", "vocab.txt", "special_tokens_map.json"]
_WEIGHTS = ["*.json", "*.safetensors", "vocab.txt"]


def model_folder(model: str) -> Path:
    """The folder itself, or where the hub's files lie on this machine, downloaded if need be.

    Raises:
        ModelUnavailable: neither; the message says how to get them.
    """
    return hub_folder(model, "Grounding DINO weights", _WEIGHTS)


def load_text(model: str) -> tuple[Any, BertConfig]:
    """BERT's tokenizer and config, without its weights; a checkpoint brings its own.

    Args:
        model: a folder or a hub id.

    Raises:
        ModelUnavailable: not there, not readable, or not BERT.
    """
    folder = hub_folder(model, "tokenizer files", _TEXT_FILES, needs=("*",), bare=True)
    config = BertConfig()  # those of bert-base-uncased, where the folder has none
    try:
        if (folder / "config.json").is_file():
            config = BertConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise ModelUnavailable(f"{folder} holds no BERT: {first_line(error)}") from error
    return load_tokenizer(folder), config


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        ModelUnavailable: there is none that can be read.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a broken file raises whatever its reader likes
        raise ModelUnavailable(
            f"{folder} has no readable tokenizer: {first_line(error)}"
        ) from error


def choose_device(device: str | torch.device | None) -> torch.device:
    """What was asked for, else CUDA, else the CPU.

    Apple's MPS is only taken when asked: it lacks operators of deformable attention.

    Raises:
        BadInput: a device that is not here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return checked_device(device)
