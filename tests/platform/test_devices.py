"""The device and dtype: what the caller asks for, else the best of this machine."""

from __future__ import annotations

import pytest
import torch

from rsvp.errors import BadInput
from rsvp.platform.devices import choose_placement, dtype_name


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(cuda, mps)`: the capability of a CUDA device, or None, and whether MPS is there."""

    def install(cuda: tuple[int, int] | None, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return install


@pytest.mark.parametrize(
    ("cuda", "mps", "options", "expected"),
    [
        ((8, 0), True, {}, ("cuda", torch.bfloat16)),
        ((7, 5), True, {}, ("cuda", torch.float16)),
        (None, True, {}, ("mps", torch.float32)),
        (None, True, {"mps_dtype": "float16"}, ("mps", torch.float16)),
        (None, True, {"mps_dtype": None}, ("cpu", torch.float32)),
        (None, False, {"mps_dtype": "float16"}, ("cpu", torch.float32)),
        (None, False, {"dtype": "bf16"}, ("cpu", torch.bfloat16)),
    ],
)
def test_the_choice(machine, cuda, mps, options, expected) -> None:
    machine(cuda, mps)
    chosen = choose_placement(**options)
    assert (chosen.device.type, chosen.dtype) == expected
    assert expected[0] in chosen.reason


def test_what_is_asked_for() -> None:
    chosen = choose_placement("cpu", torch.float16)
    assert chosen.dtype is torch.float16
    assert chosen.reason == "cpu (asked), float16 (asked)"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match="device 'toaster' cannot be used here"):
        choose_placement("toaster")
    with pytest.raises(BadInput, match="dtype is one of float32, bfloat16, float16, found 'int8'"):
        dtype_name("int8")
