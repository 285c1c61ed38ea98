"""The folder of a run that can be resumed; its `config.json` says which run it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput

CONFIG = "config.json"


def has_begun(folder: Path, *, resume: bool) -> bool:
    """Whether a folder holds a run; BadInput where it is not to be resumed, or none."""
    try:
        # A kill may have left a draft of the config and nothing else.
        begun = any(not entry.name.endswith(".part") for entry in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadInput(f"cannot use {folder} as the run's folder: {error.strerror}") from error
    if begun and not resume:
        raise BadInput(f"{folder} is not empty; use --resume to go on with the run in it")
    if begun and not (folder / CONFIG).is_file():
        raise BadInput(f"{folder} holds no run to resume: {CONFIG} is missing")
    return begun


def check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """BadInput where the settings of the run in a folder are others, with the first of them."""
    for key, old, new in _differences(found, wanted):
        raise BadInput(
            f"cannot resume {folder}: its {key} is {_brief(old)}, now it is {_brief(new)}; "
            "ask for the same or choose another folder"
        )


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*wanted, *found]):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield prefix + key, old, new


def _brief(value: object) -> str:
    """A value for an error line; digests are long and say nothing."""
    text = repr(value)
    return text if len(text) <= 60 else text[:24] + "…"
