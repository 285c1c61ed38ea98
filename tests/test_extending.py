"""The exercises of docs/extending.md: installed as a user would install them, and run."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from chat_server import Answer, Server
from PIL import Image as PilImage

# One group: with pytest-xdist, pip installs the plug-ins once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extending")]

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)

WIDTH, HEIGHT = 64, 48
CUP = (16, 12, 48, 36)  # xyxy pixels, half open
REPLY = {  # in pixels, as Claude writes boxes
    "steps": [{"text": "One cup stands in the middle.", "boxes": []}],
    "targets": [{"label": "cup", "box": list(CUP)}],
    "reason": "",
}


def section(title: str) -> str:
    """The text under a heading of the page."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def message(request: dict[str, Any]) -> Answer:
    """What Anthropic's server would answer to a request that it accepts."""
    types = [part["type"] for m in request["messages"] for part in m["content"]]
    assert types.count("image") == 1
    assert request["system"]
    content = [{"type": "text", "text": json.dumps(REPLY)}]
    usage = {"input_tokens": 700, "output_tokens": 60}
    return 200, {"content": content, "stop_reason": "end_turn", "usage": usage}, {}


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.answers = [message]
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed the plug-ins of the page."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    for name, text in FILE.findall(PAGE):
        (source / name).write_text(text, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, *offline, str(source)], check=True)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a photo and a benchmark of one query, and one that has no target."""
    x0, y0, x1, y1 = CUP
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 255
    cups = tmp_path / "cups"
    cups.mkdir()
    photo = PilImage.fromarray(np.stack([mask, mask // 2, 255 - mask], axis=-1))
    photo.save(tmp_path / "photo.jpg")
    photo.save(cups / "one.png")
    PilImage.fromarray(mask).save(cups / "one-mask.png")
    with (cups / "queries.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "image", "mask", "query", "kind"])
        rows.writerow(["one/cup", "one.png", "one-mask.png", "what to drink from", "present"])
        rows.writerow(["one/cat", "one.png", "", "the cat", "absent"])
    return tmp_path


def run(title: str, folder: Path, site: Path, server: Server) -> list[str]:
    """Run a section's commands in `folder`; return what each printed on stdout."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "ANTHROPIC_BASE_URL": server.url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": "key",
    }
    printed = []
    for line in "".join(COMMANDS.findall(section(title))).splitlines():
        prompt, program, *arguments = shlex.split(line)
        assert (prompt, program) == ("$", "rsvp")
        done = subprocess.run(
            [sys.executable, "-m", "rsvp", *arguments],
            env=environment, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    return printed


def test_a_new_mllm_provider(folder: Path, site: Path, server: Server) -> None:
    run("A new MLLM provider", folder, site, server)
    (request,) = server.requests
    assert (request["model"], request["max_tokens"]) == ("claude-sonnet-4-5", 4096)
    result = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["targets"][0]["box"] == list(CUP)
    assert result["models"]["mllm"] == "anthropic:claude-sonnet-4-5"
    assert result["usage"] == {"prompt_tokens": 700, "completion_tokens": 60, "calls": 1}


def test_a_new_benchmark(folder: Path, site: Path, server: Server) -> None:
    """The server sees a cup for every query: right for one of the two."""
    for printed in run("A new benchmark", folder, site, server):
        scores = json.loads(printed)
        assert scores["n"] == 2
        assert scores["giou"]["mean"] == pytest.approx(0.5)
        assert scores["by_kind"]["present"]["giou"]["mean"] == pytest.approx(1.0)
        assert scores["by_kind"]["absent"]["giou"]["mean"] == 0.0


def test_a_new_export_format(folder: Path, site: Path, server: Server) -> None:
    """supervision reads the file, with the pixels that rsvp meant."""
    run("A new export format", folder, site, server)
    dataset = sv.DetectionDataset.from_pascal_voc(str(folder), str(folder / "voc"))
    assert dataset.classes == ["cup"]
    (annotation,) = dataset.annotations.values()
    assert annotation.xyxy.tolist() == [list(CUP)]


def test_each_exercise_fits_a_page() -> None:
    sizes = {name: len(text.splitlines()) for name, text in FILE.findall(PAGE)}
    assert len(sizes) == 4
    assert max(sizes.values()) <= 70, sizes
