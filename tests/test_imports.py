"""The import rules of the design: downward only, torch only where it belongs, never at the door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsvp import registry

PACKAGE = Path(__file__).parents[1] / "rsvp"

# Each may import its own layer and the ones above it in this list.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("types", "platform", "images", "prompting", "registry"),
    ("masks", "frames", "parsing", "drawing", "presets", "datasets", "mllm", "detectors"),
    ("request", "segmenters", "strategies", "writers"),
    ("dialogue", "reasoning", "postprocess", "result", "pipeline", "training"),
    ("evaluation", "embedded"),
    ("doctor", "cli", "__main__"),
)
LAYER = {room: number for number, layer in enumerate(LAYERS) for room in layer}

TORCH_ROOMS = (
    "platform/", "mllm/transformers.py", "detectors/", "segmenters/", "training/",
)  # fmt: skip
HEAVY = {"torch", "transformers", "torchvision", "accelerate", "bitsandbytes"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in sources()}


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, anywhere in it, type checking included."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            climb = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*climb, *filter(None, [node.module])]) if node.level else node.module
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else str(base)


def room(module: str) -> str | None:
    """`rsvp.mllm.openai` -> `mllm`; None outside the package and for its own __init__."""
    parts = module.split(".")
    return parts[1] if parts[0] == "rsvp" and len(parts) > 1 else None


def test_every_room_has_its_layer() -> None:
    rooms = {r for m in MODULES if (r := room(m)) is not None}
    assert rooms <= LAYER.keys()


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    here = room(module_of(path))
    if here is None:
        return  # the façade looks its names up when they are used; see below
    upward = [
        module
        for module in imported(path)
        if (there := room(module)) is not None and LAYER[there] > LAYER[here]
    ]
    assert upward == []


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_model_libraries_stay_in_their_rooms(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    heavy = {module for module in imported(path) if module.split(".")[0] in HEAVY}
    if not name.startswith(TORCH_ROOMS):
        assert heavy == set()
    assert name != "segmenters/box.py" or not heavy


# The VLSM is SAM 2 with more to say to its decoder; rendered scenes are pictures like all others.
BUILT_ON = {
    "rsvp.segmenters.vlsm": {"rsvp.segmenters.sam2"},
    "rsvp.embedded.pictures": {"rsvp.training.data"},
}


def test_backends_of_one_kind_never_import_each_other() -> None:
    for kind, table in registry.BUILT_IN.items():
        modules = {target.partition(":")[0] for target in table.values()}
        for module in modules:
            path = PACKAGE.parent / Path(*module.split(".")).with_suffix(".py")
            others = modules - {module} - BUILT_ON.get(module, set())
            assert set(imported(path)) & others == set(), kind


def test_the_pipeline_knows_protocols_and_no_backend() -> None:
    backends = {t.partition(":")[0] for table in registry.BUILT_IN.values() for t in table.values()}
    for name in ("pipeline", "dialogue", "reasoning", "request", "postprocess"):
        assert set(imported(PACKAGE / f"{name}.py")) & backends == set(), name


def test_training_is_reached_only_by_its_command() -> None:
    for path in sources():
        inside = path.relative_to(PACKAGE).as_posix()
        served = ("training/", "embedded/pictures.py", "cli/train.py")
        if not inside.startswith(served):
            assert "training" not in {room(module) for module in imported(path)}, inside


def test_the_registry_holds_strings() -> None:
    assert {room(m) for m in imported(PACKAGE / "registry.py")} - {None} == {"errors"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_rsvp_is_light() -> None:
    printed = run(
        "import sys; before = set(sys.modules); import rsvp; rsvp.errors; rsvp.__version__\n"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    assert not {*printed.split()} & {*HEAVY, "numpy", "PIL", "openai", "typer", "pydantic"}


def test_every_public_name_is_there_without_torch() -> None:
    printed = run(
        "import sys, rsvp\n"
        "for name in rsvp.__all__: assert getattr(rsvp, name) is not None, name\n"
        "assert set(rsvp.__all__) <= set(dir(rsvp))\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert printed.split() == ["False", "False"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import rsvp

    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        rsvp.Pipelin  # noqa: B018


@pytest.mark.parametrize("command", ["", "segment", "eval", "models", "doctor"])
def test_help_is_light(command: str) -> None:
    printed = run(
        "import sys, io, contextlib; from rsvp.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        f"    assert main([*{command.split()!r}, '--help']) == 0\n"
        "assert 'Usage: rsvp' in text.getvalue()\n"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert not {*printed.split()} & {*HEAVY, "numpy", "PIL", "openai"}
