"""The openai backend against `transformers serve`, a compatible server of another project.

It takes some 15 s, mostly for two server processes that load torch. One serves the embedded
reasoner where the package has its weights, else a tiny model of its class.

With transformers 5.23, decoder-only models whose processor needs no torchvision (LLaVA) are served
as they are. Florence-2, the embedded reasoner's class, needs two options: its chat template on the
command line, because Florence2Processor drops the folder's (the server answers 500); and
`stream=True`, because the server cuts as many tokens off a whole reply as the prompt has, which is
right for decoder-only models alone. Qwen-VL cannot be served without torchvision: AutoProcessor
needs its video processor.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_florence2, tiny_llava

from rsvp.embedded import scenes
from rsvp.errors import MLLMFailed
from rsvp.mllm import MLLM
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.pipeline import Pipeline
from rsvp.platform import machine
from rsvp.registry import embedded_folder
from rsvp.result import Result
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Message

NEEDED = ("fastapi", "uvicorn", "starlette", "accelerate")
READY_WITHIN = 300.0  # seconds, for both servers; an idle machine takes 10
REASONER = embedded_folder("reasoner")
SHIPPED = machine.holds_weights(REASONER)
DEMO = REASONER.parents[1] / "demo.png"

# One group: pytest-xdist starts the servers once.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("server"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)),
        reason="no server here: pip install -c constraints.txt -e '.[dev]'",
    ),
]

RGB = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
ASK = [Message("user", (RGB, "Box: the cup"))]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class Server:
    """A `transformers serve` of one folder."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, deadline: float) -> None:
        """Wait until it answers; fail if it ended, or at `deadline` on the monotonic clock."""
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"the server ended:\n{self.log.read_text(errors='replace')[-3000:]}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url.replace("/v1", "/health"), timeout=2).close()
                return
            time.sleep(0.2)
        pytest.fail(f"the server did not answer within {READY_WITHIN:g} s")


@contextlib.contextmanager
def serving(folder: Path, log: Path, *options: str) -> Iterator[Server]:
    """Start a server on a free port; end it, and nothing else, afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    settings = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *settings, "--port", str(port), *options], stdout=out, stderr=out
        )
    try:
        yield Server(f"http://127.0.0.1:{port}/v1", folder, process, log)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Model class -> its server. Both start at once."""
    root = tmp_path_factory.mktemp("served")
    florence2 = REASONER if SHIPPED else tiny_florence2(root / "florence2")
    template = (florence2 / "chat_template.jinja").read_text(encoding="utf-8")
    options = ("--chat-template-kwargs", json.dumps({"chat_template": template}))
    deadline = time.monotonic() + READY_WITHIN
    with (
        serving(tiny_llava(root / "llava"), root / "llava.log") as llava,
        serving(florence2, root / "florence2.log", *options) as florence,
    ):
        llava.wait(deadline)
        florence.wait(deadline)
        yield {"llava": llava, "florence2": florence}


@pytest.mark.parametrize(
    ("family", "stream"), [("llava", False), ("llava", True), ("florence2", True)]
)
def test_the_served_model_replies_as_in_process(
    servers: dict[str, Server], family: str, stream: bool
) -> None:
    server = servers[family]
    here = TransformersMLLM(str(server.folder), max_tokens=40, device="cpu").reply(ASK)
    served = OpenAIMLLM(str(server.folder), base_url=server.url, max_tokens=40, stream=stream)
    for schema in (SCHEMA, None):
        reply = served.reply(ASK, schema=schema)
        # A reply cut short inside a character: the stream keeps the half back, decode shows "�".
        assert reply.text.strip().rstrip("�") == here.text.rstrip("�")
        assert reply.text.strip()
        assert reply.usage.prompt_tokens == here.usage.prompt_tokens
        assert reply.finish_reason == here.finish_reason


@pytest.mark.skipif(
    not SHIPPED,
    reason="rsvp/embedded/weights/reasoner is not there: python -m recipes.embedded",
)
@pytest.mark.parametrize("cot", [True, False])
def test_the_served_reasoner_finds_the_same_targets(servers: dict[str, Server], cot: bool) -> None:
    server = servers["florence2"]

    def ask(mllm: MLLM) -> Result:
        pipeline = Pipeline(mllm, BoxesStrategy(), BoxSegmenter(), cot=cot, max_reasks=0)
        return pipeline.segment(DEMO, "what would you cut the bread with?")

    here = ask(TransformersMLLM("embedded", device="cpu"))
    served = ask(OpenAIMLLM(str(server.folder), base_url=server.url, stream=True))
    assert served.reasoning == here.reasoning
    assert [t.box for t in served.targets] == [t.box for t in here.targets]
    assert served.models.prompt_sha256 == here.models.prompt_sha256
    assert served.usage.prompt_tokens == here.usage.prompt_tokens


@pytest.mark.skipif(not SHIPPED, reason="no weights: python -m recipes.embedded")
def test_the_served_reasoner_looks_and_answers_the_same(
    servers: dict[str, Server], tmp_path: Path
) -> None:
    """Asked once: a server does not hold a second answer to the choices, `EnumConstraint` does."""
    words = ["--task", "qa", "--n", "4", "--seed", "31337", "--out", str(tmp_path)]
    assert scenes.main(words) == 0
    server, looks = servers["florence2"], 0
    here = TransformersMLLM("embedded", device="cpu")
    served = OpenAIMLLM(str(server.folder), base_url=server.url, stream=True)
    for scene in json.loads((tmp_path / "scenes.json").read_text())["scenes"]:
        (asked,) = scene["questions"]
        for choices in (None, asked["choices"]):
            one, other = (
                Pipeline(mllm, BoxesStrategy(), BoxSegmenter(), max_reasks=0).answer(
                    tmp_path / scene["image"], asked["text"], choices, zoom="box"
                )
                for mllm in (here, served)
            )
            assert (other.answer, other.choice) == (one.answer, one.choice)
            assert (other.reasoning, other.usage) == (one.reasoning, one.usage)
            pairs = zip(other.looks, one.looks, strict=True)
            assert all((a.query, a.box, a.size) == (b.query, b.box, b.size) for a, b in pairs)
            looks += len(one.looks)
    assert looks >= 2


def test_the_servers_refusal_is_one_line(servers: dict[str, Server]) -> None:
    with pytest.raises(MLLMFailed, match="HTTP 400: Server is pinned to") as error:
        OpenAIMLLM("another/model", base_url=servers["llava"].url).reply(ASK)
    assert "\n" not in str(error.value)
