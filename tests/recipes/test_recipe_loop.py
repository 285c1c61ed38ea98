"""The loop of the recipes: schedule, log, checkpoint."""

from __future__ import annotations

import pytest
import torch

from recipes.embedded.loop import Loop, LoopConfig, read_log, schedule, warmup
from rsvp.errors import BadInput

CONFIG = LoopConfig(steps=2, batch=5, lr=1e-3, muon_lr=1e-3)


def loop_of(folder, parts, counts):
    return Loop(folder, CONFIG, parts, clip=1.0, unit="samples", counts=counts)


@pytest.fixture
def trained(tmp_path):
    """A loop over one matrix that has trained for two steps and saved."""
    loop = loop_of(tmp_path, {"model": torch.nn.Linear(3, 2)}, {"seen": 0})
    for _ in loop.steps():
        loop.counts["seen"] += 5
        loop.step_down(loop.parts["model"](torch.ones(3)).sum(), 1.0, loss=loop.step)
    return loop


def test_the_schedule_warms_up_holds_and_falls() -> None:
    assert warmup(0) == pytest.approx(1 / 200)
    assert schedule(500, 1000) == 1
    assert schedule(875, 1000) == pytest.approx(0.5)
    assert schedule(1000, 1000) == 0.02


def test_a_row_of_the_log_holds_means_since_the_last_one(trained, capsys) -> None:
    trained.report(rate=0.25)
    (row,) = read_log(trained.log)
    assert list(row) == ["time", "step", "seen", "loss", "rate", "samples_per_second"]
    assert [row[name] for name in ("step", "seen", "loss", "rate")] == ["2", "10", "0.5", "0.25"]
    assert '"loss": 0.5' in capsys.readouterr().out


def test_a_loop_resumes_where_it_stopped(trained, tmp_path) -> None:
    model = torch.nn.Linear(3, 2)
    again = loop_of(tmp_path, {"model": model}, {"seen": 0})
    assert again.step == 2
    assert again.counts == {"seen": 10}
    assert torch.equal(model.weight, trained.parts["model"].weight)
    assert list(again.steps()) == []


LINEAR = {"model": (3, 2)}


@pytest.mark.parametrize(
    ("parts", "counts", "size"),
    [
        pytest.param({"model": (4, 2)}, {}, None, id="another shape"),
        pytest.param({"heads": (3, 2)}, {}, None, id="another part"),
        pytest.param({"model": (3, 2), "more": (3, 2)}, {}, None, id="one part more"),
        pytest.param(LINEAR, {"scenes": 0}, None, id="another count"),
        pytest.param(LINEAR, {}, 900, id="cut off"),
        pytest.param(LINEAR, {}, 0, id="empty"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(trained, tmp_path, parts, counts, size) -> None:
    trained.checkpoint.write_bytes(trained.checkpoint.read_bytes()[:size])
    modules = {name: torch.nn.Linear(*shape) for name, shape in parts.items()}
    with pytest.raises(BadInput, match=r"checkpoint\.pt .*(fit|whole)") as refused:
        loop_of(tmp_path, modules, counts)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_without_a_weight_is_refused(trained, tmp_path) -> None:
    with pytest.raises(BadInput, match="does not fit"):
        loop_of(tmp_path, {"model": torch.nn.Linear(3, 2, bias=False)}, {})
