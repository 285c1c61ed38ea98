"""Recording and replaying."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rsvp import registry
from rsvp.errors import BadInput, MLLMFailed
from rsvp.mllm import MLLM, image_familiarity
from rsvp.mllm.replay import ReplayMLLM, message_key
from rsvp.types import Message, Reply, Usage

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


class CountingMLLM:
    """Replies with the number of its calls."""

    def __init__(self, model: str = "m") -> None:
        self.name, self.model, self.calls = "counting", model, 0

    def reply(self, messages: Sequence[Message], *, schema=None) -> Reply:
        self.calls += 1
        return Reply(f"№ {self.calls}\n", Usage(5, 2, 1), 0.25, "stop", 0.875, -0.5)


def ask(text: str, image: np.ndarray = IMAGE) -> list[Message]:
    return [Message("system", ("Be brief.",)), Message("user", (image, text))]


def test_recorded_replies_come_in_order_then_the_last_repeats(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    recorder = ReplayMLLM(file, record=CountingMLLM())
    recorded = [
        recorder.reply(ask("cat?")),
        recorder.reply(ask("dog?")),
        recorder.reply(ask("cat?")),
    ]
    player = ReplayMLLM(file)
    assert isinstance(player, MLLM)
    assert [player.reply(ask("cat?")) for _ in range(3)] == [recorded[0], recorded[2], recorded[2]]
    assert player.reply(ask("dog?")) == recorded[1]
    assert player.model == "m"


def test_recording_appends_and_is_on_disk_at_once(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    ReplayMLLM(file, record=CountingMLLM()).reply(ask("cat?"))
    file.write_bytes(file.read_bytes().rstrip(b"\n"))  # as an editor may leave it
    recorder = ReplayMLLM(file, record=CountingMLLM())
    recorder.reply(ask("dog?"))
    lines = file.read_text().splitlines()
    assert [json.loads(line)["asked"] for line in lines] == ["cat?", "dog?"]


def test_the_recorded_models_name_decides_the_family(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    ReplayMLLM(file, record=CountingMLLM("Qwen/Qwen2.5-VL-7B-Instruct")).reply(ask("cat?"))
    player = registry.make("mllm", f"replay:{file}")
    assert registry.family(player.model).frame == "resized-pixels"


@pytest.mark.parametrize(
    "other",
    [
        ask("cat"),
        ask("cat?", IMAGE[:, ::-1]),
        ask("cat?", IMAGE.reshape(3, 2, 3)),
        [Message("user", ("Be brief.",)), Message("user", (IMAGE, "cat?"))],
        [Message("system", ("Be ", "brief.")), Message("user", (IMAGE, "cat?"))],
    ],
)
def test_other_messages_find_no_reply(tmp_path: Path, other: list[Message]) -> None:
    file = tmp_path / "run.jsonl"
    ReplayMLLM(file, record=CountingMLLM()).reply(ask("cat?"))
    with pytest.raises(MLLMFailed, match=r"run\.jsonl holds no reply to 'cat"):
        ReplayMLLM(file).reply(other)


def test_the_key_is_the_same_in_every_process_and_for_every_memory_layout() -> None:
    wide = np.zeros((2, 6, 3), np.uint8)
    wide[:, ::2] = IMAGE
    assert message_key("m", ask("cat?", wide[:, ::2])) == message_key("m", ask("cat?"))
    assert message_key("n", ask("cat?")) != message_key("m", ask("cat?"))
    assert message_key("m", [Message("user", ("caf\udce9",))])[:8] == "9c5ec8f0"


def test_a_file_holds_one_model(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    ReplayMLLM(file, record=CountingMLLM("a")).reply(ask("cat?"))
    with pytest.raises(BadInput, match="holds replies of a: record b elsewhere"):
        ReplayMLLM(file, record=CountingMLLM("b"))
    line = file.read_text()
    file.write_text(line + line.replace('"model": "a"', '"model": "b"'))
    with pytest.raises(BadInput, match=r"run\.jsonl:2 is a reply of b"):
        ReplayMLLM(file)


@pytest.mark.parametrize(
    "broken",
    [
        '{"key": "a", "text": "cut of',
        "[]",
        "3",
        "{}",
        '{"key": 1, "model": "m", "text": "t", "usage": {}, "seconds": 0, "finish_reason": "stop", '
        '"confidence": null}',
        '{"key": "k", "model": "m", "text": null, "usage": {}, "seconds": 0, '
        '"finish_reason": "stop", "confidence": null}',
        '{"key": "k", "model": "m", "text": "t", "usage": {"tokens": 1}, "seconds": 0, '
        '"finish_reason": "stop", "confidence": null}',
        "\udcff",
    ],
)
def test_the_error_names_a_broken_line(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "run.jsonl"
    ReplayMLLM(file, record=CountingMLLM()).reply(ask("cat?"))
    with file.open("ab") as end:
        end.write(b"\n" + broken.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=r"run\.jsonl:3 is no recorded reply") as error:
        ReplayMLLM(file)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        ReplayMLLM(tmp_path / "none.jsonl")


class Familiar(CountingMLLM):
    """A model that loads weights and knows which images it knows."""

    loaded = 0

    def load(self) -> None:
        self.loaded += 1

    def familiarity(self, rgb: np.ndarray) -> float:
        return float(rgb.sum())


def test_what_a_backend_can_do_besides_is_recorded_too(tmp_path: Path) -> None:
    file, backend = tmp_path / "run.jsonl", Familiar()
    recorder = ReplayMLLM(file, record=backend)
    recorder.load()
    assert (backend.loaded, recorder.name) == (1, "counting")
    known = image_familiarity(recorder, IMAGE)
    assert known == float(IMAGE.sum())
    player = ReplayMLLM(file)
    assert image_familiarity(player, IMAGE) == known
    assert image_familiarity(player, IMAGE + 1) is None
    player.load()
    recorder = ReplayMLLM(tmp_path / "other.jsonl", record=CountingMLLM())
    assert image_familiarity(recorder, IMAGE) is None
    assert not (tmp_path / "other.jsonl").exists()
