"""`grid`: the paper's own visual prompt (RSVP, ACL 2025): numbered bands that the MLLM names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from rsvp.drawing import grid_prompt
from rsvp.errors import BadInput
from rsvp.frames import Frame, bands_to_box
from rsvp.parsing import RawStep, RawTarget
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import View
from rsvp.strategies.base import (
    INTEGERS,
    CoordinateMap,
    RegionSchemas,
    RegionStrategy,
    size_variables,
)
from rsvp.types import Box, Image, Proposal, RgbArray

DEFAULT_GRID = "9x9"
MAX_BANDS = 50  # a side; more could not be numbered legibly


class GridStrategy(RegionStrategy[View]):
    """The MLLM names the rows and columns that each target spans.

    A proposal's `raw` is the rows and then the columns as written. Steps get the unpadded region
    that they name, or none where they name no bands of the grid.

    Args:
        argument: ``MxN``, how many rows and columns.
        padding: each named region grows by this fraction of its size on every side, because bands
            are coarse and the segmenter needs the whole target.
        max_side: see `RegionStrategy`.
    """

    name = "grid"
    expect = "bands"

    def __init__(
        self, argument: str | None = None, *, padding: float = 0.2, max_side: int | None = None
    ) -> None:
        super().__init__(max_side=max_side)
        self.grid = _parse_grid(DEFAULT_GRID if argument is None else argument)
        if not 0 <= padding <= 10:
            raise BadInput(f"padding is a fraction of the region's size, 0 to 10, found {padding}")
        self.padding = padding

    def check_prompt(self, mllm: str, template: str) -> None:
        """See `ChecksPrompt`: without their number in the prompt, a model knows the usual bands."""
        if "$rows" not in template and self.grid != _parse_grid(DEFAULT_GRID):
            rows, columns = self.grid
            raise BadInput(f"{mllm} knows a grid of {DEFAULT_GRID} only, found {rows}x{columns}")

    def region_schemas(self, frame: Frame | None) -> RegionSchemas:
        bands = {"rows": INTEGERS, "columns": INTEGERS}
        return bands, bands

    def draw(self, rgb: RgbArray, image: Image, query: str, cache: EmbeddingCache | None) -> View:
        rows, columns = map(str, self.grid)
        variables = {**size_variables(rgb), "rows": rows, "columns": columns}
        return View(grid_prompt(rgb, self.grid), variables)

    def step_boxes(self, raw: RawStep, place: CoordinateMap[View]) -> Iterator[Box]:
        with contextlib.suppress(BadInput):
            yield bands_to_box(raw.rows, raw.columns, grid=self.grid, image_size=place.image_size)

    def proposal(self, raw: RawTarget, place: CoordinateMap[View]) -> Proposal:
        box = bands_to_box(
            raw.rows,
            raw.columns,
            grid=self.grid,
            image_size=place.image_size,
            padding=self.padding,
        )
        return Proposal(raw.label, box, raw=(*raw.rows, *raw.columns))


def _parse_grid(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([0-9]{1,3})\s*[xX×]\s*([0-9]{1,3})\s*", text)
    sides = tuple(int(side) for side in found.groups()) if found else ()
    if not sides or not all(1 <= side <= MAX_BANDS for side in sides):
        raise BadInput(f"a grid is MxN with 1 to {MAX_BANDS} rows and columns, found {text!r}")
    return sides[0], sides[1]
