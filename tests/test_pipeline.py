"""The pipeline with scripted parts: what it asks, what it makes of replies, what it never does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scripted import Recorder, Script, answer, picture, pipeline, texts

from rsvp import prompting
from rsvp.dialogue import MAX_QUOTE
from rsvp.errors import BadInput, MLLMFailed, ModelUnavailable, UnparsableReply
from rsvp.pipeline import Pipeline
from rsvp.postprocess import UNSURE
from rsvp.stages import CACHED_IMAGES
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.grid import GridStrategy
from rsvp.types import Box, Reply, Usage

# ------------------------------------------------------------ one query


def test_more_targets_than_can_be_meant_are_capped_with_a_word() -> None:
    boxes = [(n, n % 300, n + 100, n % 300 + 90) for n in range(600)]
    result = pipeline(answer(*boxes)).segment(picture(), "the cups")
    assert len(result.targets) == 500
    said = "the MLLM named 600 targets; the first 500 are segmented"
    assert result.warnings.count(said) == 1


def test_a_query_becomes_reasoned_masks() -> None:
    step = {"text": "a cup stands there", "boxes": [[0, 0, 500, 500]]}
    pipe = pipeline(answer((100, 200, 500, 1000), steps=[step]))
    result = pipe.segment(picture(), "the cup")
    (target,) = result.targets
    assert target.box == Box(20, 20, 100, 100)
    assert target.label == "thing 0"
    assert target.mask[20:100, 20:100].all()
    assert target.mask.sum() == 80 * 80
    assert target.score == pytest.approx(0.9)
    assert result.reasoning.steps[0].boxes == (Box(0, 0, 100, 50),)
    assert result.reasoning.reason == "it fits"
    assert result.usage == Usage(100, 10, 1)
    assert {"reason", "encode", "segment", "total"} <= result.timings.keys()
    assert result.models.mllm == "script:qwen3-vl"
    assert (result.models.strategy, result.models.segmenter) == ("boxes", "recorder")
    assert result.warnings == ()


def test_what_is_sent_is_the_profiles_prompt_and_the_image() -> None:
    pipe = pipeline(answer((0, 0, 9, 9)))
    image = picture()
    result = pipe.segment(image, "das Messer: $x {y}")
    system, user = pipe.mllm.asked[0]
    assert system.parts == (prompting.render("full/system"),)
    shown, text = user.parts
    np.testing.assert_array_equal(shown, image)
    assert result.shown is shown
    assert "das Messer: $x {y}" in text
    assert "0 to 1000" in text
    assert "steps" in pipe.mllm.schemas[0]["properties"]
    names = ("full/system", "full/boxes.cot")
    assert result.models.prompt_sha256 == prompting.digest(prompting.load(n).text for n in names)


@pytest.mark.parametrize(
    ("model", "cot", "strategy", "sent"),
    [
        ("embedded", True, BoxesStrategy(), "Think, then box: cup"),
        ("embedded", False, BoxesStrategy(), "Box: cup"),
        ("embedded", True, GridStrategy(), "Think, then bands: cup"),
        ("embedded", False, GridStrategy(), "Bands: cup"),
    ],
)
def test_the_embedded_model_is_asked_in_its_own_words(model, cot, strategy, sent) -> None:
    pipe = pipeline('{"targets":[],"reason":"no"}', model=model, strategy=strategy, cot=cot)
    assert pipe.segment(picture(), "a cup").no_target
    (message,) = pipe.mllm.asked[0]
    assert message.parts[1] == sent


@pytest.mark.parametrize(
    ("model", "frame", "expected"),
    [
        ("qwen3-vl", None, Box(20, 10, 40, 20)),
        ("gemini-3-pro", None, Box(20, 10, 40, 20)),
        ("embedded", None, Box(20, 10, 40, 20)),
        ("embedded", "0-1000", Box(2, 1, 4, 2)),
    ],
)
def test_the_models_family_decides_the_frame(model, frame, expected) -> None:
    numbers = {
        "qwen3-vl": (100, 100, 200, 200),
        "gemini-3-pro": (100, 100, 200, 200),
        "embedded": (10, 10, 20, 20),
    }[model]
    result = pipeline(answer(numbers), model=model, frame=frame).segment(picture(), "x")
    assert result.targets[0].box == expected


def test_gemini_writes_y_first() -> None:
    pipe = pipeline(answer((0, 500, 1000, 600)), model="gemini-3-pro")
    assert pipe.segment(picture(), "x").targets[0].box == Box(100, 0, 120, 100)


# ------------------------------------------------------------ no target


def test_no_target_is_an_answer_and_asks_no_segmenter() -> None:
    pipe = pipeline('{"steps":[],"targets":[],"reason":"there is no cup"}')
    result = pipe.segment(picture(), "the cup")
    assert result.no_target
    assert result.reasoning.reason == "there is no cup"
    assert result.mask.shape == (100, 200)
    assert not result.mask.any()
    assert pipe.segmenter.encoded == []


# ------------------------------------------------------------ asking again


def test_an_unreadable_reply_is_shown_back_and_asked_again() -> None:
    pipe = pipeline("I would rather chat.", answer((0, 0, 500, 500)))
    result = pipe.segment(picture(), "the cup")
    assert len(result.targets) == 1
    assert result.usage == Usage(200, 20, 2)
    first, second = pipe.mllm.asked
    assert second[: len(first)] == first
    assert second[-2].role == "assistant"
    assert second[-2].parts == ("I would rather chat.",)
    assert "the reply has no JSON answer" in second[-1].parts[0]
    assert "the cup" in second[-1].parts[0]
    names = ("full/system", "full/boxes.cot", "full/reask.boxes")
    assert result.models.prompt_sha256 == prompting.digest(prompting.load(n).text for n in names)


def test_a_repetition_loop_is_said_in_the_result() -> None:
    box = {"label": "cup", "box": [0, 0, 500, 500]}
    result = pipeline(json.dumps({"targets": [box] * 60})).segment(picture(), "the cup")
    assert len(result.targets) == 1
    (warning,) = result.warnings
    assert "repeats a target 60 times" in warning


@pytest.mark.parametrize("reasks", [0, 1, 2, 5])
def test_asking_again_is_bounded(reasks: int) -> None:
    pipe = pipeline("no JSON here", max_reasks=reasks)
    with pytest.raises(UnparsableReply) as error:
        pipe.segment(picture(), "the cup")
    assert len(pipe.mllm.asked) == reasks + 1
    assert error.value.raw == "no JSON here"
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)
    assert pipe.segmenter.encoded == []


def test_the_embedded_model_is_asked_anew_once_in_one_turn() -> None:
    pipe = pipeline("garbage", model="embedded", max_reasks=2)
    with pytest.raises(UnparsableReply, match="none of the MLLM's 2 replies"):
        pipe.segment(picture(), "a cup")
    first, second = pipe.mllm.asked
    assert [len(first), len(second)] == [1, 1]
    assert second[0].parts[1] == "Box: cup"
    assert second[0].parts[0] is first[0].parts[0]
    assert "steps" not in pipe.mllm.schemas[1]["properties"]


@pytest.mark.parametrize("reply", ["", "   ", "x" * 500_000])
def test_empty_and_endless_replies_are_quoted_within_bounds(reply: str) -> None:
    pipe = pipeline(reply, answer((0, 0, 500, 500)))
    pipe.segment(picture(), "the cup")
    quoted = pipe.mllm.asked[1][-2].parts[0]
    assert 0 < len(quoted) <= MAX_QUOTE


def test_a_box_outside_the_image_is_asked_again() -> None:
    pipe = pipeline(answer((2000, 2000, 3000, 3000)), answer((0, 0, 500, 500)))
    assert pipe.segment(picture(), "x").targets[0].box == Box(0, 0, 100, 50)


def test_a_failing_mllm_is_not_asked_again() -> None:
    pipe = pipeline(MLLMFailed("unreachable"))
    with pytest.raises(MLLMFailed, match="unreachable"):
        pipe.segment(picture(), "x")
    assert len(pipe.mllm.asked) == 1


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match="strategy"):
        Pipeline(Script("x"), None, Recorder())
    with pytest.raises(BadInput, match="max_reasks"):
        pipeline("x", max_reasks=-1)
    with pytest.raises(BadInput, match="frame"):
        pipeline("x", frame="inches")


# ------------------------------------------------------------ warnings that are true


@pytest.mark.parametrize(
    ("model", "confidence", "warned"),
    [("embedded", 0.3, True), ("embedded", 0.95, False), ("embedded", None, False)],
)
def test_an_unsure_embedded_reasoner_is_doubted(model, confidence, warned) -> None:
    reply = Reply('{"targets":[],"reason":"no"}', confidence=confidence)
    result = pipeline(reply, model=model).segment(picture(), "x")
    assert any(w.startswith(UNSURE) for w in result.warnings) is warned
    assert result.understood is not warned
    assert bool(result.unanswered) is warned


def test_a_model_that_cannot_read_such_images_says_so() -> None:
    reply = Reply('{"targets":[],"understood":false,"reason":"no scene"}', confidence=0.99)
    result = pipeline(reply, model="embedded").segment(picture(), "x")
    assert result.no_target
    assert not result.reasoning.understood
    assert result.warnings == (f"{UNSURE}: no scene",)


@pytest.mark.parametrize(("familiarity", "warned"), [(-0.1, True), (0.1, False), (None, False)])
def test_an_unfamiliar_image_is_warned_about_first_and_keeps_its_answer(
    familiarity, warned
) -> None:
    reply = Reply(answer((0, 0, 500, 500)), finish_reason="length", familiarity=familiarity)
    result = pipeline(reply).segment(picture(), "x")
    assert len(result.targets) == 1
    assert result.warnings[0].startswith(UNSURE) is warned


def test_other_models_are_not_judged_by_the_embedded_ones_measure() -> None:
    reply = Reply(answer((0, 0, 500, 500)), confidence=0.3)
    assert pipeline(reply).segment(picture(), "x").warnings == ()


def test_a_cut_reply_is_warned_about() -> None:
    reply = Reply(answer((0, 0, 500, 500)), finish_reason="length")
    (warning,) = pipeline(reply).segment(picture(), "x").warnings
    assert "cut short" in warning


@pytest.mark.parametrize("given", [{"boxes": [(1, 1, 9, 9)]}, {"points": [(199, 99), (3.5, 4)]}])
def test_an_empty_mask_is_kept_with_a_warning(given) -> None:
    result = Pipeline(None, None, Recorder(pixels=False)).segment(picture(), "cup", **given)
    (target,) = result.targets
    assert not target.mask.any()
    assert target.box in (Box(1, 1, 9, 9), Box(3, 4, 200, 100))
    assert "no pixels" in result.warnings[0]


@pytest.mark.parametrize(("score", "expected"), [(float("nan"), 0.0), (1.02, 1.0), (-0.1, 0.0)])
def test_scores_stay_within_0_and_1(score, expected) -> None:
    pipe = Pipeline(None, None, Recorder(score=score))
    assert pipe.segment(picture(), boxes=[(1, 1, 9, 9)]).targets[0].score == expected


# ------------------------------------------------------------ many images


def test_the_embedded_model_is_asked_in_english() -> None:
    pipe = pipeline(answer((10, 10, 90, 90)), cot=False, language="de")
    assert pipe.prompt_config.translator is None  # other models read any language
    script = Script('{"targets": []}', model="embedded")
    pipe = Pipeline(script, BoxesStrategy(), Recorder(), cot=False, language="de")
    pipe.segment(picture(), "Wo ist die größte Gurke?")
    assert "largest cucumber" in texts(script.asked[0])[-1]


def test_a_word_without_translation_is_named_as_typed() -> None:
    script = Script('{"targets": []}', model="embedded")
    pipe = Pipeline(script, BoxesStrategy(), Recorder(), cot=False, language="de")
    result = pipe.segment(picture(), "Wo ist der Kühlschrank?")
    assert not script.asked
    assert result.reasoning.unknown_words == ("Kühlschrank",)


def test_a_language_that_the_embedded_model_does_not_read_is_refused() -> None:
    script = Script('{"targets": []}', model="embedded")
    with pytest.raises(BadInput, match="'fr'"):
        Pipeline(script, BoxesStrategy(), Recorder(), language="fr")


def test_a_repeated_image_is_encoded_once() -> None:
    pipe = pipeline(answer((0, 0, 500, 500)))
    items = [(picture(1), "a"), (picture(2), "b"), (picture(1), "c")]
    results = list(pipe.segment_many(items))
    assert [r.query for r in results] == ["a", "b", "c"]
    assert len(pipe.segmenter.encoded) == 2
    assert results[2].timings["encode"] == 0.0  # counted once, so that sums are true


def test_few_embeddings_are_cached() -> None:
    pipe = pipeline(answer((0, 0, 500, 500)))
    seeds = [*range(CACHED_IMAGES + 1), 0]
    for _ in pipe.segment_many((picture(seed), "x") for seed in seeds):
        pass
    assert len(pipe.segmenter.encoded) == CACHED_IMAGES + 2


def test_segment_many_works_as_it_is_read() -> None:
    pipe = pipeline(answer((0, 0, 500, 500)))
    results = pipe.segment_many((picture(seed), "x") for seed in range(10**9))
    next(results)
    assert len(pipe.mllm.asked) == 1


def test_awaited_calls_agree_with_sync() -> None:
    line = answer((0, 0, 500, 500))
    sync = pipeline(line).segment(picture(), "x")
    awaited = asyncio.run(pipeline(line).asegment(picture(), "x"))
    np.testing.assert_array_equal(sync.mask, awaited.mask)
    assert sync.models == awaited.models
    assert sync.reasoning == awaited.reasoning


def test_async_many_keeps_the_order_and_the_bound() -> None:
    class Slow(Script):
        now = most = 0

        counting, three_at_once = threading.Lock(), threading.Event()

        def reply(self, messages, *, schema=None):
            with self.counting:
                Slow.now += 1
                Slow.most = max(Slow.most, Slow.now)
                if Slow.now == 3:
                    self.three_at_once.set()
            self.three_at_once.wait(10)
            time.sleep(0.2 if "query-0 " in texts(messages)[-1] else 0.001)
            with self.counting:
                Slow.now -= 1
                return super().reply(messages, schema=schema)

    async def collect():
        pipe = Pipeline(Slow(answer((0, 0, 500, 500))), BoxesStrategy(), Recorder())
        items = [(picture(i), f"query-{i} ") for i in range(8)]
        return [r.query async for r in pipe.asegment_many(items, concurrency=3)]

    assert asyncio.run(collect()) == [f"query-{i} " for i in range(8)]
    assert Slow.most == 3


def test_an_error_in_async_many_leaves_nothing_running() -> None:
    async def collect():
        pipe = pipeline(answer((0, 0, 9, 9)), MLLMFailed("down"))
        async for _ in pipe.asegment_many([(picture(i), "x") for i in range(6)]):
            pass

    async def main():
        with pytest.raises(MLLMFailed):
            await collect()
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


def test_python_ends_without_the_reply_that_an_async_call_waits_for() -> None:
    code = (
        "import asyncio, threading\n"
        "from scripted import Script, picture, pipeline\n"
        "Script.reply = lambda *_, **__: threading.Event().wait()\n"
        "async def main(): await asyncio.wait_for(pipeline('').asegment(picture(), 'x'), 0.1)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip().endswith("TimeoutError"), done.stderr


# ------------------------------------------------------------ a remote MLLM


def test_the_image_is_encoded_while_a_remote_mllm_reasons() -> None:
    segmenter = Recorder()

    class Remote(Script):
        def reply(self, messages, *, schema=None):
            deadline = time.monotonic() + 5
            while not segmenter.encoded and time.monotonic() < deadline:
                time.sleep(0.001)
            assert segmenter.encoded, "nothing was encoded meanwhile"
            return super().reply(messages, schema=schema)

    mllm = Remote(answer((0, 0, 500, 500)), remote=True)
    result = Pipeline(mllm, BoxesStrategy(), segmenter).segment(picture(), "x")
    assert len(result.targets) == 1
    assert len(segmenter.encoded) == 1


def test_a_local_mllm_has_the_machine_to_itself() -> None:
    segmenter = Recorder()

    class Local(Script):
        def reply(self, messages, *, schema=None):
            assert not segmenter.encoded
            return super().reply(messages, schema=schema)

    Pipeline(Local(answer((0, 0, 9, 9))), BoxesStrategy(), segmenter).segment(picture(), "x")


def test_a_segmenter_that_fails_ahead_fails_plainly() -> None:
    class Broken(Recorder):
        def encode(self, images):
            raise ModelUnavailable("no weights")

    pipe = pipeline(answer((0, 0, 500, 500)), segmenter=Broken(), remote=True)
    with pytest.raises(ModelUnavailable, match="no weights"):
        pipe.segment(picture(), "x")


def test_one_segmenter_call_at_a_time() -> None:
    pipe = pipeline(answer((0, 0, 500, 500)))
    threads = [threading.Thread(target=pipe.segment, args=(picture(i), "x")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pipe.segmenter.prompted) == 8
