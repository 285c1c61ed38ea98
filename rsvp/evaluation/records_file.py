"""The append-only `records.jsonl` of a run.

A record is written once, whole, as one line, when its sample is done. A kill can only tear the last
line, which is dropped when the run is resumed. A complete run puts its records into the order of
the samples, so that the file is the same whatever happened before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rsvp.errors import BadInput
from rsvp.platform.files import atomic_write, writable

RECORDS = "records.jsonl"
SYNC_EVERY = 16  # records between two fsyncs; a power cut costs at most these, a kill none


class RecordsFile:
    """The records of a run, open for appending; use it as a context manager."""

    def __init__(self, file: Path, *, sync_every: int = SYNC_EVERY) -> None:
        """Open or create the file, dropping a torn last line.

        Raises:
            BadInput: it cannot be opened for writing.
        """
        self.file = file
        self._sync_every = sync_every
        self._unsynced = 0
        with writable(file):
            self._stream: BinaryIO = file.open("ab")
            drop_torn_line(file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; BadInput where the disk refuses it."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        with writable(self.file):
            # A query may hold half a surrogate pair, which UTF-8 cannot.
            self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._stream.flush()
            self._unsynced += 1
            if self._unsynced >= self._sync_every:
                self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._unsynced = 0

    def __enter__(self) -> RecordsFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sync()
        finally:
            self._stream.close()


def drop_torn_line(file: Path) -> None:
    """Cut off a last line without its end, or, after a power cut, one that is not JSON."""
    with file.open("r+b") as stream:
        start, end, line = 0, 0, b""
        for line in stream:
            start, end = end, end + len(line)
        if end and not (line.endswith(b"\n") and _parse(line) is not None):
            stream.truncate(start)


def read_records(file: Path) -> Iterator[dict[str, Any]]:
    """The records as they are in the file, one after the other.

    Raises:
        BadInput: a line is not a record; one line with the file and the line's number.
    """
    for record, _ in _read(file):
        yield record


def keep_records(file: Path, ids: Sequence[str]) -> bool:
    """Put the records into the order of these ids, and drop those of other ids.

    The file is replaced whole or not at all, and left alone where it is in order already; memory
    holds where the lines begin, not the lines.

    Returns:
        Whether the file has changed.

    Raises:
        BadInput: a line is not a record, or the disk refuses the new file.
    """
    spans: dict[str, tuple[int, int]] = {}
    start = 0
    for record, line in _read(file):
        spans[record["id"]] = (start, len(line))
        start += len(line)
    wanted = [spans[sample_id] for sample_id in ids if sample_id in spans]
    if wanted == list(spans.values()):
        return False
    with file.open("rb") as stream:

        def lines() -> Iterator[bytes]:
            for begin, length in wanted:
                stream.seek(begin)
                yield stream.read(length)

        atomic_write(file, lines(), sync=True)
    return True


def drop_failed(file: Path) -> None:
    """Remove the records of failed samples, so that these are pending again."""
    if file.is_file():
        drop_torn_line(file)
        answered = [r["id"] for r in read_records(file) if r.get("failure") is None]
        keep_records(file, answered)


def _read(file: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every record with its line."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            record = _parse(line)
            if record is None:
                raise BadInput(f"{file}: line {number} is not a record")
            yield record, line


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None
