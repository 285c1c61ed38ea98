"""A result as files: `result.json`, `overlay.png`, `masks/000.png …`, and other tools' formats.

A format is a function ``(Segmentation, folder) -> (name, bytes) of each file`` in the registry,
kind ``writer``; an installed package adds one by the entry point ``writer.NAME`` in the group
``rsvp.backends``.
"""

from __future__ import annotations

import contextlib
import os.path
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rsvp import registry
from rsvp.errors import BadInput
from rsvp.platform.files import atomic_write, locked, writable
from rsvp.types import Segmentation
from rsvp.writers.coco import to_coco
from rsvp.writers.common import image_stem
from rsvp.writers.document import RESULT, EarlierResult, to_dict
from rsvp.writers.html import to_html
from rsvp.writers.supervision import to_supervision

__all__ = [
    "ANSWER_FORMATS",
    "DEFAULT_FORMATS",
    "TRACE_FORMATS",
    "Writer",
    "check_formats",
    "output_folder",
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
# A file that each format writes, whatever the result (but for one without targets).
_TYPICAL = {
    "json": RESULT, "overlay": "overlay.png", "png": "masks/000.png", "prompt": "prompt.png",
    "index": "index.png", "coco": "coco.json", "labelme": "labelme.json", "yolo": "data.yaml",
    "looks": "looks/000.png", "html": "result.html", "vrt": "vrt.jsonl",
}  # fmt: skip


class Writer(Protocol):
    """Gives the files of one format: the name of each, as a path below the folder, and its bytes.

    It writes nothing itself. The folder exists, and is there for paths that are relative to it.
    """

    def __call__(self, result: Segmentation, folder: Path, /) -> Iterable[tuple[str, bytes]]: ...


@contextlib.contextmanager
def output_folder(
    directory: str | Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> Iterator[Path]:
    """Make the folder of a result and lock it, before any work is done.

    Raises:
        BadInput: it cannot be written, another process is at work in it, or it holds a file that
            one of the formats would replace and that belongs to no earlier result.
    """
    folder = Path(directory)
    with locked(folder):
        prepare(folder)
        names = [_TYPICAL[name] for name in formats if name in _TYPICAL]
        _refuse_others(folder, names, EarlierResult.read(folder))
        yield folder


def write(
    result: Segmentation, directory: str | Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> list[Path]:
    """Write the result into `directory`, which is made if need be; see `output_folder` for a lock.

    The files of an earlier result are replaced, as far as its `result.json` accounts for them, and
    so are its further masks; `result.json` is then written whatever the formats.

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
        BadInput: an unknown format, a folder that cannot be written, or a file in it that belongs
            to no earlier result; then nothing is written.
    """
    folder, names = Path(directory), check_formats(formats)
    earlier = EarlierResult.read(folder)
    if earlier and "json" not in names:
        names = ("json", *names)
    writers: list[Writer] = [registry.load("writer", name) for name in names]
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {name: content for writer in writers for name, content in writer(result, folder)}
    outdated = earlier.masks[len(result.targets) :] if earlier else []
    if earlier and "prompt" in names and "prompt.png" not in files:
        outdated.append("prompt.png")
    outdated += [name for name in (earlier.pictures if earlier else ()) if name not in files]
    _refuse_others(folder, [*files, *outdated], earlier, image_stem(result.image.path))
    with writable(folder):
        for name in outdated:
            (folder / name).unlink(missing_ok=True)
        # `result.json` first: after a kill it accounts for the others.
        for name in sorted(files, key=lambda name: name != RESULT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / name, files[name])
    return [folder / name for name in files]


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


def _refuse_others(
    folder: Path, names: Iterable[str], earlier: EarlierResult | None, stem: str | None = None
) -> None:
    """BadInput where a file exists that the earlier result does not account for.

    `stem` is what files are called that are named like the new image.
    """
    for name in names:
        file = folder / name
        named = None if name in _TYPICAL.values() else stem
        ours = earlier and earlier.accounts_for(name, named)
        if file.parent != folder and file.parent.is_symlink():
            raise BadInput(f"{file.parent} is a link; remove it or choose another folder")
        if os.path.lexists(file) and not ours:
            raise BadInput(
                f"{file} belongs to no earlier result of rsvp; choose another folder or move it"
            )


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
