"""A result as files: `result.json`, `overlay.png`, `masks/000.png …`, and other tools' formats.

Each file appears whole or not at all: it is written beside its place and then moved there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rsvp.drawing import overlay
from rsvp.errors import BadInput
from rsvp.types import Segmentation
from rsvp.writers.coco import to_coco
from rsvp.writers.document import SCHEMA_VERSION, to_dict
from rsvp.writers.files import dumps, place, place_json, png, told
from rsvp.writers.index import index_png, to_index_mask
from rsvp.writers.labelme import to_labelme
from rsvp.writers.supervision import to_supervision
from rsvp.writers.yolo import names_yaml, to_yolo

__all__ = [
    "DEFAULT_FORMATS",
    "SCHEMA_VERSION",
    "check_formats",
    "dumps",
    "prepare",
    "to_coco",
    "to_dict",
    "to_index_mask",
    "to_labelme",
    "to_supervision",
    "to_yolo",
    "write",
]

DEFAULT_FORMATS = ("json", "overlay", "png")


def write(
    result: Segmentation, directory: str | Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> list[Path]:
    """Write the result into `directory`, which is made if need be.

    Masks that an earlier result left there under higher numbers are removed.

    Args:
        formats: of ``json`` (`result.json`), ``overlay`` (`overlay.png`), ``png`` (`masks/000.png`,
            0 and 255, one a target), ``index`` (`index.png`, the k-th target's pixels are k),
            ``prompt`` (`prompt.png`, what the MLLM saw, where one was asked),
            ``coco`` (`coco.json`), ``labelme`` (`labelme.json`) and ``yolo`` (`labels/NAME.txt`, as
            the image is named, a line a target, and `data.yaml`, the names of its classes).

    Returns:
        The files, in the order of `formats`.

    Raises:
        BadInput: an unknown format, or a folder that cannot be written.
    """
    checked = check_formats(formats)
    folder = Path(directory)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [path for name in checked for path in _WRITERS[name](result, folder)]


def prepare(directory: str | Path) -> None:
    """Make the folder and see that it can be written, before any work is done.

    Raises:
        BadInput: it cannot.
    """
    folder = Path(directory)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, each once; BadInput when one is unknown or there is none."""
    unknown = [name for name in formats if name not in _WRITERS]
    if unknown or not formats:
        named = ", ".join(map(repr, unknown)) or "none"
        raise BadInput(f"formats are {', '.join(_WRITERS)}, found {named}")
    return tuple(dict.fromkeys(formats))


def _json(result: Segmentation, folder: Path) -> Iterator[Path]:
    yield place_json(folder / "result.json", to_dict(result))


def _coco(result: Segmentation, folder: Path) -> Iterator[Path]:
    yield place_json(folder / "coco.json", to_coco(result))


def _labelme(result: Segmentation, folder: Path) -> Iterator[Path]:
    yield place_json(folder / "labelme.json", to_labelme(result, folder))


def _yolo(result: Segmentation, folder: Path) -> Iterator[Path]:
    lines, names = to_yolo(result)
    labels = folder / "labels"
    labels.mkdir(exist_ok=True)
    name = f"{Path(result.image.path or 'image').stem}.txt"
    yield place(labels / name, "".join(f"{line}\n" for line in lines).encode())
    yield place(folder / "data.yaml", names_yaml(names).encode())


def _overlay(result: Segmentation, folder: Path) -> Iterator[Path]:
    yield place(folder / "overlay.png", png(overlay(result.image.rgb, result.targets)))


def _index(result: Segmentation, folder: Path) -> Iterator[Path]:
    yield place(folder / "index.png", index_png(to_index_mask(result)))


def _prompt(result: Segmentation, folder: Path) -> Iterator[Path]:
    if result.shown is None:
        (folder / "prompt.png").unlink(missing_ok=True)  # an earlier result's
    else:
        yield place(folder / "prompt.png", png(result.shown))


def _masks(result: Segmentation, folder: Path) -> Iterator[Path]:
    masks = folder / "masks"
    if result.targets:
        masks.mkdir(exist_ok=True)
    for number, target in enumerate(result.targets):
        yield place(masks / f"{number:03d}.png", png(target.mask.astype("uint8") * 255))
    number = len(result.targets)
    while (masks / f"{number:03d}.png").is_file():
        (masks / f"{number:03d}.png").unlink()
        number += 1


_WRITERS: dict[str, Callable[[Segmentation, Path], Iterator[Path]]] = {
    "json": _json,
    "overlay": _overlay,
    "png": _masks,
    "prompt": _prompt,
    "index": _index,
    "coco": _coco,
    "labelme": _labelme,
    "yolo": _yolo,
}
