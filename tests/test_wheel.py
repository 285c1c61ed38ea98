"""The wheel, as a stranger gets it: what is in it, and the main job run from nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmark_folders
import demo_truth
import numpy as np
import pytest
import readme_commands
from PIL import Image as Pil
from pycocotools import mask as coco_mask

from rsvp.embedded.vocabulary import STYLES

ROOT = Path(__file__).parents[1]
WEIGHTS = "rsvp/embedded/weights"
MEGABYTE = 1_000_000
NOWHERE = "http://127.0.0.1:9"  # the discard port: whatever asks the network is refused at once

# One group, so that pytest-xdist builds the wheel once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def run(command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run it and return stdout; a failure shows both streams."""
    done = subprocess.run(
        command, cwd=cwd, env=env, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(out: Path, *what: str) -> Path:
    """Build with the hatchling of this environment, so that nothing is downloaded."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *what]
    run([*command, str(ROOT)], cwd=out)
    return next(out.glob("*.whl"))


def members(wheel: Path) -> dict[str, int]:
    """Path -> size in bytes of everything in the wheel but its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    return {name: size for name, size in sizes.items() if ".dist-info/" not in name}


def files_below(folder: Path) -> set[str]:
    """The files of a folder as a clone has them, relative to it."""
    found = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {path.relative_to(folder).as_posix() for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `python -m build` makes: the sdist first, the wheel from the sdist."""
    return build(tmp_path_factory.mktemp("dist"))


def test_it_holds_the_package_and_the_prompts_and_nothing_else(wheel: Path) -> None:
    package = {f"rsvp/{name}" for name in files_below(ROOT / "rsvp")}
    prompts = {f"rsvp/_prompts/{name}" for name in files_below(ROOT / "prompts")}
    recipes = {f"rsvp/_recipes/{file.name}" for file in (ROOT / "eval").glob("*.toml")}
    assert set(members(wheel)) == package | prompts | recipes
    sheets = {f"rsvp/embedded/world/{sheet}" for sheet in STYLES.values()}
    assert {"rsvp/py.typed", *sheets} <= package
    assert "rsvp/_prompts/full/boxes.cot.txt" in prompts


def test_a_wheel_made_without_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    assert members(build(tmp_path, "--wheel")) == members(wheel)


def test_the_licences_come_with_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        licences = [name for name in archive.namelist() if "/licenses/" in name]
        texts = {Path(name).name: archive.read(name).decode() for name in licences}
    assert "Apache License" in texts["LICENSE"]
    assert "Noto Emoji" in texts["NOTICE"]
    assert "Unicode, Inc." in texts["NOTICE"]
    assert all(sheet in texts["NOTICE"] for sheet in STYLES.values())


def test_the_weights_are_small_enough_to_ship(wheel: Path) -> None:
    sizes = {n: s for n, s in members(wheel).items() if n.startswith(f"{WEIGHTS}/")}
    assert {n: s for n, s in sizes.items() if s >= 16 * MEGABYTE} == {}
    assert sum(sizes.values()) <= 40 * MEGABYTE


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the wheel and borrows the dependencies."""

    folder: Path
    env: Mapping[str, str]

    def run(self, program: str, *arguments: str, cwd: Path) -> str:
        return run([str(self.folder / "bin" / program), *arguments], cwd=cwd, env=self.env)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel where no checkout can be seen.

    Dependencies come from this environment through a `.pth` line: that adds a folder to the path
    without reading the `.pth` files in it, so an editable install of rsvp stays invisible.
    """
    folder, home = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("home")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    run([*pip, "--disable-pip-version-check", "--no-index", "--no-deps", str(wheel)], cwd=folder)
    ours = sysconfig.get_path("purelib", vars={"base": str(folder)})
    theirs = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (Path(ours) / "dependencies.pth").write_text("\n".join(theirs) + "\n")
    env = {
        "PATH": os.defpath,
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
    }
    return Installed(folder, env)


def test_it_is_the_wheel_that_is_imported(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import sys, rsvp, rsvp.prompting as p\n"
        "from importlib.metadata import version\n"
        "assert p.load('full/boxes.cot').text and p.load('compact/grid.direct').text\n"
        "assert rsvp.__version__ == version('rsvp-segmentation')\n"
        "assert 'torch' not in sys.modules\n"
        "print(rsvp.__file__)"
    )
    where = Path(installed.run("python", "-c", code, cwd=tmp_path).strip())
    assert where.is_relative_to(installed.folder)


def decode(rle: Mapping[str, Any]) -> np.ndarray:
    """(H, W) bool."""
    return coco_mask.decode(dict(rle)).astype(bool)


@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
def test_the_main_job_runs_from_it_alone(installed: Installed, tmp_path: Path) -> None:
    """An empty folder, an empty home, no network: a question in, the right pixels out. Twice."""
    find = "import rsvp.embedded as e; print(next(iter(e.__path__)))"
    image = Path(installed.run("python", "-c", find, cwd=tmp_path).strip()) / "demo.png"
    job = ["segment", "--image", str(image), "--query", demo_truth.QUERY, "--json"]
    printed = json.loads(installed.run("rsvp", *job, "--out", "out", cwd=tmp_path))

    written = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert printed == written
    assert written["query"] == demo_truth.QUERY
    assert written["no_target"] is False
    assert written["steps"]
    assert written["reason"]
    assert written["models"]["mllm"] == "transformers:embedded"
    (target,) = written["targets"]
    assert target["label"] == demo_truth.LABEL
    assert target["mask"]["size"] == list(demo_truth.SIZE)
    assert demo_truth.iou(decode(target["mask"]), demo_truth.knife()) > 0.5
    assert (tmp_path / "out" / "overlay.png").stat().st_size > 0
    assert (tmp_path / "out" / "masks" / "000.png").stat().st_size > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]

    again = json.loads(installed.run("rsvp", *job, cwd=tmp_path))
    assert again.pop("timings").keys() == printed.pop("timings").keys()
    assert again == printed


@pytest.fixture
def users_folder(installed: Installed, tmp_path: Path) -> Path:
    """An empty folder with the files that the README's reader has: photos, data, two runs."""
    Pil.new("RGB", (640, 427), (90, 120, 60)).save(tmp_path / "photo.jpg")
    (tmp_path / "data" / "reasonseg").mkdir(parents=True)
    shapes = [benchmark_folders.polygon("target", 0, 0, 10, 10)]
    val = tmp_path / "data" / "reasonseg" / "val"
    benchmark_folders.write_reasonseg(val, {"a": (True, shapes), "b": (False, shapes)})
    lines = (json.dumps({"id": name, "masks": []}) for name in "ab")
    (tmp_path / "anyone.jsonl").write_text("\n".join(lines))
    job = ["eval", "reasonseg", "--data", str(val), "--preset", "embedded", "--out"]
    for out, more in (("runs/val", []), ("runs/val-without-cot", ["--no-cot"])):
        installed.run("rsvp", *job, out, *more, cwd=tmp_path)
    shutil.move(tmp_path / "runs", tmp_path / "finished")
    return tmp_path


@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
def test_every_command_of_the_readme(installed: Installed, users_folder: Path) -> None:
    """From the wheel alone, in the README's order; what needs a download says how to get it."""
    env, wrong, ran = dict(installed.env), [], 0
    env["PATH"] = f"{installed.folder / 'bin'}{os.pathsep}{os.defpath}"
    for command in readme_commands.commands():
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            env[name] = value
            continue
        if command.startswith(tuple(readme_commands.ELSEWHERE)):
            continue
        lacking = (v for part, v in readme_commands.LACKING.items() if part in command)
        code, said = next(lacking, (0, ""))
        done = subprocess.run(
            command, shell=True, cwd=users_folder, env=env, check=False, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        if (done.returncode, said in done.stderr) != (code, True) or "Traceback" in done.stderr:
            wrong.append(f"{command}\n  exited {done.returncode}, not {code}: {done.stderr}")
        ran += 1
        if "rsvp eval reasonseg" in command:  # two runs as it would have made them
            assert not (users_folder / "runs").exists()
            shutil.move(users_folder / "finished", users_folder / "runs")
    assert not wrong, "\n".join(wrong)
    assert ran >= 12
    for code in readme_commands.python_blocks():
        installed.run("python", "-c", code, cwd=users_folder)
    assert (users_folder / "out" / "overlay.png").stat().st_size > 0
    assert (users_folder / "submission").is_dir()
