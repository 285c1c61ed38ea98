"""Which device and number type a network runs on, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsvp.errors import BadInput, first_line

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs.

    Attributes:
        device: where its weights lie, always as float32.
        dtype: what its large products are computed in (autocast unless float32).
        reason: why, in one line for the log.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_placement(
    device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Placement:
    """Take what was asked for, else the best device here and its usual number type.

    Unasked: CUDA, then Apple's MPS, then the CPU; bfloat16 on CUDA where the GPU has it (float16
    where not), float32 elsewhere.

    Raises:
        BadInput: a device that is not here, or a number type that is none of the three.
    """
    place, why_device = (
        (_best_device(), "found") if device is None else (checked_device(device), "asked")
    )
    number, why_dtype = (
        (_usual_dtype(place), "usual there") if dtype is None else (_dtype(dtype), "asked")
    )
    name = str(number).removeprefix("torch.")
    return Placement(place, number, f"{place} ({why_device}), {name} ({why_dtype})")


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def checked_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        BadInput: it is not here.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(
            f"device {str(device)!r} cannot be used here: {first_line(error)}"
        ) from error
    return place


def _usual_dtype(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32
    # Before Ampere (8.0) bfloat16 is emulated, slower than float32.
    native = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if native else torch.float16


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    for name, number in _DTYPES.items():
        if dtype in (name, number):
            return number
    raise BadInput(f"dtype is one of {', '.join(_DTYPES)}, found {str(dtype)!r}")
