"""What this machine has, asked without torch and without the network."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

GIB = 1 << 30

# What `validate_repo_id` of the hub's client takes for a name; for every other it raises an error
# that is not ours.
_HUB_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_SHARD = re.compile(r"(?P<name>.+)-\d+-of-(?P<count>\d{1,5})\.safetensors")
_HUB_ID = re.compile(rf"(?!.*(?:--|\.\.|\.git\Z))(?:{_HUB_PART}/)?{_HUB_PART}", re.ASCII)


def memory_bytes() -> int | None:
    """Main memory that a new process may take, within the limits of its container; None unknown."""
    known = [n for n in (_available(), _container_memory()) if n is not None]
    return min(known) if known else None


def gpu_memory_bytes() -> int:
    """Memory of the largest NVIDIA GPU, 0 where there is none or no driver."""
    import subprocess  # not needed for --help

    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    sizes = [int(line) for line in done.stdout.split() if line.isdigit()]
    return max(sizes, default=0) << 20


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16, as far as Linux says so (x86)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return re.search(r"^flags\s*:.* (avx512|amx)_bf16\b", text, re.MULTILINE) is not None


def free_disk_bytes(folder: Path) -> int:
    """Free space where `folder` is, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def hub_cache() -> Path:
    """Where the hub's client keeps its downloads, by the same variables as it does."""
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(cache or Path(home, "hub"))).expanduser()


def is_hub_id(name: str) -> bool:
    """Whether a model's name can be one of the hub's; else it is a path, or nothing at all."""
    return _HUB_ID.fullmatch(name) is not None


def local_path(name: str) -> Path | None:
    """The file or folder of that name, ``~`` expanded; None where there is none or can be none."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a null character
        return None


def holds_weights(folder: Path) -> bool:
    """A config and every safetensors file that belongs to it."""
    weights = any(folder.glob("*.safetensors"))
    return (folder / "config.json").is_file() and weights and not missing_shards(folder)


def missing_shards(folder: Path) -> list[str]:
    """The safetensors files that a folder lacks, sorted: those that its index lists, or, where an
    interrupted download has not brought the index, the other numbers of ``NAME-00001-of-00004``.

    An index that cannot be read is missing itself.
    """
    wanted: set[str] = set()
    for shard in folder.glob("*-of-*.safetensors"):
        if found := _SHARD.fullmatch(shard.name):
            name, count = found["name"], found["count"]
            numbers = range(1, int(count) + 1)
            wanted |= {f"{name}-{n:0{len(count)}d}-of-{count}.safetensors" for n in numbers}
    for index in folder.glob("*.safetensors.index.json"):
        try:
            wanted |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            return [index.name]
    return sorted(name for name in wanted if not (folder / name).is_file())


def in_hub_cache(model: str) -> bool:
    """Whether the weights of a hub id lie on this machine, complete."""
    folder = hub_snapshot(model)
    return folder is not None and holds_weights(folder)


def hub_snapshot(model: str) -> Path | None:
    """The folder of a hub id in the cache of downloads, complete or not; None where there is none.

    A name that cannot be a hub id has none.
    """
    if not is_hub_id(model):
        return None
    repository = hub_cache() / f"models--{model.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return repository / "snapshots" / commit


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _container_memory() -> int | None:
    """What cgroup v2 leaves to this container; None without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
        return max(int(limit) - int(used), 0)  # "max" is no limit and no number
    except (OSError, ValueError):
        return None
