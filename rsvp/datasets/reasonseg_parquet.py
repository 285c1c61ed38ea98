"""ReasonSeg as Parquet: the mirrors of Seg-Zero and VisionReasoner, ReasonSeg-X and -R.

Columns: image, text, mask ((H, W) nested lists), image_id, ann_id, img_height, img_width, and for
-X and -R reasoning_type. Their masks were made with ``astype(bool)``: ignored pixels are target.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsvp.datasets import BaseDataset, Sample, unite
from rsvp.datasets.tables import ParquetTable, packed_image
from rsvp.errors import BadInput
from rsvp.types import BoolMask

KIND = "all"


class ReasonSegParquet(BaseDataset):
    """The rows of a mirror, in their order.

    The ids are the first of image_id, ann_id and ``<image_id>/<ann_id>`` that is unique: image_id
    is the stem of the official file, so that predictions fit both forms.
    """

    def __init__(self, parquet: Sequence[Path]) -> None:
        """Open the files.

        Raises:
            BadInput: a file is broken, lacks a column, or has a row without a query or an id.
            MissingExtra: pyarrow is not installed.
        """
        self._table = ParquetTable(parquet)
        for name in ("image", "mask", "text"):
            self._table.check_column(name)
        super().__init__(self._table.file, self._table.digest, _unique_ids(self._table))
        self._queries = self._table.texts("text")
        kinds = "reasoning_type" in self._table.columns
        self._kinds = self._table.texts("reasoning_type") if kinds else [KIND] * len(self)
        for sample_id, query in zip(self._ids, self._queries, strict=True):
            if not query:
                raise BadInput(f"{self.file}: {sample_id} has no text")

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.file}: {self.sample_id(index)}"
        row = self._table.row(index, ("image", "mask"))
        mask = _mask(row["mask"], where)
        query = self._queries[index]
        return Sample(
            id=self._ids[index],
            image=packed_image(row["image"][0].as_py(), where),
            query=query,
            kind=self._kinds[index] or KIND,
            mask=mask,
            objects=unite([(query, mask)], mask.shape)[1],
        )


def _unique_ids(table: ParquetTable) -> list[str]:
    names = [name for name in ("image_id", "ann_id") if name in table.columns]
    if not names:
        raise BadInput(f"{table.file}: neither a column 'image_id' nor 'ann_id'")
    candidates = [[str(value) for value in table.column(name)] for name in names]
    candidates.append(["/".join(pair) for pair in zip(*candidates, strict=True)])
    return next((ids for ids in candidates if len(set(ids)) == len(ids)), candidates[-1])


def _mask(column: Any, where: str) -> BoolMask:
    """(H, W) bool from an arrow array of length 1 that holds a list of H lists of W numbers."""
    try:
        rows = column.flatten()
        widths = np.asarray(rows.value_lengths())
        values = rows.flatten()
        pixels = np.asarray(values.to_numpy(zero_copy_only=False))
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"{where}: the mask is not a list of lists of numbers") from None
    missing = column.null_count + rows.null_count + values.null_count
    if missing or pixels.dtype.kind not in "biuf":
        raise BadInput(f"{where}: the mask is not a list of lists of numbers")
    if not widths.size or widths[0] < 1 or (widths != widths[0]).any():
        raise BadInput(f"{where}: the lines of the mask are empty or of different lengths")
    return np.asarray(pixels.reshape(widths.size, -1) != 0)
