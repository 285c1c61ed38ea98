"""Questions: looks at what the MLLM names, their pictures, and what it is asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scripted import Recorder, Script, answer, picture, pipeline, texts

from rsvp import prompting
from rsvp.answer import Zoom, make_answer_request, question_variables
from rsvp.cli.main import main
from rsvp.dialogue import Limits
from rsvp.errors import BadInput, BudgetExceeded, UnparsableReply
from rsvp.lexicon import Lexicon
from rsvp.looks import take_away
from rsvp.pipeline import Pipeline
from rsvp.request import make_request
from rsvp.types import Reply, Usage

CUP = (100, 200, 200, 400)  # of 1000; of an image of 600 x 400: 60, 80, 120, 160
LOOK = json.dumps({"reason": "too small", "look": ["the cup"], "answer": None})
IMAGE = picture(height=400, width=600)


def said(text: str, reason: str = "it shows") -> str:
    return json.dumps({"reason": reason, "answer": text})


def images_of(message) -> list[np.ndarray]:
    return [part for part in message.parts if not isinstance(part, str)]


def ask(*lines, choices=("red", "blue"), image=IMAGE, **options):
    parts = {k: options.pop(k) for k in ("limits", "segmenter", "max_reasks") if k in options}
    pipe = pipeline(*lines, **parts)
    return pipe.answer(image, "which colour?", choices, **options), pipe.mllm


def test_what_is_named_is_segmented_and_shown_enlarged_as_a_new_turn() -> None:
    found, mllm = ask(LOOK, answer(CUP), said("(B)"), zoom="box", looks=1)
    (look,) = found.looks
    assert (found.answer, found.choice, found.reason) == ("blue", 1, "it shows")
    assert (look.query, look.targets[0].box.xyxy) == ("the cup", (60, 80, 120, 160))
    assert look.box.xyxy == (34, 64, 146, 176)  # padded by 0.2 and square
    assert look.size == (448, 448)  # four times
    first, segmenting, second = mllm.asked
    assert [m.role for m in second] == ["system", "user", "assistant", "user"]
    assert second[:2] == first
    assert [one.shape for one in images_of(first[1])] == [(400, 600, 3)]
    assert [one.shape for one in images_of(second[-1])] == [(448, 448, 3)]
    assert "=== query" in texts(segmenting)[-1]
    assert texts(segmenting)[-1].count("the cup") == 1
    assert texts(second)[-1].startswith("Observation 1: above is the part")
    assert found.usage == Usage(300, 30, 3)
    assert found.reasoning.steps[0].boxes == (look.targets[0].box,)


def test_the_pixels_are_those_of_the_image_and_not_of_the_view() -> None:
    rgb = picture(height=40, width=3200)
    rgb[10:30, 1000:1020] = (255, 0, 0)
    found, mllm = ask(
        LOOK, answer((312.5, 250, 318.75, 750)), said("A"), image=rgb, zoom="mask:white"
    )
    assert images_of(mllm.asked[0][1])[0].shape == (19, 1536, 3)
    shown = images_of(mllm.asked[-1][-1])[0]
    assert shown[shown.shape[0] // 2, shown.shape[1] // 2].tolist() == [255, 0, 0]
    assert found.looks[0].picture is not None


@pytest.mark.parametrize("background", ["mean", "grey", "white", "blur"])
def test_a_mask_takes_everything_else_away(background: str) -> None:
    rgb = np.zeros((100, 100, 3), np.uint8)
    rgb[40:60, 40:60] = 200
    found, _ = ask(
        LOOK, answer((400, 400, 600, 600)), said("A"), image=rgb, zoom=f"mask:{background}"
    )
    shown = found.looks[0].picture
    assert found.background == background
    assert shown[56, 56].tolist() == [200] * 3
    corner = int(shown[2, 2, 0])
    assert corner == {"grey": 127, "white": 255, "blur": 0}.get(background, corner)
    assert background != "mean" or 90 < corner < 110  # a half of the window


def test_a_notch_in_a_mask_is_shown_but_what_is_far_from_it_is_not() -> None:
    rgb = np.full((300, 300, 3), 200, np.uint8)
    kept = np.zeros((300, 300), dtype=np.bool_)
    kept[100:200, 100:200] = True
    kept[120:160, 160:200] = False  # a tag at the right edge, cut away
    shown = take_away(rgb, kept, "white") == 200
    assert shown[120:160, 160:198].all()
    assert not shown[:90].any()
    assert not shown[:, 210:].any()
    whole = np.zeros((300, 300), dtype=np.bool_)
    whole[:, :40] = True  # up to the edges
    assert (take_away(rgb, whole, "white") == 200)[:, :40].all()


def test_several_things_keep_their_places_in_one_picture() -> None:
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[40:60, 20:40], rgb[40:60, 80:100] = (255, 0, 0), (0, 0, 255)
    look = json.dumps({"reason": "", "look": ["the red", "the blue"], "answer": None})
    one, two = (100, 400, 200, 600), (400, 400, 500, 600)
    found, _ = ask(look, answer(one), answer(two), said("A"), image=rgb, zoom="mask:white")
    shown = found.looks[0].picture
    red, blue = (np.argwhere((shown == colour).all(2)) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red[:, 1].max() < blue[:, 1].min()
    assert abs(red[:, 0].mean() - blue[:, 0].mean()) < 1
    assert [t.label for t in found.targets] == ["thing 0", "thing 0"]


def test_a_look_that_finds_nothing_says_so_and_goes_on() -> None:
    for nothing in ('{"targets": [], "reason": "no cup"}', "gibberish"):
        lines = [nothing] * (3 if nothing == "gibberish" else 1)
        found, mllm = ask(LOOK, *lines, said("red"), looks=1)
        assert (found.choice, found.looks[0].no_target, found.looks[0].box) == (0, True, None)
        assert texts(mllm.asked[-1])[-1].startswith("Observation 1: nothing was found for the cup")
        assert not images_of(mllm.asked[-1][-1])
        assert any("the cup" in warning for warning in found.warnings)


def test_a_thing_that_fills_the_image_is_not_enlarged() -> None:
    big = picture(height=1536, width=1536)
    found, mllm = ask(LOOK, answer((50, 50, 950, 950)), said("A"), image=big, zoom="box")
    assert (found.looks[0].no_target, found.looks[0].size) == (False, None)
    assert "is so large in the image" in texts(mllm.asked[-1])[-1]
    found, _ = ask(LOOK, answer((50, 50, 950, 950)), said("A"), image=big, zoom="mask")
    assert found.looks[0].size == (1536, 1536)  # what is around it is still taken away


def test_at_most_n_looks() -> None:
    found, mllm = ask(LOOK, answer(CUP), LOOK, answer(CUP), LOOK, said("A"), looks=2)
    assert len(found.looks) == 2
    assert "you may look once more" in texts(mllm.asked[2])[-1]
    assert "Your last reply could not be read: there are no more looks" in texts(mllm.asked[5])[-1]
    assert found.choice == 0


@pytest.mark.parametrize("options", [{"zoom": "none"}, {"looks": 0}])
def test_without_looks_there_is_one_question(options) -> None:
    found, mllm = ask(said("(A)"), **options)
    assert (len(mllm.asked), found.looks, found.choice) == (1, (), 0)
    assert "look" not in mllm.schemas[0]["properties"]


def test_boxes_are_looked_at_at_once() -> None:
    pipe = pipeline(said("(B)"))
    found = pipe.answer(IMAGE, "which?", ["red", "blue"], boxes=[(60, 80, 120, 160)], zoom="box")
    (asked,) = pipe.mllm.asked
    assert [one.shape for one in images_of(asked[1])] == [(400, 600, 3), (448, 448, 3)]
    assert (found.choice, len(found.looks)) == (1, 1)


def test_an_answer_that_is_no_choice_is_asked_for_again_and_then_kept() -> None:
    found, mllm = ask(said("green"), said("mauve"), zoom="none", max_reasks=1)
    assert "'green' is none of the choices" in texts(mllm.asked[1])[-1]
    assert (found.answer, found.choice) == ("mauve", None)
    assert found.warnings == ("the answer 'mauve' is none of the choices",)


@pytest.mark.parametrize(("first", "looks"), [(said("green"), 0), ("", 0), (said("green"), 1)])
def test_who_did_not_choose_is_held_to_the_choices(first, looks) -> None:
    found, mllm = ask(first, said("blue"), looks=looks)
    free, held = (schema["properties"]["answer"] for schema in mllm.schemas)
    assert "enum" not in free
    assert held["enum"] == ["(A)", "(B)", "red", "blue", *([None] if looks else [])]
    said_first = "the MLLM first answered 'green', which is none of the choices, and was asked to"
    assert found.choice == 1
    assert [w.startswith(said_first) for w in found.warnings] == ([True] if first else [])


def test_a_free_answer_may_be_any_text() -> None:
    found, _ = ask("It is a red one.", choices=None, zoom="none")
    assert (found.answer, found.choice) == ("It is a red one.", None)


def test_a_thought_about_looking_is_no_answer() -> None:
    found, mllm = ask("I should look closer.", said("no"), choices=None)
    assert (found.answer, len(mllm.asked)) == ("no", 2)


def test_the_budget_is_that_of_the_whole_answer() -> None:
    with pytest.raises(BudgetExceeded):
        ask(LOOK, answer(CUP), said("A"), limits=Limits(calls=2))


def test_without_an_answer_it_fails() -> None:
    with pytest.raises(UnparsableReply, match="none of the MLLM's 3 replies"):
        ask("", "", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoom": "fisheye"}, "zoom is none, box, mask, sparse or mask:mean"),
        ({"zoom": "box:white"}, "zoom is"),
        ({"zoom": "sparse"}, "zoom sparse needs"),
        ({"looks": -1}, "looks is 0 or more"),
        ({"choices": ["one"]}, "choices are 2 to 26"),
        ({"choices": ["one", " "]}, "choices are 2 to 26"),
        ({"choices": ["one", "two", "one"]}, "two choices are the same"),
        ({"zoom": "none", "boxes": [(1, 2, 3, 4)]}, "take zoom box or mask"),
    ],
)
def test_bad_questions_are_refused(options, message) -> None:
    with pytest.raises(BadInput, match=message):
        ask(said("A"), **options)


def test_without_an_mllm_nothing_is_answered() -> None:
    with pytest.raises(BadInput, match="without an MLLM"):
        Pipeline(None, None, Recorder()).answer(IMAGE, "which?")


# ------------------------------------------------------------ the embedded reasoner


def embedded(monkeypatch, *lines, lexicon=None):
    monkeypatch.setattr("rsvp.prompt_config._lexicon", lambda _: lexicon)
    return pipeline(*lines, model="embedded")


def test_the_embedded_reasoner_gets_the_prompts_that_it_is_trained_on(monkeypatch) -> None:
    words = ["what", "colour", "is", "dot", "on", "cup", "there", "none", "which", "red"]
    target = json.dumps({"targets": [{"label": "cup", "box": [10, 20, 20, 40]}], "reason": "r"})
    pipe = embedded(monkeypatch, LOOK, target, said("blue"), lexicon=Lexicon(words))
    question = "What colour is the dot on the cup?"
    found = pipe.answer(IMAGE, question, ["red", "blue", "there is none"], zoom="mask")
    read = Lexicon(words).read(question).text
    sent = [texts(asked)[-1] for asked in pipe.mllm.asked]
    assert sent[0] == prompting.render("compact/look", **question_variables(read))
    assert sent[1] == "Think, then box: cup"
    assert sent[2] == f"Answer: {read} red, blue or there is none"
    assert all(len(asked) == 1 for asked in pipe.mllm.asked)  # no system prompt, one turn
    assert images_of(pipe.mllm.asked[2][0])[0].shape == found.looks[0].picture.shape
    assert found.choice == 1


def test_the_embedded_reasoner_is_not_asked_with_words_that_it_does_not_know(monkeypatch) -> None:
    pipe = embedded(monkeypatch, said("A"), lexicon=Lexicon(["what", "is"], ["carburettor"]))
    found = pipe.answer(IMAGE, "what is the carburettor?")
    assert pipe.mllm.asked == []
    assert (found.answer, found.choice) == ("", None)
    assert found.reasoning.unknown_words == ("carburettor",)
    assert not found.reasoning.understood


def test_an_image_that_it_cannot_read_is_no_answer(monkeypatch) -> None:
    no = '{"targets":[],"understood":false,"reason":"no scene"}'
    found = embedded(monkeypatch, no, lexicon=Lexicon(["cup"])).answer(IMAGE, "cup", ["a", "b"])
    assert (found.answer, found.choice, found.reasoning.understood) == ("", None, False)


# ------------------------------------------------------------ files and the command


def test_the_document_and_the_files(tmp_path) -> None:
    found, _ = ask(LOOK, answer(CUP), said("(B)"), zoom="box")
    found.save(str(tmp_path))
    assert (tmp_path / "looks/000.png").is_file()
    assert (tmp_path / "masks/000.png").is_file()
    document = json.loads((tmp_path / "result.json").read_text())
    look = document["looks"][0]
    assert look.keys() == {"query", "no_target", "targets", "box", "size"}
    assert (look["box"], look["size"]) == ([34, 64, 146, 176], [448, 448])
    assert document["steps"] == [{"text": "too small", "boxes": [[60, 80, 120, 160]]}]
    keys = ("question", "answer", "choice", "choices", "zoom", "background")
    assert [document[key] for key in keys] == [
        "which colour?",
        "blue",
        1,
        ["red", "blue"],
        "box",
        None,
    ]
    assert document["models"]["prompt_sha256"]
    again, _ = ask(said("(A)"), zoom="none")
    again.save(str(tmp_path))
    assert not list(tmp_path.glob("looks/*.png"))


def test_the_command_prints_looks_and_answer(tmp_path, monkeypatch, capsys) -> None:
    from PIL import Image

    from rsvp import registry

    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    script = Script(LOOK, answer(CUP), said("(B)"))
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "one", "test_answer:the_script")
    monkeypatch.setitem(globals(), "the_script", lambda: script)
    words = ["answer", "--image", str(tmp_path / "a.png"), "--question", "which?", "--mllm", "one"]
    words += ["--strategy", "boxes", "--segmenter", "box", "--choice", "red", "--choice", "blue"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "1. closer look at the cup [34,64,146,176]\nanswer: blue\nbecause: it shows" in out
    assert main([*words, "--zoom", "sparse"]) == 2


def test_a_cut_reply_is_asked_for_again() -> None:
    cut = Reply('{"reason": "it is', Usage(1, 1, 1), finish_reason="length")
    found, _ = ask(cut, said("A"), zoom="none")
    assert found.choice == 0


def test_zooms_are_read_from_text() -> None:
    assert Zoom.parse("mask") == Zoom("mask", "mean")
    assert Zoom.parse("mask:blur") == Zoom("mask", "blur")
    asked = make_answer_request(make_request(IMAGE, "q"), zoom="box", blind=True)
    assert asked.blind
