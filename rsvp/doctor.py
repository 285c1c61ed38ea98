"""What is wrong with this installation, and the command that fixes each fault.

Model libraries are imported in a process of their own: a broken one can crash it without harm, and
this one stays light.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rsvp import presets, registry
from rsvp.platform import machine

Status = Literal["ok", "note", "broken"]

PACKAGES = (
    "torch", "transformers", "openai", "pillow", "numpy", "pydantic", "typer", "rich",
    "safetensors", "pycocotools",
)  # fmt: skip
KEYS = ("OPENAI_API_KEY", "HF_TOKEN")
OLDEST_PYTHON = (3, 11)
OLDEST_TRANSFORMERS = 5  # major version

_CUDA = "pip install --force-reinstall torch"
_CPU = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cpu"
_GB, _MB = 1_000_000_000, 1_000_000
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_PROBE_SECONDS = 120

# Optional packages that run models by their authors' own code: the spec's name -> the package, and
# the module of ours that imports it and knows the command that installs it.
_BY_NAME = {
    "sam2-package": ("sam2", "rsvp.segmenters.sam2_package"),
    "groundingdino-py": ("groundingdino", "rsvp.detectors.groundingdino_py"),
}
_DETECTOR = "IDEA-Research/grounding-dino-tiny"

# Prints one JSON object: what happens when the model libraries are imported here.
_PROBE = """
import json
found = {}
try:
    import torch
    found["torch"] = {
        "version": torch.__version__,
        "build": torch.version.cuda or getattr(torch.version, "hip", None),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }
except Exception as error:
    found["torch_error"] = f"{type(error).__name__}: {error}"
else:
    from rsvp.platform.torchvision import hide_broken_torchvision
    found["torchvision_error"] = hide_broken_torchvision()
    try:
        from transformers import AutoModelForImageTextToText, Sam2Model
    except Exception as error:
        found["transformers_error"] = f"{type(error).__name__}: {error}"
    else:
        from importlib import import_module, util
        try:
            from transformers import GroundingDinoForObjectDetection
            from transformers import MMGroundingDinoForObjectDetection
            found["detectors"] = {}
        except Exception as error:
            found["detectors"] = {"error": f"{type(error).__name__}: {error}"}
        found["packages"] = {}
        for name, (package, module) in PACKAGES.items():
            entry = found["packages"][name] = {"installed": util.find_spec(package) is not None}
            try:
                code = import_module(module)
                entry["install"] = code.INSTALL
                if entry["installed"]:
                    code.load_package()
            except Exception as error:
                entry["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        status: ``ok``; ``note``, where something is worth knowing; ``broken``, where the embedded
            preset cannot run.
        fix: the command or act that fixes it, empty where nothing is wrong.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Finding]:
    """Run every check."""
    probe = _probe()
    return [
        _python(),
        *_packages(),
        *_libraries(probe),
        *_gpu(probe),
        *_detectors(probe),
        *_optional(probe),
        *_weights(),
        _memory(),
        _disk(),
        *_keys(os.environ),
        *_settings(os.environ),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("python", "broken", version, f"install Python {wanted} or newer")
    return Finding("python", "ok", f"{version} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed", f"pip install {name}")
            continue
        old = name == "transformers" and int(version.split(".")[0]) < OLDEST_TRANSFORMERS
        if old:
            wanted = f"pip install 'transformers>={OLDEST_TRANSFORMERS}'"
            yield Finding(name, "broken", f"{version} is too old", wanted)
        else:
            yield Finding(name, "ok", version)


def _libraries(probe: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether torch and transformers can be imported; a torchvision that cannot is hidden."""
    if why := probe.get("error"):
        yield Finding("imports", "broken", why, _CPU)
    if why := probe.get("torch_error"):
        yield Finding("torch", "broken", f"cannot be imported: {why}", _CPU)
    if why := probe.get("transformers_error"):
        fix = "pip install --force-reinstall --no-deps transformers"
        yield Finding("transformers", "broken", f"cannot be imported: {why}", fix)
    if why := probe.get("torchvision_error"):
        detail = f"cannot be imported, so rsvp hides it from transformers: {why}"
        yield Finding("torchvision", "note", detail, "pip uninstall torchvision")


def _gpu(probe: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether torch's build fits the machine."""
    torch = probe.get("torch")
    if torch is None:
        return
    present = machine.gpu_memory_bytes() / _GB
    if torch["gpu"]:
        yield Finding("gpu", "ok", f"{torch['gpu']}, torch built for {torch['build']}")
    elif present and torch["build"] is None:
        detail = (
            f"there is a GPU with {present:.0f} GB, but torch {torch['version']} is a CPU build"
        )
        yield Finding("gpu", "note", detail, _CUDA)
    elif present:
        detail = f"there is a GPU, but torch built for {torch['build']} cannot use it"
        yield Finding("gpu", "note", detail, "update the NVIDIA driver, or match torch to it")
    elif torch["build"] is not None:
        detail = f"none, and torch is the large build for {torch['build']}; it works on the CPU too"
        yield Finding("gpu", "note", detail, _CPU)
    else:
        yield Finding("gpu", "ok", "none; models run on the CPU")


def _detectors(probe: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether transformers has the detectors; an older one lacks the second."""
    found = probe.get("detectors")
    if found is None:
        return
    if why := found.get("error"):
        fix = f"pip install -U 'transformers>={OLDEST_TRANSFORMERS}'"
        yield Finding("grounding-dino", "note", f"cannot be imported: {why}", fix)
        return
    here = machine.in_hub_cache(_DETECTOR)
    weights = f"{_DETECTOR} is on this machine" if here else f"weights: hf download {_DETECTOR}"
    yield Finding("grounding-dino", "ok", f"can run, MM-Grounding-DINO too; {weights}")


def _optional(probe: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the optional packages are there and can be imported; none has to."""
    for name, found in probe.get("packages", {}).items():
        install = found.get("install", "")
        if why := found.get("error"):
            detail = f"installed, but cannot be used: {why}" if found["installed"] else why
            yield Finding(name, "note", detail, install or presets.REINSTALL)
        elif found["installed"]:
            yield Finding(name, "ok", f"can run: {_BY_NAME[name][0]} is installed")
        else:
            yield Finding(name, "ok", f"not installed; only {name}:FILE needs it: {install}")


def _weights() -> Iterator[Finding]:
    for part in registry.EMBEDDED:
        folder = registry.embedded_folder(part)
        if not machine.holds_weights(folder):
            detail = f"the embedded weights are missing at {folder}"
            yield Finding(part, "broken", detail, presets.REINSTALL)
        elif why := _unreadable(folder):
            detail = f"the embedded weights at {folder} are damaged: {why}"
            yield Finding(part, "broken", detail, presets.REINSTALL)
        else:
            size = sum(file.stat().st_size for file in folder.glob("*")) / _MB
            yield Finding(part, "ok", f"embedded weights, {size:.1f} MB, at {folder}")
    for model in presets.CHECKPOINTS:
        if machine.in_hub_cache(model):
            yield Finding("weights", "ok", f"{model} is on this machine")


def _unreadable(folder: Path) -> str:
    """What is wrong with a folder of weights, empty where nothing is; the tensors stay on disk.

    A safetensors file begins with the length of its header and the header, which says where the
    tensors lie: https://huggingface.co/docs/safetensors#format. A file cut short is too small.
    """
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
                continue
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                tensors = json.loads(opened.read(min(length, _LONGEST_HEADER)))
            ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
            if file.stat().st_size != 8 + length + max(ends, default=0):
                return f"{file.name} does not have the size that its header states"
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return f"{file.name} cannot be read"
    return ""


def _memory() -> Finding:
    available, wanted = machine.memory_bytes(), presets.get(presets.DEFAULT).ram_gb
    if available is None:
        return Finding("memory", "note", "unknown on this system")
    detail = f"{available / _GB:.1f} GB free"
    if available < wanted * _GB:
        fix = f"close something: the embedded preset takes {wanted:g} GB"
        return Finding("memory", "broken", detail, fix)
    return Finding("memory", "ok", detail)


def _disk() -> Finding:
    cache = machine.hub_cache()
    free = machine.free_disk_bytes(cache) / _GB
    return Finding("disk", "ok", f"{free:.1f} GB free for downloads at {cache}")


def _keys(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether keys are set; never what they are."""
    for name in KEYS:
        is_set = bool(environment.get(name, "").strip())
        yield Finding(name, "ok", "set" if is_set else "not set; only remote models need it")


def _settings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Defaults from the environment and from the user's file, and what looks like one."""
    from rsvp.cli import settings

    found = list(settings.in_force(environment))
    for name, value, problem in found:
        if problem:
            yield Finding(name, "note", problem, f"unset {name}")
        else:
            yield Finding(name, "ok", value)
    if not settings.read():
        yield Finding("settings", "ok", f"no file of defaults at {settings.path()}")


@functools.cache
def _probe() -> Mapping[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return {}  # `_packages` says so
    command = [sys.executable, "-c", f"PACKAGES = {_BY_NAME!r}\n{_PROBE}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
        found: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"importing torch and transformers took over {_PROBE_SECONDS} s"}
    except (OSError, ValueError, IndexError):
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        why = last[0] if last else f"exit code {done.returncode}"
        return {"error": f"importing torch and transformers crashed: {why}"}
    return found
