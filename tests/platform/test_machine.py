"""What counts as a name of the hub's, and what lies at a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from rsvp.platform import machine


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", True),
        ("facebook/sam2.1-hiera-large", True),
        ("gpt2", True),
        ("_a/b_", True),
        ("a/b/c", False),
        ("./no", False),
        ("", False),
        ("a/", False),
        ("a/b\n", False),
        ("x" * 97, False),
    ],
)
def test_names_of_the_hub(name: str, known: bool) -> None:
    assert machine.is_hub_id(name) is known


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_bf16 fsrm", True), ("fpu amx_bf16 amx_tile", True),
     ("fpu avx2 avx512f", False), ("fpu avx512_bf16x", False)],
)  # fmt: skip
def test_bfloat16_is_among_the_cpus_flags(
    flags: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert machine.multiplies_bfloat16() is expected


@given(st.text("ab._-/é~ ", max_size=12))
@example("a.git")
@example("a/b.gitb")
def test_the_hubs_client_takes_every_such_name(name: str) -> None:
    """It raises its own error for the others: they must never reach it."""
    if machine.is_hub_id(name):
        validate_repo_id(name)
    elif name.isascii() and name and "~" not in name and " " not in name:
        with pytest.raises(HFValidationError):
            validate_repo_id(name)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").touch()
    assert machine.local_path("~/a") == tmp_path / "a"
    for name in ("~/b", "~nobody-here/a", "a\0b", "x" * 5000):
        assert machine.local_path(name) is None
