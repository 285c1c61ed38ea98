"""Files that appear whole or not at all, folders for one process, JSON checked when it is read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rsvp.errors import BadInput

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")

_locked: set[int] = set()  # descriptors of the folders that this process has locked


def atomic_write(path: Path, content: bytes | Iterable[bytes], *, sync: bool = False) -> Path:
    """Write a temporary file beside `path`, then move it there in one step.

    Args:
        content: the bytes, or chunks of them.
        sync: wait until the bytes are on the disk, so that a power cut cannot lose them.

    Raises:
        BadInput: the file cannot be written; one line with the reason.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writable(path):
        try:
            with temporary.open("wb") as stream:
                stream.writelines([content] if isinstance(content, bytes) else content)
                if sync:
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str, *, sync: bool = False) -> Path:
    """Write UTF-8 text atomically; half a surrogate pair, which UTF-8 cannot hold, is escaped."""
    return atomic_write(path, text.encode("utf-8", "backslashreplace"), sync=sync)


def write_json(path: Path, value: Any, *, sync: bool = False) -> Path:
    """Write strict JSON atomically, ending in a line break."""
    return atomic_write(path, json_bytes(value), sync=sync)


def json_bytes(value: Any) -> bytes:
    """A file of strict JSON, ending in a line break."""
    return (dumps(value) + "\n").encode()


def dumps(value: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """Strict JSON: no NaN, and half a surrogate pair of a broken file name as an escape."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; BadInput where it is missing or cannot be read."""
    with readable(path):
        return path.read_bytes()


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON document; BadInput, beginning with `where`, where it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise BadInput(f"{where}: broken JSON: {error}") from error


def validate(check: Callable[[Any], T], value: object, where: str) -> T:
    """A value checked by pydantic.

    Args:
        check: e.g. ``Model.model_validate`` or ``TypeAdapter(…).validate_python``.

    Raises:
        BadInput: it does not fit; one line that begins with `where` and names the first fault.
    """
    try:
        return check(value)
    except ValueError as error:  # pydantic's ValidationError is one
        raise BadInput(f"{where}: {first_fault(cast('ValidationError', error))}") from None


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found, e.g. ``'height' should be int, found str``."""
    fault = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{name!r} is missing"
    kind, of_type, _ = fault["type"].rpartition("_type")
    message = re.sub(r"^(Value error, |\w+ (?=should))", "", fault["msg"])
    if of_type:
        kind = "an object" if kind in ("dict", "model", "model_attributes") else kind
        verb = "should be" if name else "expected"
        message = f"{verb} {kind}, found {type(fault['input']).__name__}"
    return f"{name!r} {message}" if name else message


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into one line."""
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"no such file: {path}") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn errors of writing a file into one line."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """BadInput where a folder cannot be written, or made; nothing is made."""
    with writable(folder):
        nearest = next(
            one for one in (folder.absolute(), *folder.absolute().parents) if one.exists()
        )
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; after `with`, those of them that are empty are removed."""
    with writable(folder):
        new = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty, nor are its parents
            for one in new:
                one.rmdir()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and inside `with` keep other processes out that lock it too.

    A folder that is new and still empty at the end is removed.

    The lock is `flock` on the folder itself: it leaves no file, and it ends with the process, also
    when that is killed. Windows, and file systems without `flock`, have no lock.

    Raises:
        BadInput: another process has locked the folder, or it cannot be made.
    """
    with _made(folder), _flocked(folder):
        yield


@contextlib.contextmanager
def _flocked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    with writable(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    _locked.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(
                f"another rsvp is at work in {folder}; wait for its end or choose another folder"
            ) from None
        except OSError:  # e.g. some network file systems
            pass
        yield
    finally:
        if descriptor in _locked:  # not in a forked child
            _locked.discard(descriptor)
            os.close(descriptor)


def _unlock_in_child() -> None:
    """A forked child, e.g. a data loader, must not keep the lock when its parent is killed."""
    for descriptor in _locked:
        os.close(descriptor)
    _locked.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_unlock_in_child)
