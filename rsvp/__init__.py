"""Reasoning segmentation without training: ask in plain words, get the reason and the exact pixels.

    import rsvp

    pipeline = rsvp.Pipeline.from_preset("embedded")
    result = pipeline.segment("kitchen.png", "what would you cut the bread with?")
    result.mask  # (H, W) bool
    result.save("out")

Importing it loads neither torch nor transformers; names are looked up when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsvp import errors
    from rsvp.errors import RsvpError, RsvpWarning
    from rsvp.images import load_image
    from rsvp.pipeline import Pipeline
    from rsvp.result import Answer, Result, Trace
    from rsvp.types import Box, Point

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Box",
    "Pipeline",
    "Point",
    "Result",
    "RsvpError",
    "RsvpWarning",
    "Trace",
    "__version__",
    "errors",
    "load_image",
]

_HOMES = {
    "Answer": "rsvp.result",
    "Box": "rsvp.types",
    "Pipeline": "rsvp.pipeline",
    "Point": "rsvp.types",
    "Result": "rsvp.result",
    "RsvpError": "rsvp.errors",
    "RsvpWarning": "rsvp.errors",
    "Trace": "rsvp.result",
    "load_image": "rsvp.images",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("rsvp.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'rsvp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
