"""`marks` of a detector of concepts: the phrases that the MLLM names, and the user's examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pil
from scripted import Script, picture, pipeline, texts
from test_marks import Finds
from tiny_sams import SAM3_SIZE, save_sam3, save_sam3_lite

from rsvp import registry
from rsvp.cli.main import main
from rsvp.errors import BadInput, UnparsableReply
from rsvp.mllm.replay import ReplayMLLM
from rsvp.parsing.answers import parse_phrases
from rsvp.phrases import MAX_PHRASES
from rsvp.pipeline import Pipeline
from rsvp.request import make_request
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.candidates import COMMON_PHRASES
from rsvp.strategies.marks import MarksStrategy
from rsvp.types import Box

SAVE = {"sam3": save_sam3, "sam3-lite": save_sam3_lite}
IMAGE = picture(height=300, width=500)
PHRASES = '{"phrases": ["white mug", "dog"]}'
NOTHING = '{"targets": [], "reason": "no mark is on one"}'
EXAMPLE = (50.0, 30.0, 150.0, 90.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save(tmp_path_factory.mktemp(kind)) for kind, save in SAVE.items()}


@pytest.fixture
def detector(folders):
    def make(kind: str = "sam3"):
        options = {"threshold": None, "overlap": 0.9, "device": "cpu"}
        return registry.make("detector", f"{kind}:{folders[kind]}", **options)

    return make


class Concepts(Finds):
    """A detector of concepts; it records phrases and examples."""

    concepts = True

    def candidates(self, image, phrases, like=()):
        found = super().candidates(image, phrases)
        self.asked[-1] = (*phrases, *like)
        return found


@pytest.mark.parametrize("kind", SAVE)
def test_phrases_candidates_numbers_masks(kind: str, detector, tmp_path: Path) -> None:
    """The whole way, with a network of the real class, and again from the recorded replies."""
    strategy = MarksStrategy(detector=detector(kind))
    view = strategy.looking_for(("white mug", "dog"), ()).view(
        make_request(IMAGE, "q").image, "what pets drink from"
    )
    found = view.candidates
    assert set(found.phrases) == {"white mug", "dog"}
    other = found.phrases.index("dog" if found.phrases[0] == "white mug" else "white mug")
    marks = json.dumps({"targets": [{"label": "x", "marks": [1, other + 1]}], "reason": "r"})
    script = Script(PHRASES, marks)
    expected = found.masks[0].unpack() | found.masks[other].unpack()
    for record in (script, None):
        mllm = ReplayMLLM(tmp_path / "run.jsonl", record=record)
        result = Pipeline(mllm, strategy, BoxSegmenter()).segment(IMAGE, "what pets drink from")
        np.testing.assert_array_equal(result.mask, expected)
        assert result.targets[0].score == pytest.approx(float(found.scores[other]))
        assert (result.usage.calls, result.warnings) == (2, ())
    naming, choosing = script.asked
    np.testing.assert_array_equal(naming[-1].parts[0], IMAGE)  # without marks
    np.testing.assert_array_equal(choosing[-1].parts[0], view.rgb)
    assert [len(one) for one in script.asked] == [2, 2]  # conversations of their own
    assert "A detector will look" in texts(naming)[-1]
    assert list(script.schemas[0]["properties"]) == ["phrases"]


def test_what_is_not_there_has_no_marks(detector) -> None:
    made = detector()
    made.threshold = 0.05
    with torch.no_grad():
        made.net.detr_decoder.presence_head.layer3.bias.fill_(-30)
    script = Script(PHRASES, NOTHING)
    result = Pipeline(script, MarksStrategy(detector=made), BoxSegmenter()).segment(IMAGE, "dogs")
    assert result.no_target
    assert "there are none in this image" in texts(script.asked[1])[-1]


@pytest.mark.parametrize(
    ("lines", "calls", "why"),
    [
        (("well", "um", "no idea"), 4, 'no list of "phrases"'),
        (('{"phrases": []}',), 2, "its list is empty"),
    ],
)
def test_without_phrases_the_query_is_looked_for(lines, calls: int, why: str) -> None:
    finds = Concepts()
    pipe = pipeline(*lines, NOTHING, strategy=MarksStrategy(detector=finds))
    result = pipe.segment(IMAGE, "the cup")
    assert finds.asked == [("the cup", *COMMON_PHRASES)]
    assert (result.usage.calls, result.no_target) == (calls, True)
    (warning,) = result.warnings
    assert "the MLLM named nothing" in warning
    assert why in warning


@pytest.mark.parametrize("ask", [None, True])
def test_another_detector_is_told_phrases_on_request(ask: bool | None) -> None:
    finds = Finds()
    strategy = MarksStrategy(detector=finds, ask_phrases=ask)
    pipe = pipeline(*[PHRASES] * bool(ask), NOTHING, strategy=strategy)
    pipe.segment(IMAGE, "the cup")
    assert finds.asked == [("white mug", "dog") if ask else ("the cup", *COMMON_PHRASES)]
    with pytest.raises(BadInput, match="phrases are for a detector"):
        MarksStrategy(ask_phrases=True)


def test_a_model_of_few_words_is_asked_what_it_would_look_at(monkeypatch) -> None:
    monkeypatch.setattr("rsvp.prompt_config._lexicon", lambda _: None)
    finds = Concepts()
    look = '{"reason": "r", "look": ["cup"], "answer": null}'
    pipe = pipeline(look, NOTHING, strategy=MarksStrategy(detector=finds), model="embedded")
    pipe.segment(IMAGE, "the cup")
    assert texts(pipe.mllm.asked[0]) == ["Look: the cup"]
    assert finds.asked == [("cup",)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PHRASES, ("white mug", "dog")),
        ('```json\n["cup", "cup", " dog "]\n```', ("cup", "dog")),
        ('<think>{"phrases": ["a"]}</think>{"phrases": [{"label": "b"}, "?", 3]}', ("b", "3")),
        ('{"phrases": []}', ()),
        (json.dumps({"phrases": ["mug", "word " * 30]}), ("mug",)),
        (json.dumps({"phrases": ["word " * 30]}), "too long"),
        ("a mug", 'no list of "phrases"'),
        ('{"targets": []}', 'no list of "phrases"'),
    ],
)
def test_replies_are_read(text: str, found: tuple[str, ...] | str) -> None:
    if isinstance(found, tuple):
        assert parse_phrases(text) == found
        return
    with pytest.raises(UnparsableReply, match=found):
        parse_phrases(text)


def test_many_phrases_are_cut() -> None:
    finds, names = Concepts(), [f"thing {n}" for n in range(20)]
    pipe = pipeline(json.dumps({"phrases": names}), NOTHING, strategy=MarksStrategy(detector=finds))
    pipe.segment(IMAGE, "things")
    assert finds.asked == [tuple(names[:MAX_PHRASES])]


# ---------------------------------------------------------------- examples


@pytest.mark.parametrize("kind", SAVE)
def test_examples_are_the_class_s_own_box_prompts(kind: str, detector) -> None:
    made, image = detector(kind), make_request(IMAGE, "q").image
    made.overlap = None
    found = made.candidates(image, (), [Box(*EXAMPLE), Box(200, 100, 260, 180)])
    boxes = [(100 / 500, 60 / 300, 100 / 500, 60 / 300), (230 / 500, 140 / 300, 0.12, 80 / 300)]
    text = made._tokenizer("visual", padding="max_length", max_length=32, return_tensors="pt")
    chw = torch.from_numpy(IMAGE.copy()).permute(2, 0, 1)[None]
    pixels = F.interpolate(chw, (SAM3_SIZE, SAM3_SIZE), mode="bilinear", antialias=True)
    with torch.inference_mode():
        own = made.net(
            pixel_values=pixels / 127.5 - 1,
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
            input_boxes=torch.tensor([boxes]),
        )
    expected = (own.pred_logits.sigmoid() * own.presence_logits.sigmoid())[0]
    visible = (own.pred_masks[0] > 0).flatten(1).any(dim=1)
    assert set(found.phrases) == {""}
    np.testing.assert_allclose(
        found.scores, expected[visible].sort(descending=True).values.numpy(), atol=1e-5
    )


def test_examples_reach_the_detector_and_the_mllm() -> None:
    finds = Concepts()
    pipe = pipeline(PHRASES, NOTHING, strategy=MarksStrategy(detector=finds))
    pipe.segment(IMAGE, "more like this one", like=[EXAMPLE])
    assert finds.asked == [("white mug", "dog", Box(*EXAMPLE))]
    for asked in pipe.mllm.asked:
        assert "yellow frames" in texts(asked)[-1]
    shown = pipe.mllm.asked[0][-1].parts[0]
    changed = (shown != IMAGE).any(axis=2)
    assert changed[29, 50:150].mean() > 0.9
    assert not changed[30:90, 50:150].any()


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (None, {"like": [EXAMPLE]}, "the strategy boxes has none"),
        (MarksStrategy(detector=Finds()), {"like": [EXAMPLE]}, "the strategy marks has none"),
        (None, {"like": [EXAMPLE], "boxes": [EXAMPLE]}, "leave out within, exclude and like"),
        (None, {"like": ["1,2"]}, "like is X0,Y0,X1,Y1"),
        (None, {"like": [(900, 10, 990, 20)]}, "lies outside the image"),
    ],
)
def test_examples_that_cannot_be_used(strategy, options, message: str) -> None:
    pipe = pipeline(NOTHING, strategy=strategy)
    with pytest.raises(BadInput, match=message):
        pipe.segment(IMAGE, "cups", **options)
    assert pipe.mllm.asked == []


def test_the_command_takes_examples(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Pil.fromarray(IMAGE).save(tmp_path / "a.png")
    words = ["segment", "--image", str(tmp_path / "a.png"), "--query", "cup", "--segmenter", "box"]
    assert main([*words, "--like", "50,30,150,90", "--json"]) == 2
    assert "examples (like) are for a detector of concepts" in capsys.readouterr().err
