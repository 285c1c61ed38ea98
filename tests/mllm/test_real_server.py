"""The openai backend against `transformers serve`: a compatible server that is not ours.

Needs ``pip install 'transformers[serving]'``, no torchvision; skipped where that is missing. About
20 s: each server process loads torch.

What it takes, with transformers 5.23: decoder-only models whose processor needs no torchvision
(LLaVA) are served as they are. Florence-2, the embedded reasoner's class, needs two things said:
its chat template on the command line, because Florence2Processor drops the folder's (the server
answers 500), and `stream=True`, because the server cuts as many tokens off a whole reply as the
prompt has, which is right for decoder-only models alone. Qwen-VL cannot be served without
torchvision: AutoProcessor insists on its video processor.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LAST_USER_TEXT, tiny_florence2, tiny_llava

from rsvp.errors import MLLMFailed
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.registry import embedded_folder
from rsvp.types import Message

NEEDED = ("fastapi", "uvicorn", "starlette", "accelerate")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)),
        reason="no server here: pip install 'transformers[serving]'",
    ),
]

RGB = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
ASK = [Message("user", (RGB, "Box: the cup"))]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


def start(folder: Path, *options: str) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a server for one folder; the URL, and the process to end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    settings = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    log = (folder / "serve.log").open("wb") if os.access(folder, os.W_OK) else subprocess.DEVNULL
    process = subprocess.Popen(
        [*command, *settings, "--port", str(port), *options], stdout=log, stderr=log
    )
    return f"http://127.0.0.1:{port}/v1", process


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers; fails when it ended or took two minutes."""
    for _ in range(240):
        assert process.poll() is None, "the server ended; see serve.log beside the model"
        try:
            with urllib.request.urlopen(url.replace("/v1", "/health"), timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server did not answer within two minutes")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, Path]]]:
    """Model class -> URL and folder. Both processes start at once."""
    root = tmp_path_factory.mktemp("served")
    shipped = embedded_folder("reasoner")
    florence = (
        shipped if (shipped / "config.json").is_file() else tiny_florence2(root / "florence2")
    )
    llava = tiny_llava(root / "llava")
    template = json.dumps({"chat_template": LAST_USER_TEXT})
    started = {
        "llava": (*start(llava), llava),
        "florence2": (*start(florence, "--chat-template-kwargs", template), florence),
    }
    try:
        for url, process, _ in started.values():
            wait(url, process)
        yield {name: (url, folder) for name, (url, _, folder) in started.items()}
    finally:
        for _, process, _ in started.values():
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize(
    ("family", "stream"), [("llava", False), ("llava", True), ("florence2", True)]
)
def test_the_served_model_says_what_the_same_model_says_in_process(
    servers: dict[str, tuple[str, Path]], family: str, stream: bool
) -> None:
    url, folder = servers[family]
    here = TransformersMLLM(str(folder), max_new_tokens=40, device="cpu").reply(ASK)
    served = OpenAIMLLM(str(folder), base_url=url, max_tokens=40, stream=stream)
    for reply in (served.reply(ASK, schema=SCHEMA), asyncio.run(served.areply(ASK))):
        # A reply cut short inside a character: the stream keeps the half back, decode shows "�".
        assert reply.text.strip().rstrip("�") == here.text.rstrip("�")
        assert reply.text.strip()
        assert reply.usage.prompt_tokens == here.usage.prompt_tokens
        assert reply.finish_reason == here.finish_reason


def test_the_servers_refusal_is_one_line(servers: dict[str, tuple[str, Path]]) -> None:
    url, _ = servers["llava"]
    with pytest.raises(MLLMFailed, match="HTTP 400: Server is pinned to") as error:
        OpenAIMLLM("another/model", base_url=url).reply(ASK)
    assert "\n" not in str(error.value)
