"""A run's folder: `config.json`, the append-only `records.jsonl`, and `summary.json`.

A record is written once, whole, as one line. A kill can only tear the last line, which is dropped
when the run is resumed. JSON files are replaced atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from rsvp.errors import BadInput

Json = Mapping[str, Any]

GROUP = 16  # records between two fsyncs; a power cut costs at most these, a kill none


class Ledger:
    """The records of a run, open for appending; use it as a context manager."""

    def __init__(self, file: Path, *, group: int = GROUP) -> None:
        """Open or create the file, dropping a torn last line.

        Raises:
            BadInput: it cannot be opened for writing.
        """
        self.file = file
        self._group = group
        self._waiting = 0
        try:
            self._stream: BinaryIO = file.open("ab")
            mend(file)
        except OSError as error:
            raise BadInput(f"cannot write {file}: {error.strerror}") from error

    def append(self, record: Json) -> None:
        """Write one record.

        Raises:
            BadInput: the disk refuses it.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            # A query may hold half a surrogate pair, which UTF-8 cannot.
            self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._stream.flush()
            self._waiting += 1
            if self._waiting >= self._group:
                self._sync()
        except OSError as error:
            raise BadInput(f"cannot write {self.file}: {error.strerror}") from error

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._waiting = 0

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._sync()
        finally:
            self._stream.close()


def mend(file: Path) -> None:
    """Cut off a last line that is torn: without its end, or, after a power cut, not JSON."""
    with file.open("r+b") as stream:
        end, last = 0, 0
        whole = True
        for line in stream:
            last, end = end, end + len(line)
            whole = line.endswith(b"\n")
        stream.seek(last)
        if end and not (whole and _is_record(stream.read())):
            stream.truncate(last)


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a ledger, one after the other.

    Raises:
        BadInput: a line is not a record; one line with the file and the line's number.
    """
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not _is_record(line):
                raise BadInput(f"{file}: line {number} is not a record")
            yield json.loads(line)


def write_json(file: Path, document: Json) -> None:
    """Write a JSON file so that it is there whole or not at all.

    Raises:
        BadInput: it cannot be written.
    """
    draft = file.with_name(file.name + ".part")
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with draft.open("wb") as stream:
            stream.write(text.encode("utf-8", "backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; BadInput where it is missing or broken."""
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file}: broken JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{file}: not a JSON object")
    return document


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("id"), str)
