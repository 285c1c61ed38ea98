"""The device and dtype: what the caller asks for, else the best of this machine."""

from __future__ import annotations

import pytest
import torch

from rsvp.errors import BadInput
from rsvp.platform.devices import choose_placement, dtype_name


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(cuda, mps)`: the capability of a CUDA device, or None, and whether MPS is there.

    The GPU has 16 GB free. MPS and the CPU compute in bfloat16 unless `old` is set.
    """

    def install(cuda: tuple[int, int] | None, mps: bool, *, old: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (16 * 10**9, 16 * 10**9))
        monkeypatch.setattr("rsvp.platform.devices._computes", lambda *_: not old)
        monkeypatch.setattr("rsvp.platform.machine.multiplies_bfloat16", lambda: not old)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return install


@pytest.mark.parametrize(
    ("cuda", "mps", "options", "expected"),
    [
        ((8, 0), True, {}, ("cuda", torch.bfloat16)),
        ((8, 0), True, {"float32_bytes": 8 * 10**9}, ("cuda", torch.bfloat16)),
        ((7, 5), True, {}, ("cuda", torch.float16)),
        ((7, 5), True, {"float32_bytes": 12 * 10**9}, ("cuda", torch.float32)),
        ((7, 0), True, {"float32_bytes": 14 * 10**9}, ("cuda", torch.float16)),
        (None, True, {}, ("mps", torch.float32)),
        (None, True, {"mps_dtype": "bfloat16"}, ("mps", torch.bfloat16)),
        (None, True, {"mps_dtype": None}, ("cpu", torch.float32)),
        (None, False, {"mps_dtype": "bfloat16"}, ("cpu", torch.float32)),
        (None, False, {"dtype": "bf16"}, ("cpu", torch.bfloat16)),
        (None, False, {"cpu_dtype": "bfloat16"}, ("cpu", torch.bfloat16)),
    ],
)
def test_the_choice(machine, cuda, mps, options, expected) -> None:
    machine(cuda, mps)
    chosen = choose_placement(**options)
    assert (chosen.device.type, chosen.dtype) == expected
    assert expected[0] in chosen.reason


def test_an_older_mps_takes_float32_never_float16(machine) -> None:
    """Gemma 3 writes nothing in float16, and Qwen2-VL exclamation marks."""
    machine(None, True, old=True)
    assert choose_placement(mps_dtype="bfloat16").dtype == torch.float32


def test_a_cpu_without_bfloat16_takes_float32(machine) -> None:
    machine(None, False, old=True)
    assert choose_placement(cpu_dtype="bfloat16").dtype == torch.float32


def test_what_is_asked_for() -> None:
    chosen = choose_placement("cpu", torch.float16)
    assert chosen.dtype is torch.float16
    assert chosen.reason == "cpu (asked), float16 (asked)"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match="device 'toaster' cannot be used here"):
        choose_placement("toaster")
    with pytest.raises(BadInput, match="dtype is one of float32, bfloat16, float16, found 'int8'"):
        dtype_name("int8")
