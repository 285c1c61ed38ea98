"""In Python: arrays and tensors, many images, equality, hashing, pickles, and warnings."""

from __future__ import annotations

import asyncio
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scripted import Recorder, Script, answer, picture, pipeline

import rsvp
from rsvp.errors import BadInput, MLLMFailed, RsvpWarning
from rsvp.images import load_image
from rsvp.pipeline import Pipeline
from rsvp.result import Result
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.grid import GridStrategy
from rsvp.strategies.points import PointsStrategy
from rsvp.types import Box, Masks, PackedMask

BOXES = [[1.0, 2.0, 30.0, 40.0], [50.0, 50.0, 60.0, 70.0]]
AS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": lambda values: tuple(map(tuple, values)),
    "array": np.array,
    "float32": lambda values: np.array(values, dtype=np.float32),
    "tensor": torch.tensor,
    "bfloat16": lambda values: torch.tensor(values, dtype=torch.bfloat16, requires_grad=True),
}


def cutter(**options: Any) -> Pipeline:
    return Pipeline(None, None, Recorder(**options))


# ------------------------------------------------------------ arrays and tensors


@pytest.mark.parametrize("form", AS)
def test_boxes_points_and_hints_in_any_form(form: str) -> None:
    made = AS[form]
    result = cutter().segment(picture(), boxes=made(BOXES))
    assert [t.box for t in result.targets] == [Box(*box) for box in BOXES]
    (target,) = cutter().segment(picture(), points=made([[3, 4], [5, 6]])).targets
    assert target.mask[4, 3]
    assert target.mask[6, 5]
    pipe = pipeline(answer((0, 0, 500, 500), (500, 500, 999, 999)))
    hinted = pipe.segment(
        picture(), "x", within=made([[0, 0, 110, 100]])[0], exclude=made([[150, 80]])
    )
    assert len(hinted.targets) == 1


@pytest.mark.parametrize("form", AS)
def test_a_single_box_or_point(form: str) -> None:
    box, point = AS[form](BOXES)[0], AS[form]([[3, 4]])[0]
    assert cutter().segment(picture(), boxes=box).targets[0].box == Box(*BOXES[0])
    assert cutter().segment(picture(), points=point).targets[0].mask[4, 3]


@pytest.mark.parametrize(
    "boxes", [np.zeros((0, 4)), np.zeros((2, 5)), np.zeros((1, 2, 4)), 7, "1,2,3,4", {1: 2}]
)
def test_other_shapes_are_refused_in_one_line(boxes: Any) -> None:
    with pytest.raises(BadInput) as error:
        cutter().segment(picture(), boxes=boxes)
    assert "\n" not in str(error.value) or len(str(boxes).splitlines()) > 1


RGB = picture(3, 20, 30)
FRACTIONS = RGB.astype(np.float64) / 255


@pytest.mark.parametrize(
    "image",
    [
        FRACTIONS,
        FRACTIONS.astype(np.float32),
        torch.tensor(RGB),
        torch.tensor(RGB).permute(2, 0, 1),
        torch.tensor(FRACTIONS, dtype=torch.float32).permute(2, 0, 1),
        RGB.transpose(2, 0, 1),
    ],
)
def test_images_as_arrays_and_tensors(image: Any) -> None:
    np.testing.assert_array_equal(load_image(image).rgb, RGB)


def test_half_precision_and_grey_tensors() -> None:
    grey = torch.tensor(FRACTIONS[..., 0], dtype=torch.float32)
    for tensor in (grey, grey[None], grey[..., None]):
        np.testing.assert_array_equal(load_image(tensor).rgb, RGB[..., :1].repeat(3, axis=2))
    half = load_image(torch.tensor(FRACTIONS).to(torch.bfloat16)).rgb
    assert np.abs(half.astype(int) - RGB).max() <= 2


def test_a_path_from_an_array_is_a_path() -> None:
    (path,) = np.array(["no.png"])
    with pytest.raises(BadInput, match=r"no such image file: no\.png"):
        load_image(path)


@pytest.mark.parametrize(
    "image",
    [FRACTIONS * 2, FRACTIONS - 0.5, FRACTIONS * np.nan, RGB.astype(np.int64), RGB[None], RGB > 9],
)
def test_arrays_of_unknown_range_or_shape_are_refused(image: Any) -> None:
    with pytest.raises(BadInput, match="an image array is"):
        load_image(image)


# ------------------------------------------------------------ many


def many(pipe: Pipeline, items: list[Any], how: str, **options: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [found async for found in pipe.asegment_many(items, **options)]

    return asyncio.run(collect()) if how == "async" else [*pipe.segment_many(items, **options)]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_many_with_boxes_and_by_name(how: str) -> None:
    items = [
        (picture(1), "a", [BOXES[0]]),
        (picture(2), "b", None, [(3, 4)]),
        {"image": picture(3), "boxes": BOXES, "labels": ["cup", "knife"]},
    ]
    found = many(cutter(), items, how)
    assert [[t.label for t in r.targets] for r in found] == [["a"], ["b"], ["cup", "knife"]]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_one_bad_image_need_not_end_the_run(how: str) -> None:
    items = [(picture(1), "a"), ("no.png", "b"), (picture(2), "c")]

    def pipe() -> Pipeline:
        return pipeline(answer((0, 0, 500, 500)))

    first, second, third = many(pipe(), items, how, on_error="return")
    assert (first.query, third.query) == ("a", "c")
    assert isinstance(second, BadInput)
    assert "no such image file: no.png" in str(second)
    with pytest.raises(BadInput, match="no such image file"):
        many(pipe(), items, how)
    with pytest.raises(BadInput, match="on_error is raise or return"):
        many(pipe(), items, how, on_error="skip")


def test_an_mllm_that_fails_is_returned_and_a_bug_is_raised() -> None:
    items = [(picture(i), "x") for i in range(2)]
    found = many(pipeline(MLLMFailed("down")), items, "sync", on_error="return")
    assert [type(error) for error in found] == [MLLMFailed, MLLMFailed]
    with pytest.raises(ZeroDivisionError):
        many(pipeline(ZeroDivisionError()), items, "sync", on_error="return")


# ------------------------------------------------------------ equality, hashing, pickles


def result(seed: int = 0, *boxes: tuple[int, ...]) -> Result:
    return pipeline(answer(*(boxes or [(100, 200, 500, 1000)]))).segment(picture(seed), "the cup")


def test_results_compare_and_hash_by_content() -> None:
    one, same = result(), result()
    assert one.timings != same.timings
    assert one == same
    assert hash(one) == hash(same)
    assert {one, same, result(1)} == {one, result(1)}
    assert one != result(0, (100, 200, 600, 1000))
    assert one != replace(one, query="another")
    (target,) = one.targets
    assert replace(target, packed=PackedMask.pack(target.mask)) == target
    assert replace(target, packed=PackedMask.pack(~target.mask)) != target
    assert target != "a target"


def test_masks_compare_by_content() -> None:
    scores = np.ones(1, np.float32)
    first, second = (Masks(np.zeros(shape, np.bool_), scores) for shape in ((1, 2, 3), (1, 3, 2)))
    assert first == Masks(first.masks.copy(), scores.copy())
    assert first != second
    assert len({first, second}) == 2


def test_results_are_pickled() -> None:
    one = result()
    read = pickle.loads(pickle.dumps(one))
    assert read == one
    assert isinstance(read, Result)
    np.testing.assert_array_equal(read.mask, one.mask)
    np.testing.assert_array_equal(read.image.rgb, one.image.rgb)


def test_a_pipeline_is_pickled_by_its_specs(tmp_path) -> None:
    recorded = tmp_path / "r.jsonl"
    script = Script(answer((0, 0, 500, 500)))
    pipe = Pipeline.from_preset(
        mllm=script, strategy="boxes", segmenter="box", record=recorded, cot=False
    )
    first = pipe.segment(picture(), "the cup")
    player = Pipeline.from_preset(
        mllm=f"replay:{recorded}", strategy="boxes", segmenter="box", cot=False
    )
    copy = pickle.loads(pickle.dumps(player))
    assert copy.prompt_config == player.prompt_config
    assert copy.segment(picture(), "the cup").targets == first.targets
    assert first.models.mllm == "script:qwen3-vl"
    assert len(pickle.dumps(Pipeline.from_preset(mllm="none"))) < 2000  # specs, no weights


def test_a_pipeline_of_objects_is_pickled_with_them() -> None:
    pipe = Pipeline(Script(answer((0, 0, 500, 500))), BoxesStrategy(), BoxSegmenter(), frame="0-1")
    copy = pickle.loads(pickle.dumps(pipe))
    assert copy.prompt_config == pipe.prompt_config
    assert copy.mllm.name == pipe.mllm.name
    gridded = pipe.with_strategy(GridStrategy())
    assert pickle.loads(pickle.dumps(gridded)).strategy.name == "grid"
    assert (gridded._cache is pipe._cache, pipe.strategy.name) == (True, "boxes")


# ------------------------------------------------------------ warnings


def test_warnings_are_python_warnings_at_the_callers_line() -> None:
    pipe = cutter(pixels=False)
    with pytest.warns(RsvpWarning, match="no pixels for target 0") as caught:
        found = pipe.segment(picture(), boxes=[(1, 1, 9, 9)])
    assert [str(w.message) for w in caught] == list(found.warnings)
    assert caught[0].filename == __file__
    assert rsvp.RsvpWarning is RsvpWarning
    with warnings.catch_warnings():
        warnings.simplefilter("error", RsvpWarning)
        with pytest.raises(RsvpWarning):
            pipe.segment(picture(), boxes=[(1, 1, 9, 9)])


@pytest.mark.parametrize(
    ("given", "score", "warned"),
    [
        ({"points": [(3, 4)]}, 0.5, True),
        ({"points": [(3, 4), (9, 9, 0)]}, 0.5, True),  # "not this" is not on the target
        ({"points": [(3, 4)]}, 0.95, False),
        ({"points": [(3, 4), (5, 6)]}, 0.5, False),
        ({"points": [(3, 4)], "boxes": [(1, 1, 9, 9)]}, 0.5, False),
        ({"boxes": [(1, 1, 9, 9)]}, 0.5, False),
    ],
)
def test_a_lone_point_with_a_low_score_warns(given: Any, score: float, warned: bool) -> None:
    found = cutter(score=score).segment(picture(), "cup", **given).warnings
    assert any("has one point and a low score (0.50)" in text for text in found) is warned
    assert any("a box around it or a second point helps" in text for text in found) is warned


def test_a_lone_point_of_the_mllm_warns_too() -> None:
    targets = [
        {"label": "cup", "points": [[100, 100]]},
        {"label": "cup", "points": [[5, 5], [9, 9]]},
    ]
    pipe = pipeline(
        json.dumps({"targets": targets}), segmenter=Recorder(score=0.5), strategy=PointsStrategy()
    )
    (warning,) = pipe.segment(picture(), "cups").warnings
    assert warning.startswith("target 0 has one point")


def test_points_and_labels_reach_the_awaitable_twin() -> None:
    call = cutter().asegment(picture(), points=np.array([[3, 4]]), labels=["cup"])
    (target,) = asyncio.run(call).targets
    assert target.label == "cup"
