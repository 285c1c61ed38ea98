"""Keep a torchvision that cannot be imported away from transformers.

A torchvision built for another torch fails with ``operator torchvision::nms does not exist``, and
transformers, which only looks whether the package is there, then fails in every class. rsvp never
needs it. This module imports no torch of its own; call `hide_broken_torchvision` right before
importing transformers.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys

_NAME = "torchvision"


@functools.cache
def hide_broken_torchvision() -> str | None:
    """Make a torchvision that fails to import look uninstalled, for this process.

    A sound torchvision, or none, is left alone. The first call decides, later ones repeat it.

    Returns:
        Why it was hidden, in one line, for `rsvp doctor`; None when nothing was hidden.
    """
    if sys.modules.get(_NAME) is not None or importlib.util.find_spec(_NAME) is None:
        return None
    try:
        importlib.import_module(_NAME)
    except Exception as error:  # a broken binary raises anything: RuntimeError, OSError, ...
        _hide()
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return None


def _hide() -> None:
    for name in [name for name in sys.modules if name.startswith(f"{_NAME}.")]:
        del sys.modules[name]
    # None makes `import torchvision` fail and `find_spec` answer None, as if it were not installed.
    sys.modules[_NAME] = None  # type: ignore[assignment]
