"""What readers of annotation files share: bytes, JSON, fields; each refused in one clear line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from rsvp.errors import BadInput
from rsvp.images import MAX_PIXELS

T = TypeVar("T")

_LONGEST = 255  # bytes of a part of a path, on every common file system


def read_bytes(file: Path) -> bytes:
    """The bytes of a file; BadInput where it is missing or cannot be read."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no such file: {file}") from None
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON document; BadInput, beginning with `where`, where it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise BadInput(f"{where}: broken JSON: {error}") from error


def field(entry: object, name: str, kind: type[T], where: str) -> T:
    """A field of a JSON object.

    Raises:
        BadInput: `entry` is no object, lacks the field, or holds another type there. `int` takes
            no bool, `float` takes whole numbers too.
    """
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: expected an object, found {type(entry).__name__}")
    value: Any = entry.get(name)
    accepted: Any = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        found = type(value).__name__ if name in entry else "nothing"
        raise BadInput(f"{where}: {name!r} should be {kind.__name__}, found {found}")
    return value  # type: ignore[no-any-return]


def size_of(entry: object, where: str) -> tuple[int, int]:
    """(H, W) from a JSON object's ``height`` and ``width``; BadInput unless an image can be so."""
    size = field(entry, "height", int, where), field(entry, "width", int, where)
    check_size(*size, where)
    return size


def check_size(height: int, width: int, where: str) -> None:
    """BadInput, beginning with `where`, unless an image can have this size."""
    if height < 1 or width < 1:
        raise BadInput(f"{where}: the size {width}x{height} is not positive")
    if height * width > MAX_PIXELS:
        raise BadInput(f"{where}: {width}x{height} pixels are too many for an image")


def check_unique(ids: Iterable[str], where: str | Path) -> None:
    """BadInput names the first id that comes twice."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise BadInput(f"{where}: two samples have the id {one!r}")
        seen.add(one)


def inside(folder: Path, name: str, where: str) -> Path:
    """The file `name` of `folder`; it need not be there.

    Raises:
        BadInput: no file can have this name, or it leads out of the folder; begins with `where`.
    """
    path = Path(name)
    too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST for part in path.parts)
    if not path.name or "\0" in name or too_long or len(name) > 10 * _LONGEST:
        raise BadInput(f"{where}: {name[:60]!r} is no file name")
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(f"{where}: {name[:60]!r} leads out of the folder")
    return folder / path
