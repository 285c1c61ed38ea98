"""What is known of the families of models: the rows of `families.toml`, which docs/models.md shows.

A family is found by the `model_type` of the model's config.json, where its folder or the hub's
cache has one, else by its name. Every row names the public text that its facts come from.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsvp.platform import machine

MAX_SIDE = 1536  # pixels, see `ModelFamily.max_side`

Region = Literal["boxes", "points", "grid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """What is known of the models of one family.

    Attributes:
        name: empty where the family is unknown, so that all else is assumed.
        pattern: a regular expression; found anywhere in a model's name or folder, case ignored, it
            means this family. `.` after a digit stands for the hub's "2.5", Ollama's "2.5vl" and
            the config's "2_5".
        model_types: what config.json of such models calls them.
        frame: the coordinate frame of their boxes, a `rsvp.frames.FrameKind`.
        box_key: the JSON key under which they learned to write a box.
        strategy: what the `api` preset asks for: boxes or points of families that were trained to
            write coordinates, the grid's bands of all others.
        thinking: how their thinking is switched off or bounded; empty where they have none.
        max_side: images are shrunk to this longest side, in pixels: beyond it models resize or tile
            anyway, and uploads grow.
        max_pixels: and to this area; None without a limit.
        multiple: sides that are multiples of this many pixels are not resized further.
        source: where the frame stands; empty where no public text was found, so that it is assumed.
        run: what of such models was run for this project: names of tests/families, of a class with
            tiny random weights or of a server's dialect.
        profile: the folder of `prompts/` that is written for them.
        single_turn: they were trained on conversations of one question and one reply.
        min_confidence: mean token probability below which their replies are doubted; None where
            that is unknown.
        lexicon: their folder lists all words that they know.
    """

    name: str = ""
    pattern: str = ""
    model_types: tuple[str, ...] = ()
    frame: str = "0-1000"
    box_key: str = "box"
    strategy: Region = "boxes"
    thinking: str = ""
    max_side: int = MAX_SIDE
    max_pixels: int | None = None
    multiple: int = 1
    source: str = ""
    run: tuple[str, ...] = ()
    profile: str = "full"
    single_turn: bool = False
    min_confidence: float | None = None
    lexicon: bool = False

    def doubts(self, confidence: float | None) -> bool:
        """Whether a reply of this confidence is below `min_confidence`."""
        least = self.min_confidence
        return confidence is not None and least is not None and confidence < least

    def view_side(self, height: int, width: int) -> int:
        """The longest side, in pixels, of what is sent of an image of this size."""
        if self.max_pixels is None:
            return self.max_side
        long, short = max(height, width), min(height, width)
        return min(self.max_side, math.isqrt(self.max_pixels * long // short))


UNKNOWN = ModelFamily(strategy="grid")


def _read() -> tuple[ModelFamily, ...]:
    """The rows of `families.toml`."""
    text = (Path(__file__).parent / "families.toml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["family"]
    for row in rows:
        row.update({key: tuple(v) for key, v in row.items() if isinstance(v, list)})
    return tuple(ModelFamily(**row) for row in rows)


FAMILIES = _read()


def family(model: str) -> ModelFamily:
    """The family of a model's name or folder; `UNKNOWN` (0-1000 xyxy, full prompts) of others."""
    name = model.rstrip("/\\")
    found = [row for row in FAMILIES if row.pattern and re.search(row.pattern, name, re.IGNORECASE)]
    if found and found[0].profile != UNKNOWN.profile:
        return found[0]  # the embedded model's config.json names a class that others have too
    kind = _model_type(model)
    return next((row for row in FAMILIES if kind in row.model_types), (*found, UNKNOWN)[0])


def _model_type(model: str) -> str | None:
    """`model_type` of the config.json of a folder, or of a hub id that was downloaded before."""
    folder = machine.local_path(model) or machine.hub_snapshot(model)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8")) if folder else None
    except (OSError, ValueError):
        return None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else None
