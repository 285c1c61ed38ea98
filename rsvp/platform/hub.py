"""Where a model's files lie, a folder or the hub's cache, and reading them in peace."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform import machine
from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from huggingface_hub import snapshot_download  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

WEIGHTS = ("*.json", "*.safetensors")


def hub_folder(
    model: str,
    what: str,
    files: Sequence[str] = WEIGHTS,
    *,
    holds: str = "*.safetensors",
    bare: bool = False,
) -> Path:
    """The folder itself, or where the hub's files lie on this machine, downloaded if need be.

    Args:
        model: a folder or a hub id.
        what: the kind of files, for the message, e.g. ``SAM 2 weights``.
        files: patterns of the files to download.
        holds: a pattern; what the hub has without such a file does not count.
        bare: whether a name without an owner, as ``bert-base-uncased``, can be the hub's; else it
            is taken for a folder that is not there.

    Raises:
        ModelUnavailable: neither; the message says how to get them.
    """
    path = machine.local_path(model)
    if path is not None and path.is_dir():
        return path
    known = machine.is_hub_id(model) and (bare or "/" in model)
    if path is not None or not known:  # a path: never ask the hub for it
        raise ModelUnavailable(f"there are no {what} at {model}")
    error: Exception | None = None
    for local_only in (True, False):
        # Files that are here already are used as they are, with no request to the hub.
        try:
            found = snapshot_download(
                model, local_files_only=local_only, allow_patterns=list(files)
            )
        except (OSError, ValueError, HfHubHTTPError) as failed:
            error = failed
        else:
            if any(Path(found).glob(holds)):
                return Path(found)
    raise ModelUnavailable(
        f"there is no folder {model}, nor these {what} from the hub on this machine; "
        f"get them with: hf download {model}"
    ) from error


def read_state(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch checkpoint, bare or as ``{"model": tensors}``; no code is run.

    Args:
        what: the kind of checkpoint, for the message, e.g. ``SAM 2``.

    Raises:
        ModelUnavailable: unreadable, or no state dict.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelUnavailable(
            f"{path} is no plain PyTorch checkpoint, and is not opened: it may run code"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"{path} cannot be read: {first_line(error)}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping):
        raise ModelUnavailable(f"{path} is no official {what} checkpoint: it holds no state dict")
    return {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no reports of transformers while it reads weights.

    Weights that are missing are checked for where they are read; those left out are meant to be.
    """
    library: Any = transformers_logging
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
