"""The openai backend against llama.cpp's own server, which serves our tiny LLaVA.

It needs a Python with `xllamacpp` (llama.cpp's server as a wheel) and `gguf`, which rsvp does not
depend on, e.g. in an environment of its own:

    python -m venv /tmp/llama && /tmp/llama/bin/pip install xllamacpp gguf safetensors
    LLAMA_PYTHON=/tmp/llama/bin/python pytest tests/families/test_llama_cpp.py
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_llava

from rsvp.errors import MLLMFailed
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.types import Message

HERE = Path(__file__).parent
PYTHON = os.environ.get("LLAMA_PYTHON", sys.executable)
NEEDED = "import gguf, safetensors, xllamacpp"
RGB = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
PAIR = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
SCHEMA = {
    "type": "object",
    "properties": {"pair": PAIR},
    "required": ["pair"],
    "additionalProperties": False,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("server"),
    pytest.mark.skipif(
        subprocess.run([PYTHON, "-c", NEEDED], capture_output=True, check=False).returncode != 0,
        reason="no llama.cpp here: set LLAMA_PYTHON, see this file's first lines",
    ),
]


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[str]:
    """A server's URL; it ends with the context."""
    command = [PYTHON, str(HERE / "llama_server.py"), *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip() + "/v1"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_llava(tmp_path_factory.mktemp("llava"))
    subprocess.run([PYTHON, str(HERE / "llava_gguf.py"), str(made)], check=True)
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder / "text.gguf", folder / "mmproj.gguf", "512") as started:
        yield started


@pytest.mark.parametrize("stream", [True, False])
def test_the_served_model_replies_as_in_process(folder: Path, url: str, stream: bool) -> None:
    ask = [Message("user", ("Box: the cup",))]
    here = TransformersMLLM(str(folder), max_tokens=20, device="cpu").reply(ask)
    served = OpenAIMLLM("m", base_url=url, max_tokens=20, stream=stream).reply(ask)
    assert (served.text, served.usage) == (here.text, here.usage)
    assert served.finish_reason == here.finish_reason == "length"


def test_a_picture_takes_as_many_tokens_as_in_process(folder: Path, url: str) -> None:
    local = TransformersMLLM(str(folder), max_tokens=20, device="cpu")
    here = local.reply([Message("user", (RGB, "Box: the cup"))])
    # The template writes a line break behind a picture; the server, its own mark as text.
    mllm = OpenAIMLLM("m", base_url=url, max_tokens=20, enable_thinking=False)
    served = mllm.reply([Message("user", (RGB, "\nBox: the cup"))])
    assert served.usage == here.usage
    assert served.text[:4] == here.text[:4]
    assert mllm._refused == frozenset()


def test_the_server_keeps_to_the_schema(url: str) -> None:
    mllm = OpenAIMLLM("m", base_url=url, max_tokens=60)
    reply = mllm.reply([Message("user", (RGB, "Box: the cup"))], schema=SCHEMA)
    assert reply.text.replace(" ", "").replace("\n", "").startswith('{"pair":[')
    assert mllm._refused == frozenset()


def test_a_raised_limit_gives_more_of_the_same_reply(url: str) -> None:
    mllm, ask = OpenAIMLLM("m", base_url=url, max_tokens=10), [Message("user", ("Where?",))]
    cut = mllm.reply(ask)
    longer = mllm.reply_longer(ask, cut)
    assert longer is not None
    assert (cut.finish_reason, longer.usage.completion_tokens) == ("length", 20)
    assert longer.text.startswith(cut.text.rstrip("�"))


def test_a_full_context_is_named_and_not_asked_for_again(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    mllm, ask = OpenAIMLLM("m", base_url=url), [Message("user", ("Where is it? " * 20,))]
    with caplog.at_level(logging.WARNING):
        cut = mllm.reply(ask)
    assert cut.finish_reason == "length"
    assert cut.usage.prompt_tokens + cut.usage.completion_tokens in (511, 512)
    assert "its context is full" in caplog.text
    assert mllm.reply_longer(ask, cut) is None


def test_a_prompt_beyond_the_context_is_one_error(url: str) -> None:
    with pytest.raises(MLLMFailed, match=r"context size .512 tokens") as error:
        OpenAIMLLM("m", base_url=url).reply([Message("user", ("Where is it? " * 90,))])
    assert "attempts" not in str(error.value)


def test_a_server_without_its_vision_file_is_one_error(folder: Path) -> None:
    with (
        serving(folder / "text.gguf", "512") as blind,
        pytest.raises(MLLMFailed, match=r"reads no images.*--mmproj") as error,
    ):
        OpenAIMLLM("m", base_url=blind).reply([Message("user", (RGB, "Where?"))])
    assert "attempts" not in str(error.value)
