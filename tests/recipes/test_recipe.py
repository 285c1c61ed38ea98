"""The recipe's losses by hand, and two short trainings from nothing to a folder that loads."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recipes.embedded import comparison, instances, losses, reasoner, segmenter
from recipes.embedded.__main__ import main
from recipes.embedded.examples import cell_owners, pixels, to_example
from recipes.embedded.loop import Loop, Pace, schedule, warm
from recipes.embedded.model import CELLS, IMAGE_TOKENS, SIZE, load_model
from recipes.embedded.tokenizer import Words, make_tokenizer
from recipes.embedded.trainee import Trainee
from rsvp.embedded.scenes import scenes
from rsvp.errors import BadInput
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.training.monitor import StopCondition
from rsvp.types import Box, Image, Message, Proposal


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps of the reasoner, interrupted by --steps after the second and taken up again."""
    out = tmp_path_factory.mktemp("reasoner")
    make_tokenizer(out / "tokenizer", 60)
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


def load_file_of(folder):
    """All tensors of an exported model."""
    return {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }


def test_a_trained_reasoner_is_gone_on_from(run, tmp_path, capsys) -> None:
    args = ["--batch", "2", "--asks", "1", "--steps", "2", "--settle", "1", "--lr", "0.01"]
    args += ["--shares", "boxes=1,marks=3", "--threads", "1", "--device", "cpu"]
    assert main(["reasoner", "--out", str(tmp_path), "--from", str(run), *args]) == 0
    before, after = (load_file_of(folder / "model") for folder in (run, tmp_path))
    table = "model.language_model.shared.weight"
    assert torch.equal(before[table], after[table])
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > 0.7 * len(before)
    assert main(["reasoner", "--out", str(tmp_path / "n"), "--from", str(tmp_path / "n")]) == 2
    assert "no trained reasoner" in capsys.readouterr().err


def test_only_the_helpers_learn_while_they_settle(run, tmp_path) -> None:
    trainee = Trainee(make_tokenizer(tmp_path, start=run / "model"), "cpu", run / "model")
    batch = [to_example(s, np.random.default_rng(5)) for s in scenes(2, 6, size=SIZE)]
    seen = trainee.perceive(batch, pixels(batch, None), teach=False)
    seen.loss.backward()
    assert all(p.grad is None for p in trainee.model.parameters())
    assert trainee.helpers.tags.weight.grad is not None
    assert trainee.helpers.tagged.weight.grad is not None


def test_new_tokens_get_rows_of_their_own(run) -> None:
    old = load_model(run / "model", len(make_tokenizer(run / "tokenizer")))
    table = old.get_input_embeddings().weight
    model = load_model(run / "model", len(table) + 3)
    grown = model.get_input_embeddings().weight
    assert torch.equal(grown[:-3], table)
    assert torch.cdist(grown[-3:], grown[-3:]).fill_diagonal_(9).min() > table.std()
    assert model.lm_head.weight is grown
    assert not grown.requires_grad
    with pytest.raises(BadInput, match="no reasoner to go on from"):
        load_model(run / "nowhere", 9)


def test_the_exported_reasoner_speaks_through_the_ordinary_backend(run) -> None:
    mllm = TransformersMLLM(str(run / "model"), max_new_tokens=8)
    rgb = next(iter(scenes(1, 5, size=100))).rgb
    reply = mllm.reply([Message("user", (rgb, "Think, then box: the dog"))])
    assert 1 <= reply.usage.completion_tokens <= 8
    assert reply.usage.prompt_tokens > IMAGE_TOKENS
    assert reply.confidence is not None
    assert 0 < reply.confidence <= 1


def test_the_segmenter_trains_and_the_export_loads(tmp_path) -> None:
    plan = {"batch": 2, "log_every": 1, "eval_every": 100, "eval_scenes": 2}
    segmenter.train(tmp_path, segmenter.Plan(steps=1, **plan), None)
    segmenter.train(tmp_path, segmenter.Plan(steps=2, **plan), None)
    loaded = Sam2Segmenter(str(tmp_path / "model"))
    assert loaded.crop_margin == segmenter.MARGIN
    image = Image(next(iter(scenes(1, 5, size=100))).rgb, sha256="")
    (encoding,) = loaded.encode([image])
    masks = loaded.masks(encoding, [Proposal("", Box(10, 10, 60, 70))])
    assert masks.masks.shape == (1, 100, 100)


def test_replies_are_tokens_of_their_pieces(run) -> None:
    tokenizer = make_tokenizer(run / "tokenizer")
    words = Words(tokenizer, "cpu")
    rng = np.random.default_rng(0)
    for scene in scenes(6, 8, size=100, count=3):
        for ask in to_example(scene, rng).asks:
            told = words.replies([ask])
            text = "".join(piece for piece, _ in ask.told)
            assert tokenizer.decode(told.ids[0, :-1]) == text
            spoken_of = set(told.about[0].tolist()) - {-1}
            assert spoken_of == set(ask.targets) | {i for _, i in ask.told if i is not None}


def test_every_object_has_a_cell() -> None:
    for scene in scenes(20, 77, size=240):
        owners = cell_owners(scene.objects, 240)
        assert owners.shape == (CELLS**2,)
        missing = set(range(len(scene.objects))) - set(owners.tolist())
        # Two small objects may share one cell; no more than that is lost.
        assert len(missing) <= 1


def test_a_perfect_box_costs_nothing() -> None:
    cell = torch.tensor([0, 55])
    center = torch.tensor([[0.05, 0.05], [0.55, 0.55]]).repeat(1, 2)
    true = torch.tensor([[0.0, 0.0, 0.2, 0.1], [0.3, 0.4, 0.9, 0.8]])
    exact = (true - center) / 0.2
    assert losses.box_loss(exact, true, cell).item() == pytest.approx(0, abs=1e-4)
    assert losses.box_loss(exact + 0.5, true, cell).item() > 0.3


def test_a_near_coordinate_is_nearly_right() -> None:
    numbers = torch.arange(202).view(2, 101)
    labels = torch.tensor([40])

    def loss(guess: int, *, coordinates: bool) -> float:
        logs = torch.full((1, 210), -1.0)
        logs[0, guess] = 5.0
        of = torch.tensor([coordinates])
        return losses.token_loss(logs.log_softmax(-1), labels, of, numbers).item()

    assert loss(40, coordinates=True) < loss(41, coordinates=True) < loss(43, coordinates=True)
    assert loss(41, coordinates=False) == pytest.approx(loss(43, coordinates=False))
    assert loss(141, coordinates=True) == pytest.approx(loss(43, coordinates=True))  # a bracket


def test_numbers_are_read_where_they_are_drawn() -> None:
    true = torch.tensor([[0, 3, 0, 7]])
    logits = torch.zeros(1, 4, 25)
    logits.scatter_(2, true[..., None], 20.0)
    loss, right = losses.tag_loss(logits, true)
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert right == 1
    loss, right = losses.tag_loss(logits.roll(1, 1), true)
    assert loss.item() > 10
    assert right == 0
    assert losses.tag_loss(logits, torch.zeros_like(true))[1] == 0  # nothing to read


@pytest.mark.parametrize("text", ["marks", "marks=x", "marks=-1", "marks=0", "points=1", ""])
def test_shares_that_mean_nothing_are_refused(text: str, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["reasoner", "--out", str(tmp_path), "--shares", text])
    assert "STRATEGY=SHARE" in capsys.readouterr().err


def test_looking_at_the_right_cells_costs_nothing() -> None:
    owners = torch.tensor([[-1, 0, 0, 1]])
    about = torch.tensor([[0, -1, 1]])
    right = torch.zeros(1, 2, 3, 4)
    right[:, :, 0, 1:3] = 0.5
    right[:, :, 2, 3] = 1.0
    nowhere, words = torch.full_like(owners, -1), torch.zeros_like(about, dtype=torch.bool)
    match = losses.cells_meant(about, words, owners, nowhere)
    assert losses.look_loss([right], match).item() == pytest.approx(0, abs=1e-3)
    wrong = right.roll(1, -1)
    assert losses.look_loss([wrong], match).item() > 0.3
    assert losses.look_loss([right], torch.zeros_like(match)).item() == 0


def test_a_number_is_looked_for_at_the_tag_and_a_name_at_the_object() -> None:
    owners, tags = torch.tensor([[0, 0, 1, -1]]), torch.tensor([[-1, 1, -1, 0]])
    about = torch.tensor([[0, 0, -1, 1]])
    number = torch.tensor([[False, True, True, True]])
    match = losses.cells_meant(about, number, owners, tags)[0].int().tolist()
    assert match == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    untagged = losses.cells_meant(about, number, owners, torch.full_like(tags, -1))
    assert untagged[0].int().tolist()[1] == [1, 1, 0, 0]


def test_mask_loss_tells_right_from_wrong() -> None:
    target = torch.zeros(1, instances.MASK, instances.MASK)
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
    for instance in instances.scene_instances(12, 4):
        for point in (False, True):
            crop, target, prompt = instances.sample(instance, rng, point=point)
            assert crop.shape == (3, instances.SIZE, instances.SIZE)
            assert target.max() > 0.5
            assert 0 <= prompt.min() <= prompt.max() <= instances.SIZE
            if point:  # the point lies on the object
                x, y = (prompt / instances.SIZE * instances.MASK).long().clamp(max=63).tolist()
                assert target[y, x] > 0


def test_the_schedule_warms_up_holds_and_falls() -> None:
    assert warm(0) == pytest.approx(1 / 200)
    assert schedule(500, 1000) == 1
    assert schedule(875, 1000) == pytest.approx(0.5)
    assert schedule(1000, 1000) == 0.02
    stop = StopCondition(steps=5, minutes=1e9)
    assert [stop.reached(s) for s in (4, 5)] == [False, True]
    assert StopCondition(steps=5, minutes=0).reached(0)


@pytest.fixture
def small(tmp_path):
    """A loop over one matrix, that has learned for two steps and saved."""
    loop = Loop(tmp_path, PACE, {"model": torch.nn.Linear(3, 2)}, clip=1.0, counts={"seen": 0})
    for _ in loop.steps():
        loop.counts["seen"] += 5
        loop.learn(loop.parts["model"](torch.ones(3)).sum(), 1.0, loss=loop.step)
    return loop


PACE = Pace(steps=2, batch=5, lr=1e-3, muon_lr=1e-3)


def test_a_loop_goes_on_where_it_stopped(small, tmp_path) -> None:
    assert small.window()[0] == {"loss": 0.5}
    model = torch.nn.Linear(3, 2)
    again = Loop(tmp_path, PACE, {"model": model}, clip=1.0, counts={"seen": 0})
    assert again.step == 2
    assert again.counts == {"seen": 10}
    assert torch.equal(model.weight, small.parts["model"].weight)
    assert list(again.steps()) == []


def test_a_checkpoint_that_does_not_fit_is_refused(small, tmp_path) -> None:
    whole = small.checkpoint.read_bytes()
    other = {
        "another shape": ({"model": torch.nn.Linear(4, 2)}, {}, whole),
        "a missing weight": ({"model": torch.nn.Linear(3, 2, bias=False)}, {}, whole),
        "another part": ({"helpers": torch.nn.Linear(3, 2)}, {}, whole),
        "another count": ({"model": torch.nn.Linear(3, 2)}, {"scenes": 0}, whole),
        "other optimizers": ({"model": torch.nn.Linear(3, 2), "more": torch.nn.Linear(3, 2)}, {},
                             whole),
        "cut off": ({"model": torch.nn.Linear(3, 2)}, {}, whole[:900]),
        "empty": ({"model": torch.nn.Linear(3, 2)}, {}, b""),
    }  # fmt: skip
    for why, (parts, counts, content) in other.items():
        small.checkpoint.write_bytes(content)
        with pytest.raises(BadInput, match=r"checkpoint\.pt .*(fit|whole)") as refused:
            Loop(tmp_path, PACE, parts, clip=1.0, counts=counts)
        assert "\n" not in str(refused.value), why


def test_the_comparison_trains_both_architectures(run, tmp_path, capsys) -> None:
    for name in comparison.ARCHITECTURES:
        shutil.copytree(run / "tokenizer", tmp_path / name / "tokenizer")
    plan = reasoner.Plan(steps=1, perceive=0, batch=2, asks=2, log_every=1)
    comparison.run(tmp_path, plan, "cpu")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == list(comparison.ARCHITECTURES)
    for line in table[2:]:
        figures = dict(zip(comparison.COLUMNS, map(float, line.split("|")[2:-1]), strict=True))
        assert figures["scenes"] == 2
        assert 3 < figures["language"] < 30


def test_a_comparison_without_figures_says_so(tmp_path) -> None:
    with pytest.raises(BadInput, match="--minutes"):
        comparison.last_figures(tmp_path / "qwen3_vl" / "log.csv")


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
