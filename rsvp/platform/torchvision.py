"""Hide a torchvision that cannot be imported, and replace modules while a package is imported.

A torchvision built for another torch fails with ``operator torchvision::nms does not exist``.
transformers only checks that the package is installed, and then fails in every class. rsvp never
needs torchvision. This module imports no torch; call `hide_broken_torchvision` right before
importing transformers.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = "torchvision"


@functools.cache
def hide_broken_torchvision() -> str | None:
    """Make a torchvision that fails to import look uninstalled, in this process.

    A working torchvision is left alone. Later calls return the result of the first one.

    Returns:
        Why it was hidden, in one line, for `rsvp doctor`; None when nothing was hidden.
    """
    if sys.modules.get(_NAME) is not None or importlib.util.find_spec(_NAME) is None:
        return None
    try:
        importlib.import_module(_NAME)
    except Exception as error:  # a broken binary raises anything: RuntimeError, OSError, ...
        for name in [name for name in sys.modules if name.startswith(f"{_NAME}.")]:
            del sys.modules[name]
        # None makes `import torchvision` fail and `find_spec` answer None, as if not installed.
        sys.modules[_NAME] = None  # type: ignore[assignment]
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return None


def torchvision_works() -> bool:
    """Whether torchvision is installed and can be imported."""
    hide_broken_torchvision()
    return sys.modules.get(_NAME) is not None


@contextlib.contextmanager
def stub_modules(contents: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Put small modules in place of real ones, while a package that imports them is imported.

    Args:
        contents: full name -> the module's attributes; submodules become attributes by themselves.
    """
    stubs = {name: types.ModuleType(name) for name in contents}
    for name, stub in stubs.items():
        vars(stub).update(contents[name])
        parent, _, child = name.rpartition(".")
        if parent in stubs:
            setattr(stubs[parent], child, stub)
    before = {name: sys.modules[name] for name in stubs if name in sys.modules}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]
        sys.modules.update(before)
