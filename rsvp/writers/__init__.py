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
from rsvp.writers import labelme, yolo
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
    "index": "index.png", "coco": "coco.json", "coco-rle": "coco-rle.json", "yolo": yolo.DATA,
    "looks": "looks/000.png", "html": "result.html", "vrt": "vrt.jsonl",
}  # fmt: skip


class Writer(Protocol):
    """Gives the files of one format: the name of each, as a path below the folder, and its bytes.

    It writes nothing itself. The folder exists, and is there for paths that are relative to it.
    """

    def __call__(self, result: Segmentation, folder: Path, /) -> Iterable[tuple[str, bytes]]: ...


@contextlib.contextmanager
def output_folder(
    directory: str | Path,
    formats: Sequence[str] = DEFAULT_FORMATS,
    image_path: str | None = None,
) -> Iterator[Path]:
    """Make the folder of a result and lock it, before any work is done.

    Args:
        image_path: of the image that the result will be of.

    Raises:
        BadInput: it cannot be written, another process is at work in it, or it holds a file that
            one of the formats would replace and that belongs to no earlier result.
    """
    folder = Path(directory)
    with locked(folder):
        prepare(folder)
        names = [_TYPICAL[name] for name in formats if name in _TYPICAL]
        if "labelme" in formats:
            names.append(labelme.labelme_file(image_path))
        if "yolo" in formats:
            label, copy = yolo.files_of(image_path)
            names += [label] if yolo.is_same_file(folder / copy, image_path) else [label, copy]
        _refuse_others(folder, names, EarlierResult.read(folder))
        yield folder


def write(
    result: Segmentation, directory: str | Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> list[Path]:
    """Write the result into `directory`, which is made if need be; see `output_folder` for a lock.

    The files of an earlier result are replaced, as far as its `result.json` accounts for them, and
    removed where they are of another image or query; `result.json` is then written whatever the
    formats. LabelMe and YOLO files say themselves that they are rsvp's: without a `result.json`,
    those of other images stay, so that a folder can hold many.

    Args:
        formats: of ``json`` (`result.json`), ``overlay`` (`overlay.png`), ``png`` (`masks/000.png`,
            0 and 255, one a target), ``index`` (`index.png`, the k-th target's pixels are k),
            ``prompt`` (`prompt.png`, what the MLLM saw, if one was called), ``looks``
            (`looks/000.png …`, the closer looks of an answer), ``html`` (`result.html`, a page
            that replays the reasoning), ``vrt`` (`vrt.jsonl`, as VRT-Bench's metric reads it),
            ``coco`` (`coco.json` with polygons), ``coco-rle`` (`coco-rle.json` with run-length
            encodings), ``labelme`` (`NAME.json`, named like the image), ``yolo``
            (`labels/NAME.txt`, a line a target, the image in `images`, and `data.yaml`), and those
            of plug-ins.

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
    outdated = [name for name in _outdated(folder, earlier, result) if name not in files]
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


def _outdated(folder: Path, earlier: EarlierResult | None, result: Segmentation) -> list[str]:
    """An earlier result's files of another image or query, and its further masks."""
    if earlier is None:
        return []
    if earlier.is_of(result):
        return earlier.masks[len(result.targets) :]
    stem = image_stem(earlier.image.path)
    typical = {name for name in _TYPICAL.values() if name != RESULT}
    named = {labelme.labelme_file(earlier.image.path), *yolo.files_of(earlier.image.path)}
    named |= {f"images/{stem}.png"}
    if set(yolo.read_data(folder)[0]) - named:
        typical.discard(yolo.DATA)  # it is of other images too
    candidates = {*typical, *earlier.masks, *named}
    return sorted(
        name
        for name in candidates
        if (folder / name).is_file() and _is_ours(folder, name, earlier, stem)
    )


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
        if file.parent != folder and file.parent.is_symlink():
            raise BadInput(f"{file.parent} is a link; remove it or choose another folder")
        if os.path.lexists(file) and not _is_ours(folder, name, earlier, stem):
            raise BadInput(
                f"{file} belongs to no earlier result of rsvp; choose another folder or move it"
            )


def _is_ours(folder: Path, name: str, earlier: EarlierResult | None, stem: str | None) -> bool:
    """Whether a file that exists is of an earlier result; LabelMe's and YOLO's say so themselves.

    `stem` is that of the image that it may be named for.
    """
    if name == yolo.DATA or name.startswith(("images/", "labels/")):
        files, classes = yolo.read_data(folder)
        return name in files or (name == yolo.DATA and bool(files or classes))
    typical = name in _TYPICAL.values()
    if name.endswith(".json") and not typical:
        return labelme.is_ours(folder / name)
    return earlier is not None and earlier.accounts_for(name, None if typical else stem)


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
