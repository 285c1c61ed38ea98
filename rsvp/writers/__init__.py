"""A result as files: `result.json`, `overlay.png`, `masks/000.png …`, and other tools' formats.

A format is a function ``(Segmentation, folder) -> paths`` in the registry, kind ``writer``; an
installed package adds one by the entry point ``writer.NAME`` in the group ``rsvp.backends``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rsvp import registry
from rsvp.errors import BadInput
from rsvp.platform.files import writable
from rsvp.types import Segmentation
from rsvp.writers.coco import to_coco
from rsvp.writers.document import to_dict
from rsvp.writers.html import to_html
from rsvp.writers.supervision import to_supervision

__all__ = [
    "ANSWER_FORMATS",
    "DEFAULT_FORMATS",
    "TRACE_FORMATS",
    "Writer",
    "check_formats",
    "prepare",
    "to_coco",
    "to_dict",
    "to_html",
    "to_supervision",
    "write",
]

DEFAULT_FORMATS = ("json", "overlay", "png")
ANSWER_FORMATS = (*DEFAULT_FORMATS, "looks")
TRACE_FORMATS = (*DEFAULT_FORMATS, "html")


class Writer(Protocol):
    """Writes a result in one format into a folder that exists.

    It yields the path of each file that it wrote, and writes with `rsvp.platform.files`, so that a
    file is never half written. It removes its files of an earlier result that this one lacks.
    """

    def __call__(self, result: Segmentation, folder: Path, /) -> Iterable[Path]: ...


def write(
    result: Segmentation, directory: str | Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> list[Path]:
    """Write the result into `directory`, which is made if need be.

    Args:
        formats: of ``json`` (`result.json`), ``overlay`` (`overlay.png`), ``png`` (`masks/000.png`,
            0 and 255, one a target), ``index`` (`index.png`, the k-th target's pixels are k),
            ``prompt`` (`prompt.png`, what the MLLM saw, if one was called), ``looks``
            (`looks/000.png`, the closer looks of an answer), ``html`` (`result.html`, a page that
            replays the reasoning), ``vrt`` (`vrt.jsonl`, as VRT-Bench's metric reads it), ``coco``
            (`coco.json`), ``labelme`` (`labelme.json`), ``yolo`` (`labels/NAME.txt`, named like
            the image, a line a target, and `data.yaml`, the names of its classes), and those of
            plug-ins.

    Returns:
        The files, in the order of `formats`.

    Raises:
        BadInput: an unknown format, or a folder that cannot be written.
    """
    writers: list[Writer] = [registry.load("writer", name) for name in check_formats(formats)]
    folder = Path(directory)
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [path for writer in writers for path in writer(result, folder)]


def prepare(directory: str | Path) -> None:
    """Make the folder and check that it can be written, before any work is done.

    Raises:
        BadInput: it cannot.
    """
    folder = Path(directory)
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once.

    Raises:
        BadInput: there is none, or one is unknown; the message lists the known ones.
        ModelUnavailable: the module of a format cannot be imported.
    """
    if not formats:
        raise BadInput(f"formats are {', '.join(registry.names('writer'))}, found none")
    for name in formats:
        registry.load("writer", name)
    return tuple(dict.fromkeys(formats))
