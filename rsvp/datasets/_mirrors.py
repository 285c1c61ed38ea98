"""ReasonSeg as Parquet: the mirrors of Seg-Zero and VisionReasoner, ReasonSeg-X and -R.

Columns: image, text, mask ((H, W) nested lists), image_id, ann_id, img_height, img_width, and for
-X and -R reasoning_type. Their masks were made with ``astype(bool)``: ignored pixels are target.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsvp.datasets import Sample, TrueObject
from rsvp.datasets import _files as files
from rsvp.datasets._parquet import ParquetRows, image_bytes
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask

KIND = "all"


class ReasonSegMirror:
    """The rows of a mirror, in their order.

    An id is the first of image_id, ann_id and ``<image_id>/<ann_id>`` that tells all rows apart:
    image_id is the stem of the official file, so that predictions fit both forms.

    Attributes:
        digest: SHA-256 of the files.
    """

    def __init__(self, parquet: Sequence[Path]) -> None:
        """Open the files.

        Raises:
            BadInput: a file is broken, lacks a column, or has a row without a query or an id.
            MissingExtra: pyarrow is not installed.
        """
        self._rows = ParquetRows(parquet)
        self._file = self._rows.files[0]
        self.digest = self._rows.digest
        for name in ("image", "mask"):
            if name not in self._rows.columns:
                raise BadInput(f"{self._file}: no column {name!r}")
        self._ids = _ids(self._rows)
        self._queries = self._texts("text")
        self._kinds = self._texts("reasoning_type", KIND)
        if not self._ids:
            raise BadInput(f"{self._file}: no rows")

    def __len__(self) -> int:
        return len(self._ids)

    def sample_id(self, index: int) -> str:
        """The id of a row."""
        return self._ids[index]

    def __getitem__(self, index: int) -> Sample:
        where = f"{self._file}: {self._ids[index]}"
        row = self._rows.row(index, ("image", "mask"))
        mask = _mask(row["mask"], where)
        box = mask_to_box(mask)
        query = self._queries[index]
        return Sample(
            id=self._ids[index],
            image=image_bytes(row["image"], where),
            query=query,
            kind=self._kinds[index],
            mask=mask,
            objects=(TrueObject(query, box, mask),) if box else (),
        )

    def _texts(self, column: str, default: str | None = None) -> list[str]:
        """A column of texts; a row without one takes the default, if there is any."""
        if default is not None and column not in self._rows.columns:
            return [default] * len(self._rows)
        texts = []
        for sample_id, value in zip(self._ids, self._rows.column(column), strict=True):
            text = value.strip() if isinstance(value, str) else default
            if not text:
                raise BadInput(f"{self._file}: {sample_id} has no {column}")
            texts.append(text)
        return texts


def _ids(rows: ParquetRows) -> list[str]:
    columns = {name: rows.column(name) for name in ("image_id", "ann_id") if name in rows.columns}
    if not columns:
        raise BadInput(f"{rows.files[0]}: neither a column 'image_id' nor 'ann_id'")
    candidates = [[str(value) for value in values] for values in columns.values()]
    if len(columns) == 2:
        candidates.append(["/".join(pair) for pair in zip(*candidates, strict=True)])
    for ids in candidates:
        if len(set(ids)) == len(ids):
            return ids
    files.check_unique(candidates[-1], rows.files[0])  # names the id that comes twice
    return candidates[-1]


def _mask(column: Any, where: str) -> BoolMask:
    """(H, W) bool from an arrow array of length 1 that holds a list of H lists of W numbers."""
    try:
        lines = column.flatten()
        widths = np.asarray(lines.value_lengths())
        values = lines.flatten()
        pixels = np.asarray(values.to_numpy(zero_copy_only=False))
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"{where}: the mask is not a list of lists of numbers") from None
    missing = column.null_count + lines.null_count + values.null_count
    if missing or pixels.dtype.kind not in "biuf":
        raise BadInput(f"{where}: the mask is not a list of lists of numbers")
    if not widths.size or widths[0] < 1 or (widths != widths[0]).any():
        raise BadInput(f"{where}: the lines of the mask are empty or of different lengths")
    return np.asarray(pixels.reshape(widths.size, -1) != 0)
