"""A torchvision that cannot be imported is hidden from transformers, a sound one is not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from rsvp.platform.torchvision import (
    hide_broken_torchvision,
    stub_modules,
    torchvision_works,
)


@pytest.fixture
def fake_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a torchvision of the given source in front of the path; forget it afterwards."""
    saved = {name: sys.modules[name] for name in sys.modules if name.split(".")[0] == "torchvision"}

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        hide_broken_torchvision.cache_clear()
        importlib.invalidate_caches()

    def install(source: str) -> None:
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(source)
        (package / "ops.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    forget()
    sys.modules.update(saved)


def test_a_broken_torchvision_looks_uninstalled(fake_torchvision) -> None:
    fake_torchvision(
        "import torchvision.ops\n"
        "raise RuntimeError('operator torchvision::nms does not exist\\nsecond line')"
    )
    why = hide_broken_torchvision()
    assert why == "RuntimeError: operator torchvision::nms does not exist"
    assert importlib.util.find_spec("torchvision") is None
    assert "torchvision.ops" not in sys.modules
    assert hide_broken_torchvision() == why  # asked again, the same answer
    assert not torchvision_works()
    with pytest.raises(ImportError):
        import torchvision  # noqa: F401


def test_a_sound_torchvision_stays(fake_torchvision) -> None:
    fake_torchvision("sound = True")
    assert hide_broken_torchvision() is None
    assert torchvision_works()
    assert sys.modules["torchvision"].sound


def test_stub_modules_exist_only_inside_their_context() -> None:
    before = sys.modules.get("torchvision", "absent")
    with stub_modules({"torchvision": {}, "torchvision.ops": {"nms": len}, "only.here": {}}):
        from torchvision import ops
        from torchvision.ops import nms

        assert nms is ops.nms is len
    assert sys.modules.get("torchvision", "absent") is before
    assert "only.here" not in sys.modules
    assert "torchvision.ops" not in sys.modules or before != "absent"
