"""Every test of a command runs in an empty folder with one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp import registry


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with one picture, and the scripted model under its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "scripted", "scripted_cli:Scripted")
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Pil.fromarray(rgb).save(tmp_path / "a.png")
    return tmp_path
