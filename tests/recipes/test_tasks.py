"""Training examples of looking again, reasoning paths and verifying: what they say is true."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
import torch
from scripted import pipeline

from recipes.embedded import looking
from recipes.embedded.examples import CELLS, SIZE, Turn, scene_example, to_pixels
from recipes.embedded.looking import (
    DETAIL_CLASSES,
    LOOKS,
    _answer_turn,
    look_example,
    mask_outside,
    sheet_example,
    view_example,
)
from recipes.embedded.paths import trace_example
from recipes.embedded.task_replies import TASK_FRAGMENTS, WORDS, MaskVerdict, inner_point
from recipes.embedded.tasks import TASKS, task_example, task_prompts
from recipes.embedded.tokenizer import extended_tokenizer, make_tokenizer, unwritten_ids
from recipes.embedded.trainer import ReasonerTrainer
from recipes.embedded.verifying import bad_mask, judge, sample_masks
from rsvp import looks
from rsvp.answer import question_variables
from rsvp.embedded.queries import Query
from rsvp.embedded.questions import qa_scenes
from rsvp.embedded.scenes import scenes
from rsvp.embedded.vocabulary import categories
from rsvp.lexicon import Lexicon
from rsvp.prompting import render
from rsvp.types import Box

NAMES = {c.name for c in categories()}


def reply_of(turn) -> dict:
    return json.loads("".join(text for text, _ in turn.reply))


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(2)
    return {task: [task_example(task, rng) for _ in range(24)] for task in TASKS}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), 60)


def test_examples_are_whole(examples) -> None:
    for task in TASKS:
        for example in examples[task]:
            n = len(example.categories)
            assert example.rgb.shape == (SIZE, SIZE, 3)
            assert example.boxes.shape == (n, 4)
            assert example.cell_objects.shape == (CELLS * CELLS,)
            assert example.cell_objects.max() < n
            assert (example.boxes[:, :2] < example.boxes[:, 2:]).all()
            assert 0 <= example.boxes.min(initial=0) <= example.boxes.max(initial=0) <= 1
            assert example.turns or example.details.any()  # a sheet has no question
            for turn in example.turns:
                spoken = [o for _, o in turn.reply if o is not None]
                assert all(0 <= o < n for o in (*turn.targets, *turn.reasoning, *spoken))


def test_an_object_has_the_cells_of_its_box(examples) -> None:
    for task in TASKS:
        for example in examples[task]:
            for cell in np.flatnonzero(example.cell_objects >= 0):
                x, y = ((v + 0.5) / CELLS for v in (cell % CELLS, cell // CELLS))
                x0, y0, x1, y1 = example.boxes[example.cell_objects[cell]]
                assert x0 - 0.06 < x < x1 + 0.06
                assert y0 - 0.06 < y < y1 + 0.06


def test_looks_name_the_targets_and_answers_are_choices(examples) -> None:
    seen = set()
    for example in examples["qa"]:
        for turn in example.turns:
            reply = reply_of(turn)
            names = [categories()[example.categories[i]].name for i in turn.targets]
            seen.add((turn.prompt.split(":")[0], reply["reason"]))
            if turn.prompt.startswith("Look: "):
                assert reply.keys() == {"reason", "look", "answer"}
                assert reply["look"] in ([], names)
                assert (reply["answer"] is None) == bool(reply["look"])
            else:
                assert reply.keys() == {"reason", "answer"}
                listed = re.split(r"[?] ", turn.prompt)[-1]
                if " or " in listed and "?" in turn.prompt:
                    assert reply["answer"] in re.split(r", | or ", listed)
            assert reply["answer"] in {None, *WORDS, *NAMES}
    assert len(seen) == 7  # three reasons of a look, and four of an answer


@pytest.mark.parametrize("kind", list(LOOKS))
def test_a_look_shows_what_it_asks_about(kind: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(6):
        example = look_example(rng, kind=kind)
        asked = {i for turn in example.turns for i in turn.targets}
        assert asked
        sides = [(example.boxes[i, 2:] - example.boxes[i, :2]).max() for i in asked]
        assert min(sides) > (0.1 if kind in ("pair", "region") else 0.35)


def test_the_pipeline_asks_as_the_examples_do(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = next(qa_scenes(1, 3, size=480))
    (q,) = scene.questions
    lexicon = Lexicon(q.text.replace("?", "").replace("'s", "").split())

    def read(text: str) -> str:
        return lexicon.read(text).text

    rng = np.random.default_rng(0)
    view = Turn(render("compact/look", **question_variables(read(q.text))), [], (), (), False)
    turns = [view, *(_answer_turn(q, scene.objects, rng, read, close=True) for _ in range(9))]
    name = scene.objects[q.targets[0]].category.name
    box = {"targets": [{"label": name, "box": [40, 40, 60, 60]}], "reason": ""}
    replies = [{"reason": "", "look": [name], "answer": None}, box, {"answer": q.answer_text}]
    monkeypatch.setattr("rsvp.prompt_config._lexicon", lambda _: Lexicon([*lexicon.words, name]))
    pipe = pipeline(*map(json.dumps, replies), model="embedded")
    found = pipe.answer(scene.rgb, q.text, q.choices)
    assert found.choice == q.answer
    look, _, answered = (asked[0].parts for asked in pipe.mllm.asked)
    assert {look[-1], answered[-1]} <= {turn.prompt for turn in turns}
    assert (looking.take_away, looking.look_window) == (looks.take_away, looks.look_window)
    window = looks.look_window([Box(192, 192, 288, 288)], Box(0, 0, 480, 480))
    kept = np.zeros((480, 480), bool)
    kept[192:288, 192:288] = True
    side = max(answered[0].shape)
    np.testing.assert_array_equal(
        answered[0], looks.look_picture(scene.rgb, window, side, kept, "mean")
    )


def test_things_are_small_in_a_view() -> None:
    rng = np.random.default_rng(5)
    for _ in range(4):
        boxes = view_example(rng).boxes
        assert (boxes[:, 2:] - boxes[:, :2]).max() < 0.24


def test_outside_the_mask_everything_is_taken_away() -> None:
    rng = np.random.default_rng(6)
    rgb = rng.integers(0, 255, (60, 40, 3), dtype=np.uint8)
    kept = np.zeros((60, 40), bool)
    kept[20:40, 10:30] = True
    for _ in range(12):
        masked = mask_outside(rgb, kept, rng)
        np.testing.assert_array_equal(masked[22:38, 12:28], rgb[22:38, 12:28])
        assert (masked[:10] != rgb[:10]).mean() > 0.9


@pytest.mark.parametrize("strategy", ["boxes", "grid", "points", "marks"])
def test_paths_have_the_places_of_their_objects(strategy: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        example = trace_example(rng, shares={strategy: 1.0})
        for turn in example.turns:
            assert turn.prompt.startswith("Think, then path")
            assert turn.coordinates == (strategy in ("boxes", "points"))
            reply = reply_of(turn)
            assert reply.keys() == {"path", "answer", "answer_objects"}
            objects = [o for step in reply["path"] for o in step["objects"]]
            assert len(objects) == len(turn.reasoning)
            assert bool(reply["answer_objects"]) == (reply["answer"] != "none")
            pairs = zip(
                (*objects, *reply["answer_objects"]), (*turn.reasoning, *turn.targets), strict=True
            )
            for shown, i in pairs:
                assert shown["label"] == categories()[example.categories[i]].name
                box = example.boxes[i] * 100
                if strategy == "boxes":
                    np.testing.assert_allclose(shown["box"], box, atol=0.51)
                elif strategy == "points":
                    x, y = shown["point"]
                    assert box[0] - 1 <= x <= box[2] + 1
                    assert box[1] - 1 <= y <= box[3] + 1
                elif strategy == "marks" and shown["marks"]:
                    assert shown["marks"] == [example.mark_numbers[i]]
                elif strategy == "grid":
                    assert shown["rows"]
                    assert shown["columns"]
            for step in reply["path"]:
                assert step["text"].split(" is ")[0] != ""
                assert any(step["text"].count(o["label"]) for o in step["objects"])


def test_a_point_lies_on_the_mask() -> None:
    ring = np.zeros((40, 40), bool)
    ring[5:35, 5:35] = True
    ring[10:30, 10:30] = False
    x, y = inner_point(ring)
    assert ring[int(y), int(x)]


def test_verdicts_follow_from_masks_and_query() -> None:
    rng = np.random.default_rng(8)
    for scene in scenes(12, 5, size=SIZE):
        a, b = 0, len(scene.objects) - 1
        query = Query("all", "", (a, b), (a, b))
        right, wrong = scene.objects[a].mask, scene.objects[1].mask
        assert judge([right], scene, query) == ([MaskVerdict("accept", a)], [b])
        assert judge([], scene, query) == ([], [a, b])
        only = Query("name", "", (a,), (a,))
        if b > 1:
            verdicts, missing = judge([wrong, right], scene, only)
            assert [v.verdict for v in verdicts] == ["reject", "accept"]
            assert (verdicts[0].object, missing) == (1, [])
        verdicts, missing = judge([right, right], scene, only)
        assert sorted(v.verdict for v in verdicts) == ["accept", "reject"]
        bad, _ = judge([bad_mask(scene, a, rng)], scene, only)
        if bad[0].verdict == "correct":
            assert bad[0].box == scene.objects[a].box


def test_masks_to_verify_are_of_every_sort() -> None:
    rng = np.random.default_rng(9)
    found = {"accept": 0, "reject": 0, "correct": 0, "missing": 0, "none": 0}
    for scene in scenes(60, 6, size=SIZE):
        query = scene.queries[0]
        masks = sample_masks(scene, query, rng)
        verdicts, missing = judge(masks, scene, query)
        for verdict in verdicts:
            found[verdict.verdict] += 1
        found["missing"] += len(missing)
        found["none"] += not masks
    assert min(found.values()) > 2
    assert found["accept"] > found["reject"]


def test_verify_replies_number_the_targets_in_order(examples) -> None:
    for example in examples["verify"]:
        for turn in example.turns:
            reply = reply_of(turn)
            assert reply.keys() == {"verdicts", "missing"}
            assert [v["target"] for v in reply["verdicts"]] == [
                n + 1 for n in range(len(reply["verdicts"]))
            ]
            for verdict in reply["verdicts"]:
                assert ("box" in verdict) == (verdict["verdict"] == "correct")
            shown = [m["box"] for m in reply["missing"]]
            assert all(np.abs(np.array(box) - example.boxes * 100).max(1).min() < 0.51
                       for box in shown)  # fmt: skip


def test_fragments_are_one_token_which_questions_do_not_hold(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    extended = extended_tokenizer(tmp_path, ["red", "carburettor"])
    for made in (tokenizer, extended):
        for text in TASK_FRAGMENTS:
            assert len(made(text, add_special_tokens=False).input_ids) == 1, text
    ids = extended(" a red apple, red carburettor", add_special_tokens=False).input_ids
    tokens = extended.convert_ids_to_tokens(ids)
    assert "red apple" in tokens
    assert "Ġred" in tokens
    assert "Ġcarburettor" in tokens
    assert unwritten_ids(extended) >= {extended.convert_tokens_to_ids("Ġcarburettor")}


def test_replies_are_short_and_decode_to_themselves(examples, tokenizer) -> None:
    for task in TASKS:
        for turn in (turn for e in examples[task] for turn in e.turns):
            pieces = [text for text, _ in turn.reply]
            ids = [i for t in pieces for i in tokenizer(t, add_special_tokens=False).input_ids]
            assert len(ids) < 120
            assert tokenizer.decode(ids) == "".join(pieces)


def test_a_batch_of_all_tasks_has_finite_losses(examples, tokenizer) -> None:
    trainer = ReasonerTrainer(tokenizer, "cpu")
    rng = np.random.default_rng(5)
    batch = [examples[task][0] for task in TASKS]
    batch += [scene_example(s, rng) for s in scenes(1, 6, size=SIZE)]
    batch = [example for example in batch if example.turns]
    seen = trainer.perception_loss(batch, to_pixels(batch, rng))
    said = trainer.turn_losses(batch, seen, random.Random(0), 4)
    assert torch.isfinite(seen.loss + said.language + said.encoder)


def test_prompts_of_all_tasks_train_the_tokenizer() -> None:
    prompts = task_prompts(3, 1)
    assert {p.split(":")[0].split(" in ")[0] for p in prompts} >= {"Think, then path", "Check"}


def test_the_details_of_a_picture_are_in_the_cells_that_show_them() -> None:
    rng, values = np.random.default_rng(4), {number: v for v, number in DETAIL_CLASSES.items()}
    sheets = [sheet_example(rng) for _ in range(6)]
    assert all(not e.turns and e.details.any() for e in sheets)
    for example in [*sheets, *(look_example(rng) for _ in range(12))]:
        for cell in np.flatnonzero(example.details):
            x0, y0, x1, y1 = example.boxes[example.read_objects[cell]] * CELLS
            assert x0 - 1 < cell % CELLS < x1
            assert y0 - 1 < cell // CELLS < y1
    answers = 0
    for example in (look_example(rng, kind="single") for _ in range(12)):
        shown = {values[int(number)] for number in example.details if number}
        for turn in example.turns:
            detail = next((k for k in ("dot", "arrow") if k in turn.prompt), "")
            if detail and reply_of(turn)["reason"] == "It can be read here.":
                assert (detail, reply_of(turn)["answer"]) in shown
                answers += 1
    assert answers > 2


def test_heads_learn_details(tokenizer) -> None:
    trainer = ReasonerTrainer(tokenizer, "cpu")
    batch = [sheet_example(np.random.default_rng(k)) for k in range(2)]
    perception = trainer.perception_loss(batch, to_pixels(batch, None))
    perception.loss.backward()
    assert 0 <= perception.details_read <= 1
    assert trainer.heads.detail.weight.grad.abs().sum() > 0
