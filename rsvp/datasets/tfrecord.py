"""TFRecord files: a sequence of `tf.train.Example`, read without TensorFlow.

tfd-utils has the message types. Its own reader is not used: it unpickles an index file that lies
beside the data, so that such a file could run code here.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord (length, its CRC, data, its CRC).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rsvp.errors import BadInput
from rsvp.platform.extras import require
from rsvp.platform.files import readable

Features = Mapping[str, tuple[Any, ...]]

_HEADER, _CRC = struct.Struct("<QI"), struct.Struct("<I")
_MASK = 0xA282EAD8


class TfRecords:
    """The records of a TFRecord file, read one at a time.

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
        return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF
