"""The picture that a server gets: no server resizes it, so that a model's pixels are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chat_server import Server, completion, connect
from scripted import Recorder, answer, picture, pipeline

from rsvp.frames import smart_resize
from rsvp.mllm.replay import ReplayMLLM
from rsvp.pipeline import Pipeline
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.views import SERVED_PIXELS

SIZES = [(2000, 3000), (3000, 200), (1024, 1536), (1001, 999), (100, 200), (20, 33), (28, 28)]


def seen(asked):
    return next(p for message in asked[0] for p in message.parts if not isinstance(p, str))


@pytest.mark.parametrize("strategy", ["boxes", "points:box", "grid"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frame", [None, "pixels"])
def test_a_server_gets_a_picture_that_it_will_not_resize(size, frame, strategy) -> None:
    none = '{"targets": [], "reason": "none"}'
    pipe = pipeline(none, model="qwen2.5-vl-7b", remote=True, frame=frame)
    made = pipe if strategy == "boxes" else Pipeline.from_preset(
        mllm=pipe.mllm, strategy=strategy, segmenter="box", frame=frame
    )  # fmt: skip
    made.segment(picture(0, *size), "the cup")
    h, w = seen(pipe.mllm.asked).shape[:2]
    # Every default that servers are known to have, and those of the hub's folders, leave it as is.
    for most in (SERVED_PIXELS, 12845056, 2621440):
        assert smart_resize(h, w, max_pixels=most) == (h, w)
    assert h * w <= 1_003_520
    if strategy != "grid":
        assert f"{w} pixels wide and {h} pixels high" in str(pipe.mllm.asked) or frame is None


@pytest.mark.parametrize("size", [(2000, 3000), (100, 200)])
def test_a_box_in_the_servers_pixels_comes_back_to_the_pixel(size) -> None:
    height, width = size
    h, w = smart_resize(*size, max_pixels=SERVED_PIXELS)
    numbers = (w // 4, h // 4, w // 2, h // 2)
    pipe = pipeline(answer(numbers), model="qwen2.5-vl-7b", remote=True)
    box = pipe.segment(picture(0, *size), "the cup").targets[0].box
    h, w = seen(pipe.mllm.asked).shape[:2]
    expected = [n * s for n, s in zip(numbers, (width / w, height / h) * 2, strict=True)]
    assert np.allclose(box.xyxy, expected, atol=1e-6)


@pytest.mark.parametrize("model", ["qwen3-vl-8b", "gpt-5.1", "gemini-3"])
def test_a_model_of_relative_coordinates_sees_all_that_it_can(model: str) -> None:
    pipe = pipeline('{"targets": [], "reason": ""}', model=model, remote=True)
    pipe.segment(picture(0, 2000, 3000), "the cup")
    assert max(seen(pipe.mllm.asked).shape) == pipe.prompt_config.family.max_side


def test_a_recorded_server_replays_with_the_same_picture(tmp_path: Path) -> None:
    server, results = Server(), []
    try:
        server.answers = [completion(answer((1, 2, 300, 400)))]
        mllm = connect(server)
        mllm.model = "qwen2.5-vl-7b"
        file = tmp_path / "run.jsonl"
        for made in (lambda: ReplayMLLM(file, record=mllm), lambda: ReplayMLLM(file)):
            pipe = Pipeline(made(), BoxesStrategy(), Recorder())
            results.append(pipe.segment(picture(0, 900, 1700), "cup"))
    finally:
        server.http.shutdown()
        server.http.server_close()
    recorded, replayed = results
    assert [t.box for t in replayed.targets] == [t.box for t in recorded.targets]
    assert len(server.requests) == 1
