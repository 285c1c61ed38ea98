"""Parquet files row by row: small columns at once, pictures and masks one sample at a time."""

from __future__ import annotations

import bisect
import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput
from rsvp.platform.extras import require

SUFFIX = ".parquet"


def find_parquet(source: Path, split: str | None = None) -> list[Path]:
    """The Parquet files of a dataset, in the order of their names; none where there are none.

    Args:
        source: such a file, a folder of them, or one with a ``data`` folder, as the hub has it.
        split: only the files named ``<split>-…``.

    Raises:
        BadInput: the files belong to several splits and none was chosen, or it has no file.
    """
    if source.is_file() and source.suffix == SUFFIX:
        return [source]
    found = sorted(source.glob(f"*{SUFFIX}")) or sorted(source.glob(f"data/*{SUFFIX}"))
    splits = sorted({file.stem.partition("-")[0] for file in found})
    if split is not None and found:
        found = [file for file in found if file.stem.partition("-")[0] == split]
        if not found:
            raise BadInput(f"{source}: no split {split!r}; found {', '.join(splits)}")
    elif len(splits) > 1:
        raise BadInput(f"{source}: several splits, choose one of {', '.join(splits)}")
    return found


class ParquetRows:
    """The rows of Parquet files, numbered through.

    Reading rows in order decodes every page once and keeps one row; going back begins the row
    group anew. May be used from several threads, and pickled.

    Attributes:
        files: in their order.
        columns: names of the columns, the same in every file.
        digest: SHA-256 of the files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Open the files.

        Raises:
            BadInput: one is broken, or of other columns than the first.
            MissingExtra: pyarrow is not installed.
        """
        parquet = require("pyarrow.parquet", "eval", "reading Parquet files")
        self._errors = (require("pyarrow", "eval").ArrowException, OSError)
        self.files = tuple(files)
        self._open: list[Any] = []
        self._groups: list[tuple[int, int]] = []  # (file, row group in it)
        self._starts: list[int] = []  # the first row of each group
        self._rows = 0
        self.columns: tuple[str, ...] = ()
        digest = hashlib.sha256()
        for number, file in enumerate(self.files):
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
                opened = parquet.ParquetFile(file, memory_map=True)
            except self._errors as error:
                raise BadInput(f"cannot read {file}: {_one_line(error)}") from error
            self._add(number, opened)
        self.digest = digest.hexdigest()
        self._lock = threading.Lock()
        self._cursor: Iterator[Any] = iter(())
        self._cursor_at: tuple[int, tuple[str, ...], int] = (-1, (), 0)

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> tuple[type[ParquetRows], tuple[tuple[Path, ...]]]:
        return ParquetRows, (self.files,)

    def column(self, name: str) -> list[Any]:
        """A whole column as Python values; for small ones.

        Raises:
            BadInput: there is no such column, or the file is broken.
        """
        if name not in self.columns:
            known = ", ".join(self.columns)
            raise BadInput(f"{self.files[0]}: no column {name!r}; found {known}")
        values: list[Any] = []
        for file, opened in zip(self.files, self._open, strict=True):
            try:
                values += opened.read(columns=[name]).column(name).to_pylist()
            except self._errors as error:
                raise BadInput(f"{file}: cannot read {name!r}: {_one_line(error)}") from error
        return values

    def row(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row: arrow arrays of length 1, by name.

        Raises:
            IndexError: beyond the last row.
            BadInput: the file is broken.
        """
        if not 0 <= index < self._rows:
            raise IndexError(index)
        group = bisect.bisect_right(self._starts, index) - 1
        with self._lock:
            try:
                batch = self._advance(group, tuple(columns), index - self._starts[group])
            except (*self._errors, StopIteration) as error:
                self._cursor_at = (-1, (), 0)
                file = self.files[self._groups[group][0]]
                raise BadInput(f"{file}: cannot read row {index}: {_one_line(error)}") from error
        return {name: batch.column(name) for name in columns}

    def _advance(self, group: int, columns: tuple[str, ...], row: int) -> Any:
        """The batch of one row of a group; the cursor then stands behind it."""
        at_group, at_columns, at = self._cursor_at
        if (at_group, at_columns) != (group, columns) or at > row:
            file, number = self._groups[group]
            self._cursor, at = (
                self._open[file].iter_batches(1, row_groups=[number], columns=list(columns)),
                0,
            )
        for _ in range(at, row):
            next(self._cursor)
        batch = next(self._cursor)
        self._cursor_at = (group, columns, row + 1)
        return batch

    def _add(self, number: int, opened: Any) -> None:
        names = tuple(opened.schema_arrow.names)
        if number and names != self.columns:
            raise BadInput(f"{self.files[number]}: other columns than {self.files[0].name}")
        self.columns = names
        self._open.append(opened)
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if rows:
                self._groups.append((number, group))
                self._starts.append(self._rows)
                self._rows += rows


def image_bytes(column: Any, where: str) -> bytes:
    """The encoded image of a row: a binary, or a struct with ``bytes`` as the hub stores images.

    Raises:
        BadInput: there is none; begins with `where`.
    """
    value = column[0].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes) or not data:
        raise BadInput(f"{where}: the row holds no image bytes")
    return data


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
