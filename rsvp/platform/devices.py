"""The device and the dtype that a network runs with, and why. Imports torch only when called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rsvp.errors import BadInput, first_line
from rsvp.platform import machine

if TYPE_CHECKING:
    import torch

_ALIASES = {
    "float32": "float32", "fp32": "float32",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "fp16": "float16",
}  # fmt: skip

_WEIGHTS_SHARE = 0.8  # of the free GPU memory that weights may take; activations need the rest


@dataclass(frozen=True, slots=True)
class DevicePlacement:
    """Where a network runs.

    Attributes:
        device: of its weights.
        dtype: of its large products (or of its weights as well, if the backend says so).
        reason: why, in one line for the log.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_placement(
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    mps_dtype: Literal["float32", "bfloat16"] | None = "float32",
    cpu_dtype: Literal["float32", "bfloat16"] = "float32",
    float32_bytes: int | None = None,
) -> DevicePlacement:
    """What the caller asks for; by default the best device of this machine and its usual dtype.

    The devices are tried in the order CUDA, Apple's MPS, CPU. The usual dtype is bfloat16 on CUDA
    and float32 on most CPUs. A GPU without native bfloat16 takes float32 for a network that was
    trained in bfloat16 and may overflow in float16, where its memory is large enough, and else
    float16. MPS never takes float16 unasked: Gemma 3's activations overflow it (transformers issue
    39972), and so does Gemma 4's vision tower (vLLM issue 40290).

    Args:
        device: as torch names it, e.g. ``cuda:1``.
        dtype: a torch dtype, a name (``float32``, ``bfloat16``, ``float16``) or ``fp32`` etc.
        mps_dtype: the usual dtype on MPS, where it computes in that; with None, MPS is used only
            when the caller asks for it.
        cpu_dtype: the usual dtype on a CPU with instructions for it; float32 on every other.
        float32_bytes: what the weights of a network that may overflow in float16 take in float32;
            None for one that does not overflow.

    Raises:
        BadInput: a device that this machine lacks, or an unknown dtype.
    """
    import torch

    name = None if dtype is None else dtype_name(dtype)
    if device is not None:
        chosen, found = _checked_device(device), "asked"
    else:
        mps = mps_dtype is not None and torch.backends.mps.is_available()
        best = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
        chosen, found = torch.device(best), "found"
    usual = "asked" if name else "usual there"
    name = name or _usual_dtype(chosen, mps_dtype or "float32", cpu_dtype, float32_bytes)
    reason = f"{chosen} ({found}), {name} ({usual})"
    return DevicePlacement(chosen, getattr(torch, name), reason)


def _checked_device(device: str | torch.device) -> torch.device:
    """The device of that name; BadInput if torch doesn't know it, or this machine lacks it."""
    import torch

    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(
            f"device {str(device)!r} cannot be used here: {first_line(error)}"
        ) from error
    return checked


def dtype_name(dtype: str | torch.dtype) -> str:
    """The full name of a dtype, e.g. ``bfloat16``; loads no torch for a name.

    Raises:
        BadInput: not one of the three.
    """
    name = _ALIASES.get(str(dtype).removeprefix("torch."))
    if name is None:
        known = ", ".join(dict.fromkeys(_ALIASES.values()))
        raise BadInput(f"dtype is one of {known}, found {str(dtype)!r}")
    return name


def _usual_dtype(
    device: torch.device, mps_dtype: str, cpu_dtype: str, float32_bytes: int | None
) -> str:
    import torch

    if device.type == "cpu":
        return cpu_dtype if machine.multiplies_bfloat16() else "float32"
    if device.type == "mps" and mps_dtype != "float32":
        return mps_dtype if _computes(device, mps_dtype) else "float32"
    if device.type != "cuda":
        return "float32"
    # Before compute capability 8.0 (Ampere) bfloat16 is emulated and slower than float32.
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return "bfloat16"
    if float32_bytes is None:
        return "float16"
    free, _ = torch.cuda.mem_get_info(device)
    return "float32" if float32_bytes <= _WEIGHTS_SHARE * free else "float16"


def _computes(device: torch.device, dtype: str) -> bool:
    """Whether a device multiplies in a dtype: MPS has bfloat16 only from macOS 14 on."""
    import torch

    try:
        one = torch.ones(2, 2, dtype=getattr(torch, dtype), device=device)
        return bool((one @ one).sum().item() == 8)
    except (RuntimeError, TypeError, AssertionError):
        return False
