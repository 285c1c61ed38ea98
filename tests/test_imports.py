"""The import rules: downward without cycles, torch only where models run, each class name once."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rsvp import registry

PACKAGE = Path(__file__).parents[1] / "rsvp"

# A module imports its own layer and the ones above it in this list.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "awaitable"),
    (
        "types",
        "trace",
        "platform",
        "images",
        "lexicon",
        "translation",
        "prompting",
        "families",
        "registry",
    ),
    ("masks", "frames", "looks", "parsing", "drawing", "presets", "datasets", "mllm", "detectors"),
    ("request", "segmenters", "strategies", "writers"),
    (
        "dialogue",
        "hints",
        "phrases",
        "prompt_config",
        "reasoning",
        "views",
        "postprocess",
        "result",
        "answer",
        "agreement",
        "checking",
        "verify",
        "parts",
        "stages",
        "pipeline",
        "training",
    ),
    ("evaluation", "embedded"),
    ("batch",),
    ("serving",),
    ("doctor", "cli", "integrations", "__main__"),
)
LAYER = {part: number for number, layer in enumerate(LAYERS) for part in layer}

HEAVY = {"torch", "transformers", "torchvision", "accelerate", "bitsandbytes"}
MAY_BE_HEAVY = (
    "platform/",
    "mllm/familiarity.py",
    "mllm/loading.py",
    "mllm/decoding.py",
    "mllm/prefix_cache.py",
    "mllm/sparse.py",
    "mllm/transformers.py",
    "detectors/",
    "segmenters/",
    "training/",
)

# The VLSM is SAM 2 with prompt tokens for its decoder; rendered scenes are images as all others.
BUILT_ON = {
    "rsvp.segmenters.vlsm": {"rsvp.segmenters.sam2"},
    "rsvp.segmenters.sam_hq": {"rsvp.segmenters.sam2"},
    "rsvp.embedded.pictures": {"rsvp.training.data"},
    "rsvp.prompt_config": {"rsvp.embedded.languages"},  # tables of the embedded reasoner
}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_of(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
FILES = {module_of(path): path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}


def imports_of(module: str, *, at_import: bool = False) -> set[str]:
    """Full names of the modules that a module imports.

    Args:
        at_import: only what runs when the module is imported, neither inside functions nor for
            type checking.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [TREES[module]]
    while nodes:
        node = nodes.pop()
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if at_import and (
            lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in TREES else str(node.module) for name in inner}
    return found


def part_of(module: str) -> str | None:
    """`rsvp.mllm.openai` -> `mllm`; None outside the package and for its own `__init__`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "rsvp" and len(parts) > 1 else None


def test_imports_go_downward() -> None:
    parts = {part for module in TREES if (part := part_of(module))}
    assert parts <= LAYER.keys()
    upward = [
        (module, imported)
        for module in TREES
        for imported in imports_of(module)
        if imported not in BUILT_ON.get(module, set())
        and (here := part_of(module))
        and (there := part_of(imported))
        and LAYER[there] > LAYER[here]
    ]
    assert upward == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: imports_of(module, at_import=True) & TREES.keys() for module in TREES}
    while free := {module for module, imported in graph.items() if not imported & graph.keys()}:
        graph = {module: imported for module, imported in graph.items() if module not in free}
    assert graph.keys() == set()


def test_model_libraries_are_imported_where_models_run() -> None:
    heavy = {
        FILES[module]
        for module in TREES
        if {name.split(".")[0] for name in imports_of(module)} & HEAVY
    }
    assert {file for file in heavy if not file.startswith(MAY_BE_HEAVY)} == set()
    assert "segmenters/box.py" not in heavy


def test_training_is_reached_only_by_its_command() -> None:
    users = {FILES[m] for m in TREES if "training" in map(part_of, imports_of(m))}
    assert {u for u in users if not u.startswith("training/")} <= {
        "embedded/pictures.py", "cli/train.py"
    }  # fmt: skip


def test_backends_import_neither_each_other_nor_does_the_pipeline_import_them() -> None:
    for kind, table in registry.BUILT_IN.items():
        backends = {target.partition(":")[0] for target in table.values()}
        for module in backends:
            others = backends - {module} - BUILT_ON.get(module, set())
            assert not imports_of(module) & others, kind
        for name in (
            "pipeline",
            "dialogue",
            "prompt_config",
            "reasoning",
            "views",
            "request",
            "postprocess",
            "registry",
            "parts",
        ):
            assert not imports_of(f"rsvp.{name}") & backends, name
    light = {part_of(module) for module in imports_of("rsvp.registry")} - {None}
    assert light == {"errors", "families"}


def test_a_class_name_exists_once() -> None:
    names = Counter(
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


# Python code -> the packages that it must not load.
LIGHT = {
    "import rsvp; rsvp.errors": {*HEAVY, "numpy", "PIL", "openai", "typer", "pydantic"},
    "import rsvp; [getattr(rsvp, name) for name in rsvp.__all__]": HEAVY,
    **{
        f"from rsvp.cli.main import main; assert main([*{words!r}, '--help']) == 0": {
            *HEAVY, "numpy", "PIL", "openai"
        }
        for words in ([], ["segment"], ["eval"], ["models"], ["doctor"])
    },
}  # fmt: skip


@pytest.mark.parametrize("code", LIGHT)
def test_importing_is_light(code: str) -> None:
    printed = (
        f"import sys; {code}; print(*{{m.split('.')[0] for m in sys.modules}}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", printed], capture_output=True, text=True, check=True
    )
    assert not {*done.stderr.split()} & LIGHT[code]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import rsvp

    assert set(rsvp.__all__) <= set(dir(rsvp))
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        rsvp.Pipelin  # noqa: B018
