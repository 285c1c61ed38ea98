"""Tables row by row: Parquet, TSV as VLMEvalKit has it, and TFRecord without TensorFlow.

Texts are read at once, an image or a mask when its row is asked for. What is missing or broken
raises BadInput with the name of the file.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import csv
import hashlib
import io
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rsvp.errors import BadInput, one_line
from rsvp.platform.extras import require
from rsvp.platform.files import readable

IMAGE, INDEX, SUFFIX = "image", "index", ".parquet"

Features = Mapping[str, tuple[Any, ...]]

_MAX_FIELD = 2**31 - 1  # csv's own default refuses any image
_MAX_REFERENCE = 64  # a shorter image text is the index of the row that has the image
_HEADER, _CRC = struct.Struct("<QI"), struct.Struct("<I")  # of a record in a TFRecord file
_CRC_DELTA = 0xA282EAD8


def open_table(source: Path, split: str | None = None) -> ParquetTable | TsvTable:
    """The table that a file is, or the only one in a folder; MissingExtra without pyarrow.

    Args:
        split: which one, where a folder has several, see `find_parquet`.
    """
    tables = sorted(source.glob("*.tsv")) if split else []
    chosen = [file for file in tables if split and _is_split(file, split)]
    if tables and len(chosen) != 1:
        names = ", ".join(file.name for file in chosen or tables)
        raise BadInput(f"{source}: {split!r} is not one table of it; found {names}")
    if tsv := find_file(chosen[0] if chosen else source, ".tsv", "tables"):
        return TsvTable(tsv)
    if parquet := find_parquet(source, split):
        return ParquetTable(parquet)
    raise BadInput(f"{source}: neither a TSV nor a Parquet file")


def find_file(source: Path, suffix: str, what: str) -> Path | None:
    """The file that `source` is, or the only one in it; None without any.

    BadInput where there are several; the message calls them `what`.
    """
    if source.is_file() and source.suffix == suffix:
        return source
    found = sorted(source.glob(f"*{suffix}"))
    if len(found) > 1:
        raise BadInput(f"{source}: several {what}, name one: {', '.join(f.name for f in found)}")
    return found[0] if found else None


def find_parquet(source: Path, split: str | None = None) -> list[Path]:
    """The Parquet files of a dataset, in the order of their names; none where there are none.

    Args:
        source: such a file, a folder of them, or one with a ``data`` folder, as the hub has it.
        split: only the files named ``<split>-…``, or as ``4k`` ``…_<split>-…``; required where
            there are several splits.
    """
    if source.is_file() and source.suffix == SUFFIX:
        return [source]
    found = sorted(source.glob(f"*{SUFFIX}")) or sorted(source.glob(f"data/*{SUFFIX}"))
    splits = sorted({file.stem.partition("-")[0] for file in found})
    if split is not None and found:
        found = [file for file in found if _is_split(file, split)]
        if not found:
            raise BadInput(f"{source}: no split {split!r}; found {', '.join(splits)}")
    elif len(splits) > 1:
        raise BadInput(f"{source}: several splits, choose one of {', '.join(splits)}")
    return found


def _is_split(file: Path, split: str) -> bool:
    name = file.stem.partition("-")[0]
    return name == split or name.endswith(f"_{split}")


def optional_texts(table: ParquetTable | TsvTable, name: str, default: str = "") -> list[str]:
    """A column as stripped text; `default` in every row where it is missing."""
    return table.texts(name) if name in table.columns else [default] * len(table)


def packed_image(value: object, where: str) -> bytes:
    """The encoded image in a cell: bytes, base64 text, or a struct with ``bytes`` as on the hub."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, str):
        try:
            data = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if not data:
            raise BadInput(f"{where}: the image is not base64 text")
    if not isinstance(data, bytes) or not data:
        raise BadInput(f"{where}: the row holds no image bytes")
    return data


class ParquetTable:
    """The rows of Parquet files, numbered across the files.

    Reading rows in order decodes every page once and keeps one row; reading an earlier row decodes
    its row group again from the start. May be used from several threads, and pickled.

    Attributes:
        file: the first file; error messages begin with it.
        columns: names of the columns, the same in every file.
        digest: SHA-256 of the files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        parquet = require("pyarrow.parquet", "eval", "reading Parquet files")
        self._errors = (require("pyarrow", "eval").ArrowException, OSError, StopIteration)
        self._files, self.file = tuple(files), files[0]
        self.columns: tuple[str, ...] = ()
        self._open: list[tuple[Path, Any]] = []
        self._groups: list[tuple[Path, Any, int]] = []  # file, opened file, row group in it
        self._starts: list[int] = []  # the first row of each group
        self._rows = 0
        digest = hashlib.sha256()
        for file in self._files:
            with self._reading(f"cannot read {file}"):
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
                opened = parquet.ParquetFile(file, memory_map=True)
                columns = tuple(opened.schema_arrow.names)
                rows = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
            if self._open and columns != self.columns:
                raise BadInput(f"{file}: other columns than {self.file.name}")
            self.columns = columns
            self._open.append((file, opened))
            for group, count in enumerate(rows):
                if count:
                    self._groups.append((file, opened, group))
                    self._starts.append(self._rows)
                    self._rows += count
        self.digest = digest.hexdigest()
        self._lock = threading.Lock()
        self._cursor: Iterator[Any] = iter(())
        self._cursor_at: tuple[int, tuple[str, ...], int] = (-1, (), 0)  # group, columns, next row

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> tuple[type[ParquetTable], tuple[tuple[Path, ...]]]:
        return ParquetTable, (self._files,)

    def column(self, name: str) -> list[Any]:
        """A whole column as Python values; for small ones."""
        self.check_column(name)
        values: list[Any] = []
        for file, opened in self._open:
            with self._reading(f"{file}: cannot read {name!r}"):
                values += opened.read(columns=[name]).column(name).to_pylist()
        return values

    def texts(self, name: str) -> list[str]:
        """A column as stripped text, "" where a row has nothing."""
        # NaN, which pandas writes for nothing, is the one value that differs from itself.
        values = self.column(name)
        return ["" if v is None or v != v else str(v).strip() for v in values]  # noqa: PLR0124

    def row(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row: arrow arrays of length 1, by name; IndexError beyond the last."""
        if not 0 <= index < self._rows:
            raise IndexError(index)
        group = bisect.bisect_right(self._starts, index) - 1
        file, opened, number = self._groups[group]
        row, key = index - self._starts[group], (group, tuple(columns))
        with self._lock, self._reading(f"{file}: cannot read row {index}"):
            *at, next_row = self._cursor_at
            self._cursor_at = (-1, (), 0)  # stays so where reading fails
            if tuple(at) != key or next_row > row:
                next_row = 0
                self._cursor = opened.iter_batches(1, row_groups=[number], columns=list(columns))
            for _ in range(next_row, row):
                next(self._cursor)
            batch = next(self._cursor)
            self._cursor_at = (*key, row + 1)
        return {name: batch.column(name) for name in columns}

    def image(self, row: int, where: str | None = None) -> bytes:
        """The encoded image of a row; `where` begins the message if there is none."""
        self.check_column(IMAGE)
        value = self.row(row, (IMAGE,))[IMAGE][0].as_py()
        return packed_image(value, where or f"{self.file}: row {row}")

    def check_column(self, name: str) -> None:
        """Raise BadInput unless there is such a column."""
        if name not in self.columns:
            raise BadInput(f"{self.file}: no column {name!r}; found {', '.join(self.columns)}")

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn errors of pyarrow into one line."""
        try:
            yield
        except self._errors as error:
            raise BadInput(f"{what}: {one_line(error)}") from error


class TsvTable:
    """Tab-separated values with a header; quoted fields may hold line ends.

    Attributes:
        file, columns, digest: see `ParquetTable`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        digest = hashlib.sha256()
        self._spans: list[tuple[int, int]] = []
        self._texts: dict[str, list[str]] = {}
        self._references: list[str] = []
        with open_csv(file) as stream:
            records = _records(stream, digest.update)
            self.columns = tuple(next(records, (0, 0, []))[2])
            for row, (start, end, values) in enumerate(records):
                if len(values) != len(self.columns):
                    raise BadInput(
                        f"{file}: row {row}: {len(values)} fields, "
                        f"the header has {len(self.columns)}"
                    )
                self._spans.append((start, end))
                for name, value in zip(self.columns, values, strict=True):
                    if name != IMAGE:
                        self._texts.setdefault(name, []).append(value.strip())
                    else:
                        self._references.append(value if len(value) <= _MAX_REFERENCE else "")
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._spans)

    def texts(self, name: str) -> list[str]:
        if name not in self.columns or name == IMAGE:
            raise BadInput(f"{self.file}: no column {name!r}; found {', '.join(self.columns)}")
        return self._texts.get(name, [])

    def image(self, row: int) -> bytes:
        where = f"{self.file}: row {row}"
        if IMAGE not in self.columns:
            raise BadInput(f"{self.file}: no column {IMAGE!r}")
        reference = self._references[row]
        if reference:
            indices = self._texts.get(INDEX, [])
            if reference not in indices or self._references[indices.index(reference)]:
                raise BadInput(f"{where}: no row has the image {reference!r}")
            row = indices.index(reference)
        start, end = self._spans[row]
        with open_csv(self.file) as stream:
            stream.seek(start)
            text = stream.read(end - start).decode()
            values = next(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
        return packed_image(values[self.columns.index(IMAGE)], where)


@contextmanager
def open_csv(file: Path) -> Iterator[BinaryIO]:
    """Open a file for csv with fields of any length; BadInput where it is missing or broken."""
    # The limit is global: resetting it would break another thread that is reading.
    csv.field_size_limit(_MAX_FIELD)
    try:
        with readable(file), file.open("rb") as stream:
            yield stream
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: broken table: {error}") from error


def _records(
    stream: BinaryIO, on_line: Callable[[bytes], object]
) -> Iterator[tuple[int, int, list[str]]]:
    """Each record that is not blank, and the bytes that it spans."""
    start = end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in stream:
            on_line(line)
            end += len(line)
            yield line.decode("utf-8-sig" if end == len(line) else "utf-8")

    for values in csv.reader(lines(), delimiter="\t"):
        if values:
            yield start, end, values
        start = end


class TfRecords:
    """The records of a TFRecord file, each a `tf.train.Example`, read one at a time.

    tfd-utils has the message types. Its own reader is not used: it unpickles an index file that
    lies beside the data, so that such a file could run code here. Format (length, its CRC, data,
    its CRC): https://www.tensorflow.org/tutorials/load_data/tfrecord.

    Opening it reads the file once, to find its records and verify their checksums: BadInput has the
    offset of the first that is truncated or damaged. MissingExtra without tfd-utils.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._example = require("tfd_utils.pb2", "eval", "reading TFRecord files").Example
        self._errors = require("google.protobuf.message", "eval").DecodeError
        self._crc: Callable[[bytes], int] = require("crc32c", "eval").crc32c
        digest = hashlib.sha256()
        self._offsets: list[int] = []
        with readable(file), file.open("rb") as stream:
            while data := self._next(stream):
                self._offsets.append(stream.tell() - len(data))
                digest.update(data)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Features:
        """The features of a record: name -> its values, bytes, ints or floats."""
        with readable(self.file), self.file.open("rb") as stream:
            stream.seek(self._offsets[index])
            data = self._next(stream)[_HEADER.size : -_CRC.size]
        try:
            features = self._example.FromString(data).features.feature
        except self._errors:
            raise BadInput(f"{self.file}: record {index} is no tf.train.Example") from None
        kinds = ((name, one, one.WhichOneof("kind")) for name, one in features.items())
        return {name: tuple(getattr(one, kind).value) for name, one, kind in kinds if kind}

    def image(self, index: int, where: str) -> bytes:
        """The encoded image of a record; BadInput, beginning with `where`, if there is none."""
        values = self[index].get("image")
        if not values or not isinstance(values[0], bytes):
            raise BadInput(f"{where}: the record holds no image bytes")
        return values[0]

    def _next(self, stream: BinaryIO) -> bytes:
        """The next record with its header and checksum; nothing at the end."""
        where = f"{self.file}: the record at byte {stream.tell()}"
        header = stream.read(_HEADER.size)
        if not header:
            return b""
        if len(header) < _HEADER.size:
            raise BadInput(f"{where} is truncated")
        length, check = _HEADER.unpack(header)
        if self._masked(header[:8]) != check:
            raise BadInput(f"{where} is damaged, or this is no TFRecord file")
        # Checked first: `read` would allocate the memory for a length beyond the end.
        if length + _CRC.size > os.fstat(stream.fileno()).st_size - stream.tell():
            raise BadInput(f"{where} is truncated")
        data, trailer = stream.read(length), stream.read(_CRC.size)
        if self._masked(data) != _CRC.unpack(trailer)[0]:
            raise BadInput(f"{where} is damaged")
        return header + data + trailer

    def _masked(self, data: bytes) -> int:
        """The format's checksum: CRC-32C, rotated and shifted."""
        crc = self._crc(data)
        return (((crc >> 15) | (crc << 17)) + _CRC_DELTA) & 0xFFFFFFFF
