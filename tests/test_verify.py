"""Verification: what the MLLM is shown of masks, what follows from its verdicts, what it costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scripted import Recorder, Script, answer, picture, pipeline, texts

from rsvp import prompting
from rsvp.dialogue import Budget, Limits
from rsvp.errors import BadInput, BudgetExceeded, MLLMFailed, RunBudgetExceeded
from rsvp.lexicon import Lexicon
from rsvp.pipeline import Pipeline
from rsvp.types import Reply, Usage
from rsvp.verify import VerifyOptions

IMAGE = picture(height=400, width=600)  # boxes are of 1000: x * 0.6, y * 0.4
ONE, TWO, THREE = (100, 200, 200, 400), (500, 500, 700, 700), (800, 100, 900, 300)
NONE = '{"targets": [], "reason": "nothing is"}'


def verdicts(*said, missing=()):
    """A reply: "accept", "reject", or the box of a correction, target by target."""
    entries = [
        {"target": n, "verdict": v, "reason": f"because {n}"}
        if isinstance(v, str)
        else {"target": n, "verdict": "correct", "reason": f"because {n}", "box": list(v)}
        for n, v in enumerate(said, start=1)
    ]
    lacking = [{"label": "more", "box": list(box)} for box in missing]
    return json.dumps({"verdicts": entries, "missing": lacking})


def verified(*lines, verify=2, **options):
    pipe = pipeline(*lines, verify=verify, **options)
    return pipe.segment(IMAGE, "the cups"), pipe


def boxes(result):
    return [tuple(v / s for v, s in zip(t.box.xyxy, (0.6, 0.4) * 2, strict=True))
            for t in result.targets]  # fmt: skip


def pictures(messages):
    return [part for m in messages for part in m.parts if not isinstance(part, str)]


def test_targets_are_accepted_corrected_and_rejected_and_what_is_missing_is_added() -> None:
    wrong = (0, 0, 50, 50)
    found, pipe = verified(
        answer(ONE, wrong, TWO),
        verdicts("accept", THREE, "reject", missing=[(0, 600, 100, 900)]),
        verdicts("accept", "accept", "accept"),
    )
    assert boxes(found) == [ONE, THREE, (0, 600, 100, 900)]
    assert [t.label for t in found.targets] == ["thing 0", "thing 1", "more"]
    said = [(v.round, v.target, v.verdict, v.reason) for v in found.verdicts]
    assert said == [
        (1, 0, "accept", "because 1"), (1, 1, "correct", "because 2"),
        (1, 2, "reject", "because 3"), (1, 3, "add", "it was missing"),
        (2, 1, "accept", "because 2"), (2, 3, "accept", "because 3"),
    ]  # fmt: skip
    assert (found.rounds, [c.calls for c in found.round_costs]) == (2, [1, 1])
    assert found.usage == Usage(300, 30, 3)
    assert len(pipe.segmenter.encoded) == 1
    assert len(pipe.segmenter.prompted) == 2  # stage 2, and one batch of the round's


def test_a_round_that_changes_nothing_ends_it() -> None:
    found, pipe = verified(answer(ONE), verdicts("accept"), verify=5)
    assert (found.rounds, len(pipe.mllm.asked), found.warnings) == (1, 2, ())


def test_without_targets_the_mllm_is_asked_what_is_missing() -> None:
    found, pipe = verified(NONE, verdicts(missing=[ONE]), verdicts("accept"))
    assert (boxes(found), found.no_target) == ([ONE], False)
    assert "No target was found" in texts(pipe.mllm.asked[1])[-1]
    found, _ = verified(NONE, verdicts())
    assert (found.no_target, found.rounds, found.warnings) == (True, 1, ())


def test_the_image_and_the_instructions_come_first_in_every_round() -> None:
    _, pipe = verified(answer(ONE), verdicts(TWO), verdicts("accept"))
    first, second = pipe.mllm.asked[1:]
    assert first[0] == second[0]  # system
    before, after = first[1].parts, second[1].parts
    assert np.array_equal(before[0], IMAGE)
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert "the cups" in before[1]
    assert not np.array_equal(before[2], after[2])  # the outlines
    assert before[-1].startswith("Above are the outlines. Decide now about target 1,")


def test_small_targets_are_shown_again_enlarged() -> None:
    _, pipe = verified(
        answer((100, 250, 120, 300), (300, 100, 900, 900)), verdicts("accept", "accept")
    )
    _, marked, enlarged = pictures(pipe.mllm.asked[1])
    assert marked.shape == IMAGE.shape
    assert not np.array_equal(marked, IMAGE)
    # The box of 12 x 20 pixels is 80 % of a square window, whole pixels, four times as large.
    assert enlarged.shape == (104, 104, 3)


def test_a_label_alone_is_a_correction() -> None:
    relabel = {"verdicts": [{"target": 1, "verdict": "correct", "label": "saucer"}], "missing": []}
    found, pipe = verified(answer(ONE), json.dumps(relabel), verdicts("accept"))
    assert [(t.label, t.box.xyxy) for t in found.targets] == [("saucer", (60, 80, 120, 160))]
    assert pipe.segmenter.prompted[-1][0].label == "saucer"


# ------------------------------------------------------------ verifiers that misbehave


@pytest.mark.parametrize("nonsense", ["gibberish", "", '{"verdicts": 3}', NONE, "[" * 2000])
def test_nonsense_leaves_the_targets_as_they_are(nonsense) -> None:
    found, pipe = verified(answer(ONE, TWO), nonsense, max_reasks=1)
    assert boxes(found) == [ONE, TWO]
    assert "Your last reply could not be read" in texts(pipe.mllm.asked[2])[-1]
    assert len(pipe.mllm.asked) == 3
    assert found.warnings[0].startswith("verification, round 1: the targets stay as they are")


def test_one_who_rejects_all_is_believed_unless_the_target_exists() -> None:
    said = (answer(ONE, TWO), verdicts("reject", "reject"))
    found, _ = verified(*said)
    assert (found.no_target, found.warnings) == (
        True, ("verification, round 1: all targets were rejected",)
    )  # fmt: skip
    found, _ = verified(*said, target_exists=True)
    assert len(found.targets) == 1
    assert "stays, as the target exists" in found.warnings[0]


@pytest.mark.parametrize(
    ("better", "stands", "calls"),
    [((2, 1), ONE, 2), ((2, 2), TWO, 2), ((1,), TWO, 1), ((0,), TWO, 1)],
)
def test_a_loop_between_two_corrections_is_decided_in_both_orders(better, stands, calls) -> None:
    compared = [json.dumps({"reason": "r", "better": n}) for n in better]
    lines = (answer(ONE), verdicts(TWO), verdicts(ONE), *compared, verdicts("accept"))
    found, pipe = verified(*lines, verify=9)
    assert boxes(found) == [stands]
    assert len(pipe.mllm.asked) == 3 + calls
    assert found.rounds == 2
    assert "goes back to what stood before" in found.warnings[0]
    first = pictures(pipe.mllm.asked[3])
    assert len(first) == 3
    if calls == 2:  # the candidates are swapped
        assert not np.array_equal(first[1], pictures(pipe.mllm.asked[4])[1])


def test_targets_that_do_not_exist_are_left_out_with_a_warning() -> None:
    strange = json.dumps({
        "verdicts": [{"target": 7, "verdict": "reject"}, {"target": 1, "verdict": "accept"}],
        "missing": ["a ghost"],
    })  # fmt: skip
    found, _ = verified(answer(ONE, TWO), strange)
    assert boxes(found) == [ONE, TWO]
    assert [w.removeprefix("verification, round 1: ") for w in found.warnings] == [
        "there is no target 7 to judge",
        "no place was given for what is missing: 'a ghost'",
        "no verdict on target 1: it stays as it is",
    ]


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (verdicts("accept", missing=[(110, 210, 200, 400)]), "is a target already"),
        (verdicts("reject", missing=[ONE]), "was rejected"),
    ],
)
def test_what_is_known_is_not_missing(said, warning) -> None:
    found, _ = verified(answer(ONE), said)
    assert warning in "".join(found.warnings)
    assert len(found.targets) == (warning == "is a target already")


def test_a_target_that_is_corrected_to_another_one_is_dropped() -> None:
    found, _ = verified(answer(ONE, TWO), verdicts("accept", ONE))
    assert boxes(found) == [ONE]
    assert [(v.target, v.verdict) for v in found.verdicts][-1] == (1, "reject")


def test_a_correction_outside_the_image_is_asked_for_again() -> None:
    found, pipe = verified(answer(ONE), verdicts((100, 100, 9000, 9000)), verdicts("accept"))
    assert boxes(found) == [ONE]
    assert "out of range" in texts(pipe.mllm.asked[2])[-1]


def test_a_server_that_fails_keeps_the_result_so_far() -> None:
    found, _ = verified(answer(ONE), MLLMFailed("no connection"))
    assert boxes(found) == [ONE]
    assert "the best result so far stands: no connection" in found.warnings[0]


# ------------------------------------------------------------ budgets


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_budget_of_calls_holds_to_the_unit(calls: int) -> None:
    lines = (answer(ONE), verdicts(TWO), verdicts(THREE), verdicts("accept"))
    found, pipe = verified(*lines, verify=9, limits=Limits(calls=calls))
    assert len(pipe.mllm.asked) == calls
    assert boxes(found) == [[ONE, TWO, THREE, THREE][calls - 1]]
    assert sum(c.calls for c in found.round_costs) == calls - 1
    assert any("is spent" in w for w in found.warnings) == (calls < 4)


def test_a_budget_of_seconds_holds_to_one_call() -> None:
    slow = [Reply(text, Usage(1, 1, 1), seconds=2.0) for text in (answer(ONE), verdicts(TWO))]
    found, pipe = verified(*slow, verify=9, limits=Limits(seconds=3))
    assert (len(pipe.mllm.asked), boxes(found)) == (2, [TWO])
    assert found.round_costs[0].seconds == 2.0


def test_a_spent_budget_without_a_result_is_an_error() -> None:
    with pytest.raises(BudgetExceeded):
        verified("gibberish", limits=Limits(calls=1))


def test_dollars_are_counted_by_the_users_prices() -> None:
    limits = Limits.parse("usd=0.00025,price_in=1,price_out=10")
    found, pipe = verified(answer(ONE), verdicts(TWO), verdicts("accept"), limits=limits)
    # A reply reads 100 tokens and writes 10: 0.0002 dollars.
    assert len(pipe.mllm.asked) == 2
    assert found.round_costs[0].usd == pytest.approx(0.0002)
    assert "(usd=0.00025) is spent" in found.warnings[0]
    for text in ("usd=1", "usd=1,price_in=1", "usd=nan,price_in=1,price_out=1", "price_in=-1"):
        with pytest.raises(BadInput, match="budget"):
            Limits.parse(text)


def test_the_budget_of_a_run_ends_all_its_requests() -> None:
    pipe = pipeline(answer(ONE), run_limits=Limits(calls=3))
    for _ in range(3):
        pipe.segment(IMAGE, "the cups")
    with pytest.raises(RunBudgetExceeded, match=r"budget of the run \(calls=3\) is spent"):
        pipe.segment(IMAGE, "the cups")


def test_calls_under_way_count() -> None:
    run = Budget(Limits(calls=5))
    first, second = Budget(run=run), Budget(Limits(calls=2), run=run)
    assert (first.reserve(2), second.reserve(9), first.reserve(9)) == (2, 2, 1)
    with pytest.raises(BudgetExceeded):
        first.reserve()


# ------------------------------------------------------------ clear cases


class Reader(Recorder):
    """A segmenter that reads labels."""

    def masks(self, encoding, proposals):
        from dataclasses import replace

        found = super().masks(encoding, proposals)
        return replace(found, presence=np.full(len(proposals), 0.99, np.float32))


def test_clear_cases_need_no_call() -> None:
    lines = (answer(ONE), verdicts("reject"))
    found, pipe = verified(*lines, segmenter=Reader(score=0.95))
    assert (len(pipe.mllm.asked), found.round_costs[0].calls) == (1, 0)
    assert "clear without asking" in found.verdicts[0].reason
    for segmenter, options in (
        (Reader(score=0.95), VerifyOptions(2, clear=None)),
        (Reader(score=0.5), VerifyOptions(2)),
        (Recorder(score=0.95), VerifyOptions(2)),
    ):
        found, pipe = verified(*lines, segmenter=segmenter, verify=options)
        assert (len(pipe.mllm.asked), found.no_target) == (2, True)


class Sees(Recorder):
    """A segmenter that reads labels; `seen` is the presence at some left edges, pixels."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def masks(self, encoding, proposals):
        from dataclasses import replace

        presence = [self.seen.get(round(p.box.x0), 0.9) for p in proposals]
        return replace(super().masks(encoding, proposals), presence=np.array(presence, np.float32))


@pytest.mark.parametrize(
    ("presence", "stands", "warning"),
    [(0.3, ONE, "less certain to the segmenter"), (0.95, TWO, None), (None, TWO, None)],
)
def test_a_correction_is_weighed_by_a_segmenter_that_reads_labels(presence, stands, warning):
    segmenter = Recorder() if presence is None else Sees({300: presence})  # TWO's left edge
    lines = (answer(ONE), verdicts(TWO), verdicts("accept"))
    found, _ = verified(*lines, segmenter=segmenter)
    assert boxes(found) == [stands]
    assert (warning or "") in " ".join(found.warnings)


# ------------------------------------------------------------ the embedded reasoner


def embedded(monkeypatch, *lines, lexicon=None, **options):
    monkeypatch.setattr("rsvp.prompt_config._lexicon", lambda _: lexicon)
    return pipeline(*lines, model="embedded", verify=2, **options)


def test_the_embedded_reasoner_gets_the_prompt_and_picture_that_it_is_trained_on(
    monkeypatch,
) -> None:
    from recipes.embedded.model import SIZE
    from recipes.embedded.verifying import verify_example

    shown = json.dumps({"targets": [{"label": "cup", "box": [10, 20, 40, 60]}], "reason": "r"})
    said = '{"verdicts":[{"target":1,"verdict":"accept"}],"missing":[]}'
    pipe = embedded(monkeypatch, shown, said, lexicon=Lexicon(["cup", "the"]))
    image = picture(height=SIZE, width=SIZE)
    pipe.segment(image, "the cup")
    (message,) = pipe.mllm.asked[1]
    assert message.parts[1] == f"Check: {Lexicon(['cup', 'the']).read('the cup').text}"
    # The recipe draws with the same function and renders the same prompt.
    from rsvp.drawing import draw_masks

    mask = np.zeros((SIZE, SIZE), bool)
    mask[SIZE // 5 : SIZE * 3 // 5, SIZE // 10 : SIZE * 2 // 5] = True
    assert np.array_equal(message.parts[0], draw_masks(image, [mask])[0])
    turn = verify_example(np.random.default_rng(1)).turns[0]
    assert turn.prompt.startswith(prompting.render("compact/verify", query=""))


def test_more_targets_than_a_call_judges_are_asked_about_in_turn() -> None:
    many = [(10 + 90 * (i % 5), 100 + 300 * (i // 5), 60 + 90 * (i % 5), 300 + 300 * (i // 5))
            for i in range(7)]  # fmt: skip
    found, pipe = verified(
        answer(*many), verdicts("accept", "accept", "accept"),
        verdicts("accept", "accept", "reject"), verdicts("accept"),
        verify=VerifyOptions(1, batch=3),
    )  # fmt: skip
    assert (len(pipe.mllm.asked), len(found.targets)) == (4, 6)
    assert found.round_costs[0].calls == 3


# ------------------------------------------------------------ answer, trace, files


def test_what_a_question_looks_at_is_verified_too() -> None:
    look = json.dumps({"reason": "small", "look": ["the cup"], "answer": None})
    pipe = pipeline(
        look, answer(ONE), verdicts(TWO), verdicts("accept"),
        json.dumps({"reason": "r", "answer": "red"}), verify=2,
    )  # fmt: skip
    found = pipe.answer(IMAGE, "which colour?")
    assert (boxes(found), found.rounds, found.answer) == ([TWO], 2, "red")
    assert found.to_dict()["verdicts"][0]["verdict"] == "correct"


def test_of_a_path_the_answer_is_verified() -> None:
    named = [{"id": n, "label": f"thing {n}", "bbox_2d": list(b)} for n, b in ((1, ONE), (2, TWO))]
    path = {"path": [{"text": "thing 1", "objects": named[:1]}], "answer": "thing 2",
            "answer_objects": named[1:]}  # fmt: skip
    pipe = pipeline(json.dumps(path), verdicts(THREE, missing=[(0, 0, 50, 50)]), verdicts("accept"),
                    verify=2)  # fmt: skip
    found = pipe.trace(IMAGE, "which?")
    assert boxes(found) == [ONE, THREE]
    pipe = pipeline(json.dumps(path), verdicts("reject"), verify=2)
    found = pipe.trace(IMAGE, "which?")
    assert boxes(found) == [ONE]
    assert found.answer_objects[0].target is None


def test_stages_apart_give_the_same_and_share_the_budget() -> None:
    lines = (answer(ONE), verdicts(TWO), verdicts("accept"))
    whole, _ = verified(*lines)
    pipe = pipeline(*lines, verify=2, limits=Limits(calls=2))
    output = pipe.reason(IMAGE, "the cups")
    found = pipe.segment_proposals(IMAGE, output)
    assert (boxes(found), found.usage.calls) == ([TWO], 2)
    assert found.models.prompt_sha256 == whole.models.prompt_sha256


def test_the_document_and_the_command(tmp_path, monkeypatch, capsys) -> None:
    from PIL import Image

    from rsvp import registry
    from rsvp.cli.main import main

    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    script = Script(answer(ONE), verdicts(TWO), verdicts("accept"))
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "one", "test_verify:the_script")
    monkeypatch.setitem(globals(), "the_script", lambda: script)
    words = ["segment", "--image", str(tmp_path / "a.png"), "--query", "cup", "--verify", "2"]
    parts = ["--mllm", "one", "--strategy", "boxes", "--segmenter", "box"]
    assert main([*words, *parts, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "round 1: thing 0 corrected: because 1" in out
    document = json.loads((tmp_path / "out/result.json").read_text())
    assert (document["rounds"], len(document["round_costs"])) == (2, 2)
    assert document["verdicts"][0] == {
        "round": 1, "target": 0, "verdict": "correct", "reason": "because 1", "label": "thing 0"
    }  # fmt: skip
    assert main([*words, "--segmenter", "box", "--box", "1,2,30,40"]) == 2
    assert "leave out --verify" in capsys.readouterr().err


def test_bad_options_are_refused() -> None:
    with pytest.raises(BadInput, match="number of rounds"):
        VerifyOptions(-1)
    with pytest.raises(BadInput, match="samples is 1 or more"):
        Pipeline(None, None, Recorder(), samples=0)
