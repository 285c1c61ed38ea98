"""The project's own files: sizes, versions, promises that the build and the README make."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MEGABYTE = 1_000_000

# A folder of somebody's own machine: it means nothing on another.
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|home|Users)/\w")


def tracked() -> list[Path]:
    """The files that a clone gets."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "-C", str(ROOT), "ls-files", "-z"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def requirement_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def test_every_file_is_small_enough_to_clone() -> None:
    large = {str(p): p.stat().st_size for p in tracked() if p.stat().st_size >= 16 * MEGABYTE}
    assert not large


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # an image or weights
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(lines, 1)
            if MACHINE_PATH.search(line)
        ]
    assert not found


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("data = '{}root/photos'", True),
        ("see {}home/me/x.png", True),
        ("https://example.org{}work/of/art", False),
        ("mounted at {}workspace", False),
        ("${{HOME}}{}work/x", False),
    ],
)
def test_what_counts_as_such_a_folder(line: str, named: bool) -> None:
    assert bool(MACHINE_PATH.search(line.format("/"))) is named


def test_the_versions_agree() -> None:
    import rsvp

    assert rsvp.__version__ == PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_the_installed_version_is_this_one() -> None:
    try:
        installed = importlib.metadata.version(PROJECT["name"])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("rsvp runs from the checkout, uninstalled")
    assert installed == PROJECT["version"], "pyproject.toml changed: run make setup"


def test_no_install_needs_torchvision() -> None:
    """It has no build for every torch, and a broken one breaks every transformers class.

    Only the extra `vision` is for models whose image processors exist for torchvision alone.
    """
    pull_it_in = {"torchvision", "timm", "open-clip-torch", "sam2", "groundingdino-py"}
    extras = PROJECT["optional-dependencies"]
    others = (lines for name, lines in extras.items() if name != "vision")
    for lines in (PROJECT["dependencies"], *others):
        assert not pull_it_in & {requirement_name(line) for line in lines}


def test_every_extra_that_an_error_names_exists() -> None:
    """`MissingExtra(feature, extra)` and `require(module, extra)` print a pip command; it works."""
    named = set()
    for path in (ROOT / "rsvp").rglob("*.py"):
        if path.name == "extras.py":  # passes on what `require` is called with
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            callee = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and callee.endswith(("MissingExtra", "require")):
                extra = node.args[1] if len(node.args) > 1 else node.keywords[-1].value
                assert isinstance(extra, ast.Constant), f"{path.name}:{node.lineno}"
                named.add(extra.value)
    assert named <= set(PROJECT["optional-dependencies"])


def test_no_printed_command_installs_somebody_elses_package() -> None:
    """The registry's `rsvp` is another project; this one's distribution has a name of its own."""
    assert PROJECT["name"] == "rsvp-segmentation"
    theirs = re.compile(r"pip install [^\n#]*?(?<![\w./-])rsvp(?![\w.-])")
    texts = [p for p in tracked() if p.suffix in {".py", ".md", ".toml", ".txt", ".html", ""}]
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts
        for line in path.read_text(encoding="utf-8").splitlines()
        if theirs.search(line)
    ]
    assert not found


def test_torch_is_pinned_for_setup() -> None:
    """Without the pin pip replaces a CPU build by gigabytes of CUDA packages."""
    assert re.search(r"^torch==\d", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_make_help_lists_the_targets() -> None:
    listing = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for target in ("setup", "test", "demo", "check"):
        assert re.search(rf"^  make {target}\s+\w", listing, re.MULTILINE), listing


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert re.search(r"^make test\b", text, re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_every_room() -> None:
    """Its file tree names each top-level entry of the project and of the package."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```.*?^```", readme, re.MULTILINE | re.DOTALL)
    trees = [fence for fence in fences if "pyproject.toml" in fence and "frames.py" in fence]
    assert trees, "the README has no file tree"
    parts = [path.relative_to(ROOT).parts for path in tracked()]
    rooms = {p[0] for p in parts} | {p[1] for p in parts if p[0] == "rsvp"}
    hidden = {room for room in rooms if room.startswith((".", "_")) and room != ".ci"}
    named = set(re.findall(r"[\w.-]+", trees[0]))
    assert sorted(rooms - hidden - named - {"py.typed"}) == []
