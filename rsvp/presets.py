"""A preset names an MLLM, a region strategy and a segmenter; and says whether it can run here.

Nothing here imports torch or uses the network: it looks at the disk and the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rsvp import registry
from rsvp.errors import BadInput, ModelUnavailable
from rsvp.platform import machine
from rsvp.registry import parse_spec

DEFAULT = "embedded"
AUTO = "auto"  # stands for the best preset that can run here now
NO_MLLM = "none"  # the MLLM spec for boxes and points, where no model is asked
API_MODEL = "RSVP_API_MODEL"

_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on the hub.

    Attributes:
        gb: of its weights, in 10^9 bytes.
        source: where its existence, size and license stand.
    """

    gb: float
    license: str
    source: str


# By hub id. Sizes are those of the safetensors files; bfloat16 but for SAM 2.1 (float32).
CHECKPOINTS: dict[str, Checkpoint] = {
    "Qwen/Qwen3-VL-2B-Instruct": Checkpoint(
        4.3, "Apache-2.0", "huggingface.co/Qwen/Qwen3-VL-2B-Instruct"
    ),
    "Qwen/Qwen3.5-4B": Checkpoint(
        9.3, "Apache-2.0", "docs.nvidia.com/nemo/megatron-bridge/latest/models/vlm/qwen35-vl.html; "
        "size computed from its parameters",
    ),
    "Qwen/Qwen3.5-9B": Checkpoint(
        19.3, "Apache-2.0", "huggingface.co/Qwen/Qwen3.5-9B/tree/main; RefCOCO (avg) 89.7 there",
    ),
    "Qwen/Qwen3.8-27B": Checkpoint(
        55.6, "Apache-2.0", "docs.nvidia.com/nemo/automodel, Qwen3.8-27B; "
        "inference.readthedocs.io, qwen3.8; license of the family",
    ),
    "facebook/sam2.1-hiera-tiny": Checkpoint(
        0.16, "Apache-2.0", "huggingface.co/facebook/sam2.1-hiera-tiny"
    ),
    "facebook/sam2.1-hiera-large": Checkpoint(
        0.90, "Apache-2.0", "huggingface.co/facebook/sam2.1-hiera-large"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """Three specs, and what they need.

    Attributes:
        mllm: None where the environment or the command line names the model.
        strategy: None where the model's family decides.
        ram_gb: main memory without a GPU, in 10^9 bytes, where local MLLMs run in float32.
        gpu_gb: GPU memory with one, in 10^9 bytes; there they run in bfloat16.
        handles: what images and questions it is for.
    """

    name: str
    mllm: str | None
    strategy: str | None
    segmenter: str
    ram_gb: float
    gpu_gb: float
    handles: str

    @property
    def download_gb(self) -> float:
        """Gigabytes that it takes from the hub at its first use."""
        return sum(CHECKPOINTS[m].gb for m in self.hub_models() if m in CHECKPOINTS)

    def strategy_for(self, model: str) -> str:
        """The strategy for a model of this name or folder."""
        return self.strategy or registry.family(model).strategy

    def mllm_spec(self) -> str:
        """The MLLM's spec.

        Raises:
            ModelUnavailable: neither the preset nor the environment names a model.
        """
        model = os.environ.get(API_MODEL, "").strip()
        if self.mllm is None and not model:
            raise ModelUnavailable(f"the {self.name} preset has no model yet: {_NAME_IT}")
        return self.mllm or f"openai:{model}"

    def hub_models(self) -> list[str]:
        """The hub ids among its models."""
        specs = [parse_spec(spec) for spec in (self.mllm, self.segmenter) if spec is not None]
        return [s.argument for s in specs if s.argument is not None and "/" in s.argument]


# A VLSM holds neither its SAM 2 nor its text encoder.
_EMBEDDED_PARTS = {
    "transformers": ("reasoner",),
    "sam2": ("segmenter",),
    "vlsm": ("vlsm", "segmenter", "reasoner"),
}

REINSTALL = "install rsvp anew, from its wheel or a complete checkout"
_NAME_IT = f"set {API_MODEL}, or pass --mllm openai:NAME"

PRESETS: tuple[Preset, ...] = (
    Preset(
        "embedded", "transformers:embedded", "boxes", "vlsm:embedded", 1.2, 1.0,
        "rendered scenes of everyday things, as in `make demo`; with --box also photographs; "
        "everything is in the package",
    ),
    Preset(
        "laptop", "transformers:Qwen/Qwen3-VL-2B-Instruct", "boxes",
        "sam2:facebook/sam2.1-hiera-tiny", 11.0, 7.0,
        "without a GPU, or one of 8 GB: photographs, direct questions and light reasoning, in most "
        "languages",
    ),
    Preset(
        "gpu16", "transformers:Qwen/Qwen3.5-4B", "boxes",
        "sam2:facebook/sam2.1-hiera-large", 23.0, 13.0,
        "a GPU of 16 GB: photographs, relations and riddles, in most languages; thinks before it "
        "answers",
    ),
    Preset(
        "local", "transformers:Qwen/Qwen3.5-9B", "boxes",
        "sam2:facebook/sam2.1-hiera-large", 44.0, 23.0,
        "a GPU of 24 GB: photographs, riddles, relations and small or partly hidden things, in "
        "most languages; thinks before it answers",
    ),
    Preset(
        "gpu80", "transformers:Qwen/Qwen3.8-27B", "boxes",
        "sam2:facebook/sam2.1-hiera-large", 120.0, 64.0,
        "a GPU of 80 GB: as local, with the strongest of these models",
    ),
    Preset(
        "api", None, None, "sam2:facebook/sam2.1-hiera-large", 3.0, 3.0,
        "photographs and whatever the chosen model understands; boxes of models that were trained "
        "to write them, the grid of all others; images go to its server (OPENAI_BASE_URL, "
        "OPENAI_API_KEY)",
    ),
)  # fmt: skip


def names() -> list[str]:
    """The names of the presets."""
    return [preset.name for preset in PRESETS]


def get(name: str) -> Preset:
    """The preset called `name`; BadInput lists the known ones when there is none.

    ``auto`` is the one that `choose` finds.
    """
    if name == AUTO:
        return choose()[0]
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise BadInput(registry.unknown("preset", name, [*names(), AUTO]))


def choose() -> tuple[Preset, str]:
    """The best preset that can run here now, without a download, and why it was chosen.

    A model on a server that the environment names, with its key where one is needed; else the
    largest model that was downloaded and fits into memory; else the embedded one.
    """
    api = get("api")
    if not [*_missing_mllm(api)]:
        segmenter, why = api.segmenter, ""
        if [*_missing_weights(segmenter)]:
            segmenter = "sam2:embedded"
            why = f"; for better masks: hf download {parse_spec(api.segmenter).argument}"
        return replace(api, segmenter=segmenter), f"{API_MODEL} names {api.mllm_spec()}{why}"
    local = [p for p in PRESETS if p.hub_models() and p.mllm is not None]
    for preset in sorted(local, key=lambda p: p.download_gb, reverse=True):
        if not missing(preset):
            return preset, f"{preset.hub_models()[0]} is on this machine and fits into its memory"
    return get(DEFAULT), (
        "no model is named and none was downloaded, so the small one in the package: it knows "
        "rendered scenes, not photographs; `rsvp models` lists what can run here"
    )


def for_photographs() -> str:
    """The option that reads photographs on this machine, and what it needs.

    The preset that can run now, else the largest one that fits into the memory, else a server's.
    """
    ready = choose()[0]
    if ready.name != DEFAULT:
        return f"--preset {ready.name} (it can run here now)"
    local = sorted((p for p in PRESETS if p.hub_models() and p.mllm), key=lambda p: -p.download_gb)
    for preset in local:
        if not [*_missing_memory(preset)]:
            return f"--preset {preset.name} ({needs(preset)})"
    return (
        f"--preset api --mllm openai:NAME, a model on a server: the {local[-1].name} preset needs "
        f"{needs(local[-1])}"
    )


def missing(preset: Preset) -> list[str]:
    """What keeps it from running here and now, each with the command that fixes it."""
    found = (
        *_missing_mllm(preset),
        *_missing_weights(preset.segmenter),
        *_missing_memory(preset),
    )
    return list(dict.fromkeys(found))  # two parts may need the same weights


def needs(preset: Preset) -> str:
    """What it needs, in one phrase: download and memory."""
    download = f"{preset.download_gb:.1f} GB download, " if preset.download_gb else ""
    return f"{download}{memory_gb(preset):g} GB of memory or a GPU with {preset.gpu_gb:g} GB"


def _missing_mllm(preset: Preset) -> Iterator[str]:
    if preset.mllm is not None:
        yield from _missing_weights(preset.mllm)
        return
    if not os.environ.get(API_MODEL, "").strip():
        yield f"no model is named: {_NAME_IT}"
    from rsvp.mllm.dialects import OPENAI_URL, is_openai  # not needed for --help

    if (
        is_openai(os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        and not os.environ.get("OPENAI_API_KEY", "").strip()
    ):
        yield "no key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs none"


def _missing_weights(text: str) -> Iterator[str]:
    spec = parse_spec(text)
    model = spec.argument or ""
    if model == "embedded":
        for part in _EMBEDDED_PARTS.get(spec.name, ()):  # others refuse the name themselves
            if not machine.holds_weights(registry.embedded_folder(part)):
                yield f"the embedded {part} is not in this installation: {REINSTALL}"
    elif not (machine.in_hub_cache(model) or machine.holds_weights(Path(model))):
        size = CHECKPOINTS[model].gb if model in CHECKPOINTS else 0.0
        yield f"{model} is not on this machine: hf download {model} ({size:g} GB)"
        free = machine.free_disk_bytes(machine.hub_cache())
        if free < size * _GB:
            yield (
                f"{machine.hub_cache()} has {free / _GB:.1f} GB free, the download needs "
                f"{size:g} GB: set HF_HOME to a larger disk"
            )


def _missing_memory(preset: Preset) -> Iterator[str]:
    available = machine.memory_bytes()
    if available is None or available >= memory_gb(preset) * _GB:
        return
    if machine.gpu_memory_bytes() >= preset.gpu_gb * _GB:
        return
    yield (
        f"{available / _GB:.1f} GB of memory are free, it needs {memory_gb(preset):g} GB, "
        f"or a GPU with {preset.gpu_gb:g} GB"
    )


def memory_gb(preset: Preset) -> float:
    """Main memory that it needs here, in 10^9 bytes.

    As on a GPU where local MLLMs run in 16-bit numbers: on Apple's chips, on CPUs with bfloat16.
    """
    half = sys.platform == "darwin" or machine.multiplies_bfloat16()
    return preset.gpu_gb if half and preset.hub_models() else preset.ram_gb
