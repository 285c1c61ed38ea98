"""How the pipeline asks models of different families, and what it does not believe."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scripted import Recorder, Script, answer, picture, pipeline, texts

from rsvp import presets, prompting
from rsvp.dialogue import Limits
from rsvp.errors import UnparsableReply
from rsvp.pipeline import Pipeline
from rsvp.postprocess import UNSURE
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.grid import GridStrategy
from rsvp.strategies.points import PointsStrategy
from rsvp.types import Reply

NONE = '{"targets": [], "reason": "no cup"}'


# ------------------------------------------------------------ the target exists


def test_a_target_that_exists_is_asked_for_in_other_words() -> None:
    pipe = pipeline(answer((0, 0, 500, 500)), target_exists=True)
    result = pipe.segment(picture(), "the cup")
    sent = "\n".join(texts(pipe.mllm.asked[0]))
    assert "Something in the image answers the query" in sent
    assert "never name the next best thing" not in sent
    names = ("full-exists/system", "full-exists/boxes.cot")
    assert result.models.prompt_sha256 == prompting.digest(prompting.load(n).text for n in names)
    assert "Something in the image" not in "\n".join(texts(asked_without()))


def asked_without():
    pipe = pipeline(answer((0, 0, 500, 500)))
    pipe.segment(picture(), "the cup")
    return pipe.mllm.asked[0]


def test_absence_is_doubted_once_where_the_target_exists() -> None:
    pipe = pipeline(NONE, answer((0, 0, 500, 500)), target_exists=True)
    result = pipe.segment(picture(), "the cup")
    assert len(result.targets) == 1
    assert result.usage.calls == 2
    assert "what the query asks for is in the image" in texts(pipe.mllm.asked[1])[-1]


def test_absence_that_is_repeated_is_an_answer() -> None:
    result = pipeline(NONE, NONE, target_exists=True).segment(picture(), "the cup")
    assert result.no_target
    assert result.usage.calls == 2


@pytest.mark.parametrize("options", [{"max_reasks": 0}, {"limits": Limits(calls=1)}])
def test_absence_is_not_doubted_where_nothing_more_can_be_asked(options) -> None:
    result = pipeline(NONE, target_exists=True, **options).segment(picture(), "the cup")
    assert result.no_target
    assert result.usage.calls == 1


def test_the_embedded_reasoner_is_asked_as_ever() -> None:
    pipe = pipeline(NONE, model="embedded", target_exists=True)
    assert pipe.segment(picture(), "cup").usage.calls == 1
    assert texts(pipe.mllm.asked[0]) == [prompting.render("compact/boxes.cot", query="cup")]


# ------------------------------------------------------------ echoes of the worked examples


@pytest.mark.parametrize("target_exists", [False, True])
def test_the_examples_numbers_are_asked_for_again(target_exists: bool) -> None:
    echo = answer((460, 380, 610, 610), (710, 390, 860, 630))
    pipe = pipeline(echo, answer((461, 380, 610, 610)), target_exists=target_exists)
    result = pipe.segment(picture(), "the cup")
    assert result.targets[0].raw == (461, 380, 610, 610)
    assert "worked example" in texts(pipe.mllm.asked[1])[-1]


def test_a_model_that_only_echoes_gives_no_result() -> None:
    with pytest.raises(UnparsableReply, match="worked example"):
        pipeline(answer((460, 380, 610, 610))).segment(picture(), "the cup")


def test_echoed_points_are_asked_for_again() -> None:
    def points(*xy):
        target = {"label": "cup", "points": [list(xy)], "not": []}
        return json.dumps({"targets": [target], "reason": "r"})

    pipe = pipeline(points(520, 500), points(521, 500), strategy=PointsStrategy())
    result = pipe.segment(picture(), "the cup")
    assert result.usage.calls == 2


def test_the_grids_bands_are_no_echo() -> None:
    """Its few numbers are often the same by chance."""
    bands = '{"targets": [{"label": "cup", "rows": [4, 5, 6], "columns": [5, 6]}], "reason": "r"}'
    result = pipeline(bands, strategy=GridStrategy()).segment(picture(), "the cup")
    assert result.usage.calls == 1


# ------------------------------------------------------------ families


@pytest.mark.parametrize(
    ("model", "key"),
    [("qwen3-vl", "bbox_2d"), ("qwen3.6-plus", "bbox_2d"), ("gemini-3-pro", "box_2d"),
     ("gpt-5.1", "box"), ("claude-opus-4.5", "box")],
)  # fmt: skip
def test_a_box_is_asked_for_under_the_familys_key(model: str, key: str) -> None:
    pipe = pipeline(answer((50, 50, 90, 90)).replace('"box"', f'"{key}"'), model=model)
    result = pipe.segment(
        picture(),
        "the cup",
    )
    assert len(result.targets) == 1
    assert f'"{key}": [' in texts(pipe.mllm.asked[0])[-1].splitlines()[-1]
    target = pipe.mllm.schemas[0]["properties"]["targets"]["items"]["properties"]
    assert list(target) == ["label", key]


def test_claude_is_asked_for_pixels_of_a_picture_that_it_does_not_resize() -> None:
    pipe = pipeline(answer((0, 0, 620, 465)), model="claude-opus-4.5")
    result = pipe.segment(np.zeros((3000, 4000, 3), np.uint8), "the cup")
    height, width = result.shown.shape[:2]
    assert width * height <= 1_150_000
    assert max(width, height) <= 1568
    assert f"{width} pixels wide and {height} pixels high" in texts(pipe.mllm.asked[0])[-1]
    assert result.targets[0].box.x1 == pytest.approx(4000 * 620 / width)


@pytest.mark.parametrize("model", ["brand-new", "meta-llama/Llama-4-Scout-17B-16E-Instruct"])
def test_a_model_of_unknown_frame_is_named_with_the_frame_that_is_assumed(model: str) -> None:
    result = pipeline(answer((0, 0, 90, 90)), model=model).segment(picture(), "x")
    (warning,) = result.warnings
    assert warning.startswith(f"nothing is known of how {model} writes coordinates: they are read")
    assert "--frame" in warning


@pytest.mark.parametrize(
    ("reply", "options"),
    [
        (answer((0, 0, 90, 90)), {"frame": "0-1000"}),
        (answer((0, 0, 90, 90)), {"model": "qwen3-vl"}),
        (NONE, {}),
        (
            '{"targets": [{"label": "x", "rows": [1], "columns": [2]}], "reason": "r"}',
            {"strategy": GridStrategy()},
        ),
    ],
)
def test_nothing_is_assumed_where_the_frame_is_known_or_not_needed(reply, options) -> None:
    result = pipeline(reply, **{"model": "brand-new", **options}).segment(picture(), "x")
    assert result.warnings == ()


def test_fractions_are_read_with_a_warning_of_the_result() -> None:
    result = pipeline(answer((0.1, 0.2, 0.5, 0.6))).segment(picture(), "x")
    assert result.targets[0].box.xyxy == pytest.approx((20, 20, 100, 60))
    assert "fractions of 1" in result.warnings[0]


def test_a_box_beyond_the_range_is_asked_for_again_naming_the_range() -> None:
    pipe = pipeline(answer((900, 300, 1300, 700)), answer((900, 300, 990, 700)))
    assert pipe.segment(picture(), "x").usage.calls == 2
    assert "x goes from 0 to 1000, y from 0 to 1000" in texts(pipe.mllm.asked[1])[-1]


@pytest.mark.parametrize(
    ("model", "strategy"), [("gpt-4o", "grid"), ("qwen3-vl-plus", "boxes"), ("molmo2", "points")]
)
def test_the_api_preset_asks_each_family_for_what_it_can_write(model: str, strategy: str) -> None:
    pipe = Pipeline.from_preset("api", mllm=Script(NONE, model=model), segmenter="box")
    assert pipe.strategy.name == strategy
    given = Pipeline.from_preset("api", mllm=Script(NONE, model=model), strategy="grid:3x4",
                                 segmenter="box")  # fmt: skip
    assert given.strategy.grid == (3, 4)


def test_a_frame_that_the_user_names_keeps_the_familys_key() -> None:
    mllm = Script(NONE, model="gemini-3-pro")
    pipe = Pipeline.from_preset("api", mllm=mllm, segmenter="box", frame="0-1")
    assert (pipe.prompt_config.frame.kind, pipe.prompt_config.frame.box_key) == ("0-1", "box_2d")


def test_auto_is_a_preset_of_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(presets, "choose", lambda: asked.append(1) or (presets.get("api"), "why"))
    pipe = Pipeline.from_preset("auto", mllm=Script(NONE, model="gemini-3"), segmenter="box")
    assert (pipe.strategy.name, len(asked)) == ("boxes", 1)


# ------------------------------------------------------------ an image that the model cannot read


def test_nothing_found_in_an_unfamiliar_image_is_not_understood() -> None:
    def run(text: str, familiarity: float):
        mllm = Script(Reply(text, familiarity=familiarity), model="embedded")
        return Pipeline(mllm, BoxesStrategy(), Recorder()).segment(picture(), "cup")

    strange = run(NONE, -0.5)
    assert not strange.reasoning.understood
    assert strange.warnings[0].startswith(UNSURE)
    assert run(NONE, 0.5).reasoning.understood
    assert run(answer((0, 0, 50, 50)), -0.5).reasoning.understood
