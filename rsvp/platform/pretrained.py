"""Pretrained networks from transformers folders and PyTorch checkpoints: strict, in float32.

A folder's `config.json` names the type of model; no weight may be missing. A checkpoint of another
project is renamed by a table of regex rules, and nothing may be left over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rsvp.errors import ModelUnavailable, RsvpError, first_line
from rsvp.platform import machine
from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

# Other modules import transformers from here, so that a broken torchvision is hidden before.
import transformers as transformers  # noqa: E402, PLC0414
from transformers.utils import logging as transformers_logging  # noqa: E402

CHECKPOINT_SUFFIXES = (".pt", ".pth")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Settings of `config.json` by which memory grows, and the most that each may be.
_BOUNDS = (
    (re.compile(r"(^|_)(layers?|blocks|depths?|experts|stages|per_stage|stride|padding)$"), 4096),
    (re.compile(r"(^|_)(size|dim|width|heads|channels|features)$"), 1 << 20),
)

StateDict = Mapping[str, torch.Tensor]
Rules = Iterable[tuple[str, str]]


# ------------------------------------------------------------ transformers folders


@contextlib.contextmanager
def reading(source: object, what: str, *, official: bool = False) -> Iterator[None]:
    """Turn every error of a file's or folder's reader into one line, and silence transformers.

    Args:
        what: what it should be, e.g. ``SAM 2``.
        official: whether the source is a checkpoint of the official project, not a folder.

    Raises:
        ModelUnavailable: the code inside failed to read `source`.
    """
    try:
        with quiet():
            yield
    except RsvpError:
        raise
    except Exception as error:  # classes that are made from a stranger's settings raise anything
        fault = f"is no official {what} checkpoint" if official else f"cannot be read as {what}"
        raise ModelUnavailable(f"{source} {fault}: {first_line(error)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars and loading reports of transformers; we check the weights ourselves."""
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


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object of a file; {} where there is no file; ValueError or OSError if broken."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no settings")
    return found


def check_model_type(folder: Path, known: Collection[str]) -> None:
    """Raise ValueError unless `config.json` names one of the known types of model."""
    if not (folder / "config.json").is_file():
        raise ValueError("it has no config.json")
    found = read_settings(folder / "config.json").get("model_type")
    if found not in known:
        raise ValueError(
            f"its config.json names a model of type {found!r}, not {next(iter(known))!r}"
        )
    check_sizes(folder)


def check_sizes(folder: Path) -> None:
    """Raise ValueError where `config.json` asks for a network that no memory holds."""

    def check(settings: object, name: str) -> None:
        if isinstance(settings, dict):
            for key, value in settings.items():
                check(value, key)
        elif isinstance(settings, list):
            for value in settings:
                check(value, name)
        elif isinstance(settings, int):
            for pattern, most in _BOUNDS:
                if settings > most and pattern.search(name):
                    raise ValueError(f"its {name} {str(settings)[:20]} is above {most}")

    check(read_settings(folder / "config.json"), "")


def read_image_settings(
    folder: Path,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> dict[str, Any]:
    """The settings of a folder's image processor, {} where it has none.

    `image_mean` and `image_std` are always there, three floats each; `mean` and `std` by default.

    Raises:
        ValueError, TypeError, OSError: the file is broken.
    """
    settings = read_settings(folder / "preprocessor_config.json")
    if not settings:  # transformers 5 nests it in the processor's file
        settings = read_settings(folder / "processor_config.json").get("image_processor", {})
    for name, usual in (("image_mean", mean), ("image_std", std)):
        numbers = tuple(float(value) for value in settings.get(name, usual))
        if len(numbers) != 3:
            raise ValueError(f"image_mean and image_std are three numbers each, found {numbers}")
        settings[name] = numbers
    return settings


def load_float32(network: Any, folder: Path, *, optional: str = r"(?!)", **options: Any) -> Any:
    """`network.from_pretrained(folder)`, on the CPU, in float32, in eval mode.

    Args:
        network: a transformers class.
        optional: a regex; weights whose names it matches at the start may be missing.
        options: passed on.

    Raises:
        ValueError: a weight is missing or not finite, or there are only pickled ones.
    """
    if not any(folder.glob("*.safetensors")):
        raise ValueError("it holds no safetensors; pickled weights are not read")
    options |= {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
    net, info = network.from_pretrained(folder, **options)
    if broken := non_finite(net.state_dict()):
        raise ValueError(f"it holds weights that are not finite, first {broken}")
    missing = sorted(name for name in info["missing_keys"] if not re.match(optional, name))
    if missing:
        raise ValueError(f"it lacks weights, first {missing[0]}")
    return net


# ------------------------------------------------------------ PyTorch checkpoints


def checkpoint_path(model: str, what: str) -> Path:
    """The checkpoint file of that name; ModelUnavailable where there is none."""
    path = machine.local_path(model)
    if path is None:
        raise ModelUnavailable(f"there are no {what} weights at {model}")
    return path


def read_checkpoint(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch checkpoint, bare or as ``{"model": tensors}``, in float32.

    No code in the file is run.

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
    return {
        str(key): value.float() for key, value in loaded.items() if isinstance(value, torch.Tensor)
    }


def rename(key: str, rules: Rules) -> str:
    """A weight's new name: each rule, a regex and its replacement, in order."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def state_dict_difference(expected: StateDict, found: StateDict) -> str | None:
    """The number and first name of missing and unexpected weights, or the first other shape."""
    parts = []
    if missing := [key for key in expected if key not in found]:
        parts.append(f"{len(missing)} weights are missing (first {missing[0]})")
    if unexpected := [key for key in found if key not in expected]:
        parts.append(f"{len(unexpected)} are unexpected (first {unexpected[0]})")
    for key in expected.keys() & found.keys():
        if expected[key].shape != found[key].shape:
            shapes = f"{tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
            parts.append(f"{key} is {shapes}")
            break
    return "; ".join(parts) or None


def check_state_dict(expected: StateDict, found: StateDict) -> None:
    """Raise ValueError unless both have the same names and shapes."""
    if difference := state_dict_difference(expected, found):
        raise ValueError(difference)
    if broken := non_finite(found):
        raise ValueError(f"it holds weights that are not finite, first {broken}")


def non_finite(weights: StateDict) -> str | None:
    """The name of the first weight that holds NaN or infinity."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), None)


def weights_digest(net: torch.nn.Module, prefix: bytes = b"") -> str:
    """SHA-256 of a network's parameters by name, whatever file or precision they came from."""
    digest = hashlib.sha256(prefix)
    for name, weight in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
