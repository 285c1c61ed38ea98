"""Files of the Hugging Face hub: from a folder, from the hub's cache, else downloaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform import machine

log = logging.getLogger(__name__)

_WEIGHTS = "*.safetensors"
WEIGHTS = ("*.json", _WEIGHTS)


def hub_folder(
    model: str,
    what: str,
    patterns: Sequence[str] = WEIGHTS,
    *,
    ignore: Sequence[str] = (),
    needs: Sequence[str] = (_WEIGHTS,),
    bare: bool = False,
) -> Path:
    """A model's folder on this machine, downloaded if it isn't there.

    A local folder is returned as it is. A snapshot in the hub's cache that has a file for each
    pattern of `needs`, and every part of weights that come in several files, is used without a
    request to the hub; of any other only the missing files are downloaded.

    Args:
        model: a folder or a hub id.
        what: the kind of files, plural, for error messages, e.g. ``SAM 2 weights``.
        patterns: the files to download; add ``*.py`` for a model that may run its own code.
        ignore: of those, the files to leave out.
        needs: patterns; a snapshot without a match for each of them is incomplete.
        bare: whether a hub id may lack its owner, as ``bert-base-uncased`` does; else such a name
            is only looked for on this machine.

    Raises:
        ModelUnavailable: neither a folder nor available from the hub; says how to get it.
    """
    path = machine.local_path(model)
    if path is not None and path.is_dir():
        return path
    if path is not None or not machine.is_hub_id(model) or not (bare or "/" in model):
        raise ModelUnavailable(f"there are no {what} at {model}")
    return download(model, what, patterns, ignore=ignore, needs=needs)


def download(
    model: str,
    what: str,
    patterns: Sequence[str] = WEIGHTS,
    *,
    ignore: Sequence[str] = (),
    needs: Sequence[str] = (_WEIGHTS,),
) -> Path:
    """The snapshot of a hub id: the cached one, else a new one; arguments as in `hub_folder`.

    Raises:
        ModelUnavailable: the hub or the network refuses, or the repository lacks such files.
    """
    from huggingface_hub import snapshot_download

    cause: Exception | None = None
    for cached in (True, False):
        if not cached:
            log.warning("downloading %s", model)
        try:
            folder = Path(
                snapshot_download(
                    model,
                    local_files_only=cached,
                    allow_patterns=list(patterns),
                    ignore_patterns=list(ignore) or None,
                )
            )
        except Exception as error:  # the client passes on the errors of its HTTP library
            cause = error
            continue
        absent = [pattern for pattern in needs if not any(folder.glob(pattern))]
        if _WEIGHTS in needs:  # an interrupted download leaves some of several files
            absent += machine.missing_shards(folder)
        if not absent:
            return folder
        cause = FileNotFoundError(f"it holds no {' and no '.join(absent[:3])}")
    assert cause is not None
    files = [] if any("*" in pattern for pattern in patterns) else patterns
    raise ModelUnavailable(
        f"{model} is no folder, and its {what} are not on this machine and cannot be downloaded "
        f"({first_line(cause)}); get them with: {' '.join(['hf download', model, *files])}"
    ) from cause


def hub_file(model: str, file: str, what: str) -> Path:
    """One file of a hub id, downloaded if it isn't in the cache; errors as of `download`."""
    return download(model, what, (file,), needs=(file,)) / file
