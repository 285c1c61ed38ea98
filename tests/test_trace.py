"""`Pipeline.trace` and `rsvp trace`: every object of a path has a mask, each once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from scripted import Recorder, Script, picture, pipeline, texts

from recipes.embedded.examples import TaskOptions
from recipes.embedded.model import SIZE
from recipes.embedded.paths import trace_example
from rsvp import prompting, registry
from rsvp.cli.main import main
from rsvp.detectors import Candidates
from rsvp.drawing.targets import overlay
from rsvp.embedded.vocabulary import categories
from rsvp.errors import BadInput, UnparsableReply
from rsvp.evaluation.metrics.vrt import seg_indices
from rsvp.lexicon import Lexicon, normalize
from rsvp.parsing import parse_path
from rsvp.pipeline import Pipeline
from rsvp.result import Trace
from rsvp.strategies.base import MAX_TARGETS
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.grid import GridStrategy
from rsvp.strategies.marks import MarksStrategy
from rsvp.strategies.points import PointsStrategy
from rsvp.types import Masks

IMAGE = picture()  # 200 x 100


def named(label: str, *box: int, **more) -> dict:
    return {"label": label, "box": list(box), **more}


DOG, CUP = named("dog", 100, 200, 300, 500, id=1), named("cup", 500, 300, 700, 600, id=2)
BIRD = {"label": "bird"}


def path(*steps, answer="the cup", objects=(CUP,)) -> str:
    entries = [{"text": text, "objects": list(objects)} for text, objects in steps]
    return json.dumps({"path": entries, "answer": answer, "answer_objects": list(objects)})


WHOLE = path(
    ("The dog is there.", [DOG]), ("Right of it is the cup.", [CUP, BIRD]), ("Bigger.", [DOG, CUP])
)


def traced(*lines, **options) -> tuple[Trace, Pipeline]:
    asked = {k: options.pop(k) for k in ("within", "exclude") if k in options}
    pipe = pipeline(*lines, **options)
    return pipe.trace(IMAGE, "what is right of the dog?", **asked), pipe


# ------------------------------------------------------------ one question


def test_every_object_is_segmented_once_in_one_batch_of_an_image_encoded_once() -> None:
    found, pipe = traced(WHOLE)
    assert [len(prompts) for prompts in pipe.segmenter.prompted] == [2]
    assert len(pipe.segmenter.encoded) == 1
    assert [t.label for t in found.targets] == ["dog", "cup"]
    assert [[o.number for o in step.objects] for step in found.path] == [[1], [2, None], [1, 2]]
    assert found.path[2].objects[0].target is found.path[0].objects[0].target
    assert found.path[0].objects[0].mask[20:50, 20:60].all()
    assert (found.answer, found.question) == ("the cup", "what is right of the dog?")
    assert found.answer_objects[0].target is found.targets[1]
    assert found.not_grounded == 1
    assert found.warnings == ("step 2: no usable place for 'bird': not grounded",)
    assert found.usage.calls == 1


def test_what_is_sent() -> None:
    _, pipe = traced(WHOLE)
    system, user = pipe.mllm.asked[0]
    assert system.parts == (prompting.render("full/system.trace"),)
    assert user.parts[0] is not None
    assert user.parts[1].count("what is right of the dog?") == 1
    assert "=== question" in user.parts[1]
    (schema,) = pipe.mllm.schemas
    entry = schema["properties"]["path"]["items"]["properties"]["objects"]["items"]
    assert entry["required"] == ["id", "label", "bbox_2d"]
    assert schema["required"] == ["path", "answer", "answer_objects"]


class Finds:
    """A detector with two boxes."""

    name = "finds"

    def candidates(self, image, phrases):
        boxes = np.array([[20, 20, 60, 50], [100, 30, 140, 60]], np.float32)
        return Candidates(boxes, np.array([0.9, 0.8], np.float32), ("", ""))


@pytest.mark.parametrize(
    ("strategy", "dog", "cup"),
    [
        (GridStrategy(), {"rows": [2, 3], "columns": [1, 2]}, {"rows": [4], "columns": [5, 6]}),
        (PointsStrategy(), {"points": [[200, 300]], "not": []}, {"points": [[600, 400]]}),
        (PointsStrategy("box"), {"points": [[200, 300]], "box": [100, 200, 300, 500]},
         {"points": [[600, 400]], "box": [500, 300, 700, 600]}),
        (MarksStrategy(detector=Finds()), {"marks": [1]}, {"marks": [2]}),
    ],
)  # fmt: skip
def test_every_strategy(strategy, dog, cup) -> None:
    dog, cup = {"label": "dog", **dog}, {"label": "cup", **cup}
    text = path(("The dog.", [dog]), ("The cup, a bird.", [cup, BIRD]), objects=[cup])
    found, pipe = traced(text, strategy=strategy)
    assert [[o.number for o in step.objects] for step in found.path] == [[1], [2, None]]
    assert [o.number for o in found.answer_objects] == [2]
    assert all(target.mask.any() for target in found.targets)
    assert len(pipe.segmenter.prompted[0]) == 2
    assert prompting.exists(f"full/trace.{strategy.name}")


def test_an_answer_without_objects_is_no_target() -> None:
    found, _ = traced(path(("The dog is alone.", [DOG]), answer="nothing is", objects=()))
    assert found.no_target
    assert (found.answer, len(found.targets), found.answer_objects) == ("nothing is", 1, ())


def test_a_reply_that_is_no_path_is_asked_for_again_in_its_own_words() -> None:
    found, pipe = traced("the cup", WHOLE)
    assert found.answer == "the cup"
    again = texts(pipe.mllm.asked[1])[-1]
    assert '"path" with its "text" and "objects"' in again
    assert "no JSON" in again
    with pytest.raises(UnparsableReply, match="none of the MLLM's 3 replies"):
        traced("the cup")


def test_objects_without_end_are_cut_off() -> None:
    many = [named(f"o{n}", n, 0, n + 9, 9, id=n) for n in range(600)]
    found, _ = traced(path(("all", many), objects=many[-1:]))
    assert len(found.targets) == MAX_TARGETS == 500
    assert "the MLLM named 600 targets; the first 500 are segmented" in found.warnings
    assert found.answer_objects[0].target is None


def test_the_boxes_of_the_worked_example_are_refused() -> None:
    kettle = named("kettle", 60, 240, 310, 620)
    _, pipe = traced(path(("kettle", [kettle]), objects=[kettle]), WHOLE)
    assert "worked example" in texts(pipe.mllm.asked[1])[-1]


def test_where_the_target_exists_an_empty_answer_is_doubted_once() -> None:
    empty = path(("The dog.", [DOG]), answer="none", objects=())
    found, pipe = traced(empty, WHOLE, target_exists=True)
    assert not found.no_target
    assert '"answer_objects" is empty' in texts(pipe.mllm.asked[1])[-1]
    assert '"answer_objects" is never empty' in texts(pipe.mllm.asked[0])[-1]


def test_a_hint_ungrounds_what_it_rules_out_and_the_numbers_stay_right() -> None:
    found, _ = traced(WHOLE, within=(100, 0, 200, 100))
    assert [t.label for t in found.targets] == ["cup"]
    assert [[o.number for o in step.objects] for step in found.path] == [
        [None],
        [1, None],
        [None, 1],
    ]
    assert found.answer_objects[0].target is found.targets[0]
    assert "1 of 2 targets that the MLLM named went against the hint" in found.warnings


class Blind(Recorder):
    """Finds no pixels of the cup, and doubts the dog."""

    def masks(self, encoding, proposals):
        found = super().masks(encoding, proposals)
        found.masks[1] = False
        return Masks(found.masks, found.scores, np.array([0.01, 0.9], np.float32))


def test_what_the_segmenter_does_not_see_is_told_with_the_step() -> None:
    found, _ = traced(WHOLE, segmenter=Blind())
    assert found.warnings[1:] == (
        "step 2: the segmenter found no pixels for object 2 (cup)",
        "step 1: the segmenter doubts that object 1 is dog (presence 0.01)",
    )


def test_both_stages_apart_and_awaited_give_the_same() -> None:
    whole, pipe = traced(WHOLE)
    output = pipe.reason(IMAGE, whole.question, trace=True)
    apart = pipe.segment_proposals(IMAGE, output)
    awaited = asyncio.run(pipe.atrace(IMAGE, whole.question))
    for other in (apart, awaited):
        assert isinstance(other, Trace)
        assert other.to_dict()["path"] == whole.to_dict()["path"]


def test_without_an_mllm_nothing_is_traced() -> None:
    with pytest.raises(BadInput, match="without an MLLM"):
        Pipeline(None, None, Recorder()).trace(IMAGE, "which?")


def test_a_segmentation_warns_once_of_what_was_odd() -> None:
    fractions = json.dumps(
        {"steps": [], "targets": [{"label": "a", "box": [0.1, 0.1, 0.5, 0.5]}], "reason": ""}
    )
    result = pipeline(fractions).segment(IMAGE, "cup")
    assert len(result.warnings) == 1


# ------------------------------------------------------------ the embedded reasoner


def embedded(monkeypatch, lexicon, *lines, strategy=None) -> Pipeline:
    monkeypatch.setattr("rsvp.prompt_config._lexicon", lambda _: lexicon)
    return pipeline(*lines, model="embedded", strategy=strategy)


@pytest.mark.parametrize(
    "strategy", [BoxesStrategy(), GridStrategy(), PointsStrategy()], ids=lambda s: s.name
)
def test_prompts_pictures_and_replies_are_those_of_the_training(monkeypatch, strategy) -> None:
    seen = trace_example(np.random.default_rng(7), shares={strategy.name: 1.0})
    plain = trace_example(np.random.default_rng(7), shares={"boxes": 1.0}).rgb
    words = {w for turn in seen.turns for w in normalize(turn.prompt.partition(": ")[2]).split()}
    lexicon = Lexicon(sorted(words))
    options = TaskOptions(read=lambda text: lexicon.read(text).text)
    example = trace_example(np.random.default_rng(7), options, shares={strategy.name: 1.0})
    assert example.turns
    for turn, before in zip(example.turns, seen.turns, strict=True):
        reply = "".join(piece for piece, _ in turn.reply)
        pipe = embedded(monkeypatch, lexicon, reply, strategy=strategy)
        found = pipe.trace(plain, before.prompt.partition(": ")[2])
        (message,) = pipe.mllm.asked[0]
        np.testing.assert_array_equal(message.parts[0], example.rgb)
        assert message.parts[1] == turn.prompt
        mentions = [o for step in found.path for o in step.objects]
        names = [categories()[example.categories[i]].name for i in turn.reasoning]
        assert [o.label for o in mentions] == names
        for one, i in zip(mentions, turn.reasoning, strict=True):
            x, y = (one.box.x0 + one.box.x1) / 2, (one.box.y0 + one.box.y1) / 2
            x0, y0, x1, y1 = example.boxes[i] * SIZE
            assert x0 - 2 <= x <= x1 + 2 or strategy.name == "grid"
            assert y0 - 2 <= y <= y1 + 2 or strategy.name == "grid"
        assert len(found.answer_objects) == len(turn.targets)
        assert not found.warnings


def test_an_image_that_it_cannot_read_is_no_answer(monkeypatch) -> None:
    no = '{"targets":[],"understood":false,"reason":"no scene"}'
    found = embedded(monkeypatch, Lexicon(["cup"]), no).trace(IMAGE, "cup")
    assert (found.answer, found.path, found.reasoning.understood) == ("", (), False)
    unknown = embedded(monkeypatch, Lexicon(["cup"], ["gasket"]), no).trace(IMAGE, "gasket")
    assert isinstance(unknown, Trace)
    assert unknown.reasoning.unknown_words == ("gasket",)


# ------------------------------------------------------------ files and the command


def test_the_document_is_the_contract() -> None:
    document = traced(WHOLE)[0].to_dict()
    assert {"question", "answer", "path", "answer_objects", "usage", "timings", "models",
            "warnings", "image", "reply", "schema_version"} <= document.keys()  # fmt: skip
    assert [step["text"] for step in document["path"]] == [
        "The dog [1] is there.",
        "Right of it is the cup [2]. (bird [?])",
        "Bigger. (dog [1]) (cup [2])",
    ]
    dog, bird = document["path"][0]["objects"][0], document["path"][1]["objects"][1]
    assert dog.keys() == {"label", "number", "box", "score", "mask"}
    assert (dog["box"], dog["score"], dog["mask"]["size"]) == ([20, 20, 60, 50], 0.9, [100, 200])
    assert bird == {"label": "bird", "number": None, "box": None, "score": None, "mask": None}
    assert document["answer_objects"] == [document["path"][1]["objects"][0]]
    assert document["not_grounded"] == 1
    assert json.loads(json.dumps(document)) == document


def test_the_form_of_vrt_bench(tmp_path: Path) -> None:
    tricky = path(
        ("The [SEG] dog</think> is [SE[SEG]G] <answer>there", [DOG]), ("cup", [CUP, BIRD, DOG])
    )
    traced(tricky)[0].save(str(tmp_path), ["vrt"])
    (line,) = (tmp_path / "vrt.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["text"].count("[SEG]") == len(found["masks"]) == 3
    assert seg_indices(found["text"]) == ([0, 1], [2])
    assert parse_path(tricky, expect="box").answer == "the cup"


def test_the_overlay_has_the_numbers_of_the_text() -> None:
    found, _ = traced(WHOLE)
    plain = pipeline(json.dumps({"targets": [named("dog", 100, 200, 300, 500),
        named("cup", 500, 300, 700, 600)], "reason": ""})).segment(IMAGE, "x")  # fmt: skip
    np.testing.assert_array_equal(found.overlay(), overlay(IMAGE, plain.targets, first=1))


class ScriptedPath(Script):
    """`--mllm traced:`."""

    def __init__(self, _: str | None = None) -> None:
        super().__init__(WHOLE)


@pytest.fixture
def image(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "traced", f"{__name__}:ScriptedPath")
    Pil.fromarray(IMAGE).save("a.png")
    return "a.png"


def test_the_command(image: str, capsys) -> None:
    words = ["trace", "--image", image, "--question", "what is right of the dog?",
             "--mllm", "traced:x", "--segmenter", "box"]  # fmt: skip
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "1. The dog [1] is there.",
        "2. Right of it is the cup [2]. (bird [?])",
        "3. Bigger. (dog [1]) (cup [2])",
        "answer: the cup [2]",
        "",
        "[1] dog: box 20,20,60,50, 1200 pixels, score 1.00",
        "[2] cup: box 100,30,140,60, 1200 pixels, score 1.00",
        "[?] not grounded: 1",
        "tokens: 100 read, 10 written, 1 call",
        "",
        "written: rsvp-out/result.json, rsvp-out/overlay.png, rsvp-out/masks, rsvp-out/result.html",
    ]
    assert err == "warning: step 2: no usable place for 'bird': not grounded\n"
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "the cup"


def test_a_later_trace_replaces_an_earlier_one_and_its_masks(tmp_path: Path) -> None:
    traced(WHOLE)[0].save(str(tmp_path))
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["000.png", "001.png"]
    traced(path(("The cup.", [CUP])))[0].save(str(tmp_path))
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["000.png"]
    assert "The dog" not in (tmp_path / "result.html").read_text()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--question", " "], 2, "empty"),
        (["--question", "x", "--format", "gif"], 2, "unknown writer 'gif'"),
        (["--question", "x", "--mllm", "none"], 2, "without an MLLM"),
    ],
)
def test_what_it_refuses_is_one_line(image: str, more, code, said, capsys) -> None:
    assert main(["trace", "--image", image, *more, "--segmenter", "box"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
