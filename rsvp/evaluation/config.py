"""`config.json`: enough to repeat a run, and to refuse to resume it as another one."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, Field

from rsvp import __version__, prompting
from rsvp.answer import answer_prompt_names
from rsvp.evaluation import stats
from rsvp.platform import machine
from rsvp.platform.files import parse_json, read_bytes, validate, write_json
from rsvp.platform.runs import CONFIG, check_same, has_begun
from rsvp.prompt_config import prompt_names
from rsvp.verify import verify_prompt_names

_PACKAGES = (
    "torch", "transformers", "openai", "numpy", "pillow", "pycocotools", "opencv-python-headless",
    "scipy", "pyarrow", "tfd-utils", "ray",
)  # fmt: skip
_SIMPLE = (str, int, float, bool, list, tuple, type(None))


class BootstrapConfig(BaseModel):
    """How the intervals are drawn."""

    seed: int = stats.SEED
    resamples: int = stats.RESAMPLES
    level: float = stats.LEVEL


class RunSettings(BaseModel, frozen=True, extra="allow"):
    """What decides the records: a run may only be resumed with the same settings."""

    benchmark: str
    protocol: str
    split: str | None
    data_sha256: str
    samples: int
    oracle: bool
    pipeline: dict[str, Any] = Field(description="Names and settings of the pipeline's parts.")
    settings: dict[str, Any] = Field(description="What else the run was given, e.g. the preset.")
    bootstrap: BootstrapConfig = BootstrapConfig()


S = TypeVar("S", bound=BaseModel)


class RunDocument(BaseModel, Generic[S]):
    """A run's `config.json`; `run` decides the records."""

    schema_version: Literal[1] = 1
    run: S
    environment: dict[str, Any] = Field(
        description="Where the records were made, and the folder `data`: another machine may "
        "finish what one began."
    )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The configuration of the run in a folder; BadInput where it is missing or broken."""
        file = folder / CONFIG
        document = parse_json(read_bytes(file), str(file))
        return validate(cls.model_validate, document, f"{file}: not a run's")

    def prepare(self, folder: Path, *, resume: bool) -> None:
        """Begin a run in its folder, or check that the folder holds this very run.

        Raises:
            BadInput: the folder holds something else, or a run of other settings: then the message
                names the first and its values.
        """
        if has_begun(folder, resume=resume):
            check_same(folder, type(self).read(folder).run.model_dump(), self.run.model_dump())
        else:
            write_json(folder / CONFIG, self.model_dump(), sync=True)


class EvalConfig(RunDocument[RunSettings]):
    """A run's `config.json`."""


def describe_pipeline(pipeline: object, *, trace: bool = False) -> dict[str, Any]:
    """The names and settings of a pipeline's parts, as far as it has them.

    Args:
        trace: it is asked for reasoning paths.

    Of an MLLM and a segmenter only the name: their attributes may hold a key.
    """
    mllm, strategy = getattr(pipeline, "mllm", None), getattr(pipeline, "strategy", None)
    config = getattr(pipeline, "prompt_config", None)
    described: dict[str, Any] = {
        "mllm": getattr(mllm, "name", None),
        "strategy": getattr(strategy, "name", None),
        "strategy_options": _options(strategy),
        "segmenter": getattr(getattr(pipeline, "segmenter", None), "name", None),
        "prompts": {},
    }
    if config is not None:
        described |= {
            "frame": config.frame.kind,
            "profile": config.profile,
            "cot": config.cot,
            "max_reasks": config.max_reasks,
            "target_exists": config.target_exists,
        }
        if config.language != "en":
            described["language"] = config.language
        if config.samples > 1:
            described |= {"samples": config.samples, "temperature": config.temperature}
        verify = getattr(pipeline, "verify", None)
        if verify is not None and verify.rounds:
            described["verify"] = asdict(verify)
            described["verify_prompts"] = _digests(verify_prompt_names(config.profile))
        if strategy is not None:
            described["prompts"] = _digests(prompt_names(config, strategy, trace=trace))
    return described


def answer_prompts(pipeline: object) -> dict[str, str]:
    """SHA-256 of every prompt that a question may be asked with, by its name."""
    found = getattr(pipeline, "prompt_config", None)
    return _digests(answer_prompt_names(found.family.profile) if found is not None else [])


def _digests(names: Iterable[str]) -> dict[str, str]:
    return {name: prompting.digest([prompting.load(name).text]) for name in names}


def environment() -> dict[str, Any]:
    """The versions, the commit where rsvp runs from a git checkout, and the machine."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {"rsvp": __version__, **{name: _version(name) for name in _PACKAGES}},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_gib": _gib(machine.memory_bytes()),
        "gpu_memory_gib": _gib(machine.gpu_memory_bytes()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / machine.GIB, 1)


def _options(strategy: object) -> dict[str, Any]:
    """A strategy's public settings, as JSON gives them back."""
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in (vars(strategy) if strategy else {}).items()
        if not k.startswith("_") and isinstance(v, _SIMPLE)
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this very source, ``-dirty`` where it was changed since; None outside git."""
    package = Path(__file__).resolve().parents[1]
    # A wheel may lie in an environment inside somebody else's repository: ask for this file.
    if _git(package, "ls-files", "--error-unmatch", __file__) is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", ".")
    return commit and commit + ("-dirty" if changes else "")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
