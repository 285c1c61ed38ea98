"""Optional libraries, imported when a benchmark needs them; the error names what installs them."""

from __future__ import annotations

import importlib
from typing import Any

from rsvp.errors import MissingExtra


def require(module: str, extra: str, feature: str | None = None) -> Any:
    """An optional library, e.g. ``require("pyarrow.parquet", "eval")``.

    Args:
        module: its full name as it is imported.
        extra: the extra of rsvp that installs it.
        feature: what needs it, as the error begins; the module's name by default.

    Raises:
        MissingExtra: it cannot be imported; the message is the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(feature or f"reading this with {module}", extra) from error
