"""The recipe's losses by hand, and two short trainings from nothing to a folder that loads."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from rsvp.embedded.recipe import reasoner, segmenter
from rsvp.embedded.recipe.__main__ import main
from rsvp.embedded.recipe.loop import Clock, schedule, warm
from rsvp.embedded.scenes import scenes
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.types import Box, Image, Message, Proposal


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps of the reasoner, interrupted by --steps after the second and taken up again."""
    out = tmp_path_factory.mktemp("reasoner")
    reasoner.make_tokenizer(out / "tokenizer", 60)
    plan = {"perceive": 1, "batch": 2, "asks": 1, "log_every": 1}
    reasoner.train(out, reasoner.Plan(steps=2, **plan))
    reasoner.train(out, reasoner.Plan(steps=3, **plan))
    return out


def test_the_reasoner_trains_and_resumes(run) -> None:
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["scenes"] for row in rows] == ["2", "4", "6"]
    assert float(rows[0]["language"]) == 0  # perception comes first
    assert float(rows[2]["language"]) > 0


def test_the_exported_reasoner_speaks_through_the_ordinary_backend(run) -> None:
    mllm = TransformersMLLM(str(run / "model"), max_new_tokens=8)
    rgb = next(iter(scenes(1, 5, size=100))).rgb
    reply = mllm.reply([Message("user", (rgb, "Think, then box: the dog"))])
    assert 1 <= reply.usage.completion_tokens <= 8
    assert reply.usage.prompt_tokens > reasoner.IMAGE_TOKENS
    assert reply.confidence is not None
    assert 0 < reply.confidence <= 1


def test_the_segmenter_trains_and_the_export_loads(tmp_path) -> None:
    plan = {"batch": 2, "log_every": 1, "eval_every": 100}
    segmenter.train(tmp_path, segmenter.Plan(steps=1, **plan), None)
    segmenter.train(tmp_path, segmenter.Plan(steps=2, **plan), None)
    loaded = Sam2Segmenter(str(tmp_path / "model"))
    assert loaded.crop_margin == segmenter.MARGIN
    image = Image(next(iter(scenes(1, 5, size=100))).rgb, sha256="")
    (encoding,) = loaded.encode([image])
    masks = loaded.masks(encoding, [Proposal("", Box(10, 10, 60, 70))])
    assert masks.masks.shape == (1, 100, 100)


def test_replies_are_tokens_of_their_pieces(run) -> None:
    tokenizer = reasoner.make_tokenizer(run / "tokenizer")
    trainee = reasoner.Trainee(tokenizer, "cpu")
    rng = np.random.default_rng(0)
    for scene in scenes(6, 8, size=100, count=3):
        for ask in reasoner.to_example(scene, rng).asks:
            told = trainee.told([ask])
            text = "".join(piece for piece, _ in ask.told)
            assert tokenizer.decode(told.ids[0, :-1]) == text
            spoken_of = set(told.about[0].tolist()) - {-1}
            assert spoken_of == set(ask.targets) | {i for _, i in ask.told if i is not None}


def test_every_object_has_a_cell() -> None:
    for scene in scenes(20, 77, size=240):
        owners = reasoner.cell_owners(scene.objects, 240)
        assert owners.shape == (reasoner.CELLS**2,)
        missing = set(range(len(scene.objects))) - set(owners.tolist())
        # Two small objects may share one cell; no more than that is lost.
        assert len(missing) <= 1


def test_a_perfect_box_costs_nothing() -> None:
    cell = torch.tensor([0, 55])
    center = torch.tensor([[0.05, 0.05], [0.55, 0.55]]).repeat(1, 2)
    true = torch.tensor([[0.0, 0.0, 0.2, 0.1], [0.3, 0.4, 0.9, 0.8]])
    exact = (true - center) / 0.2
    assert reasoner.box_loss(exact, true, cell).item() == pytest.approx(0, abs=1e-4)
    assert reasoner.box_loss(exact + 0.5, true, cell).item() > 0.3


def test_looking_at_the_right_cells_costs_nothing() -> None:
    owners = torch.tensor([[-1, 0, 0, 1]])
    about = torch.tensor([[0, -1, 1]])
    right = torch.zeros(1, 2, 3, 4)
    right[:, :, 0, 1:3] = 0.5
    right[:, :, 2, 3] = 1.0
    assert reasoner.look_loss([right], about, owners).item() == pytest.approx(0, abs=1e-3)
    wrong = right.roll(1, -1)
    assert reasoner.look_loss([wrong], about, owners).item() > 0.3


def test_mask_loss_tells_right_from_wrong() -> None:
    target = torch.zeros(1, segmenter.MASK, segmenter.MASK)
    target[:, 16:48, 16:48] = 1
    logits = torch.where(target[:, None] > 0, 20.0, -20.0)
    loss, iou = segmenter.mask_loss(logits, target)
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert iou.item() == 1
    loss, iou = segmenter.mask_loss(-logits, target)
    assert loss.item() > 10
    assert iou.item() == 0


def test_samples_hold_the_whole_prompt() -> None:
    rng = np.random.default_rng(3)
    for thing in segmenter.scene_things(12, 4):
        for point in (False, True):
            crop, target, prompt = segmenter.sample(thing, rng, point=point)
            assert crop.shape == (3, segmenter.SIZE, segmenter.SIZE)
            assert target.max() > 0.5
            assert 0 <= prompt.min() <= prompt.max() <= segmenter.SIZE
            if point:  # the point lies on the object
                x, y = (prompt / segmenter.SIZE * segmenter.MASK).long().clamp(max=63).tolist()
                assert target[y, x] > 0


def test_the_schedule_warms_up_holds_and_falls() -> None:
    assert warm(0) == pytest.approx(1 / 200)
    assert schedule(500, 1000) == 1
    assert schedule(875, 1000) == pytest.approx(0.5)
    assert schedule(1000, 1000) == 0.02
    clock = Clock(steps=5, minutes=1e9)
    assert [clock.over(s) for s in (4, 5)] == [False, True]
    assert Clock(steps=5, minutes=0).over(0)


def test_the_command_refuses_in_one_line(tmp_path, capsys) -> None:
    assert main(["install", "--reasoner", str(tmp_path)]) == 2
    assert main(["curve", str(tmp_path / "none.csv")]) == 2
    photos = ["--photos", str(tmp_path)]
    assert main(["segmenter", "--out", str(tmp_path / "o"), *photos]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 3


def test_a_curve_is_a_table(tmp_path, capsys) -> None:
    log = tmp_path / "log.csv"
    log.write_text("time,step,loss\n" + "".join(f"{60 * i},{i},{1 / i:.3f}\n" for i in range(1, 9)))
    assert main(["curve", str(log), "--rows", "4"]) == 0
    table = capsys.readouterr().out.strip().splitlines()
    assert table[0] == "| minutes | step | loss |"
    assert table[-1] == "| 7 | 8 | 0.125 |"
    assert len(table) == 2 + 4
