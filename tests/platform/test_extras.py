"""Optional libraries: asked for by name, never loaded for nothing."""

import subprocess
import sys

import pytest

from rsvp.errors import MissingExtra
from rsvp.platform.extras import require


def test_a_library_that_is_there():
    assert require("json", "eval").loads("1") == 1


def test_a_missing_one_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        MissingExtra, match=r"cv2.*pip install 'rsvp-segmentation\[eval\]'"
    ) as caught:
        require("cv2", "eval")
    assert caught.value.extra == "eval"
    with pytest.raises(MissingExtra, match=r"^drawing polygons needs an optional package"):
        require("cv2", "eval", "drawing polygons")


def test_importing_the_readers_loads_no_optional_library():
    code = (
        "import sys, pkgutil, importlib, rsvp.datasets as d\n"
        "for m in pkgutil.iter_modules(d.__path__):\n"
        "    importlib.import_module(f'{d.__name__}.{m[1]}')\n"
        "print({'cv2', 'pyarrow', 'scipy', 'tfd_utils', 'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
