"""Mean losses, throughput, non-finite losses, the reasons to stop, and the accelerator."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rsvp.errors import BadInput, MissingExtra
from rsvp.training.components import make_accelerator
from rsvp.training.losses import Losses
from rsvp.training.monitor import LossMeans, NanGuard, StopCondition, Throughput

CPU = torch.device("cpu")


class OneProcess:
    """An accelerator of one process."""

    num_processes = 1

    def reduce(self, own: torch.Tensor, how: str) -> torch.Tensor:
        return own


def losses(total: float | torch.Tensor) -> Losses:
    value = torch.as_tensor(total)
    return Losses(*[value] * len(Losses._fields))


def test_a_run_stops_at_a_step_a_time_or_a_signal() -> None:
    stop = StopCondition(5)
    assert [stop.reached(step) for step in (0, 4, 5)] == [False, False, True]
    assert StopCondition(5, minutes=0).reached(0)
    before = signal.getsignal(signal.SIGTERM)
    with stop.catching_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reached(0)
        assert stop.interrupted
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one kills
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_than_the_main_one_can_train() -> None:
    entered = []

    def work() -> None:
        with StopCondition(1).catching_signals():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def test_the_guard_names_the_first_bad_step() -> None:
    guard = NanGuard(CPU)
    for step, norm in enumerate([1.0, 2.0], start=1):
        guard.see(step, torch.tensor(norm))
    guard.check()
    for step, norm in enumerate([float("inf"), 1.0, float("nan")], start=3):
        guard.see(step, torch.tensor(norm))
    with pytest.raises(BadInput, match="at step 3 "):
        guard.check()


def test_means_are_over_the_micro_batches_since_the_last_row() -> None:
    one: Any = OneProcess()
    means = LossMeans(CPU, {"total": 3.0, "count": 1.0})  # one was counted before a stop
    means.add(losses(torch.tensor(1.0, requires_grad=True)))
    means.add(losses(2.0))
    assert {k: means.sums(one)[k] for k in ("total", "count")} == {"total": 6.0, "count": 3.0}
    assert means.take(one)["total"] == 2.0
    assert set(means.sums(one).values()) == {0.0}
    means.add(losses(5.0))
    assert means.take(one) == dict.fromkeys(Losses._fields, 5.0)


def test_sums_survive_a_stop_to_the_last_bit() -> None:
    one: Any = OneProcess()
    whole, resumed = LossMeans(CPU, {}), LossMeans(CPU, {})
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    for number, value in enumerate(values):
        whole.add(losses(value))
        if number == 3:
            resumed = LossMeans(CPU, resumed.sums(one))
        resumed.add(losses(value))
    assert whole.take(one) == resumed.take(one)


def test_throughput_and_the_encoders_share(monkeypatch) -> None:
    clock = iter([10.0, 11.0, 13.0, 20.0, 20.0, 24.0, 24.0, 30.0])
    fake = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr("rsvp.training.monitor.time", fake)
    throughput = Throughput(CPU)  # at 10
    with throughput.encoding():  # from 11 to 13
        pass
    throughput.samples += 16
    assert throughput.take() == {"views_per_second": 1.6, "encoder_share": 0.2}  # until 20
    assert throughput.take() == {"views_per_second": 0.0, "encoder_share": 0.0}  # until 24
    summary = throughput.summary()
    assert summary.startswith("0.8 views a second, 10% of the time in the frozen encoder; peak ")
    assert summary.endswith("GB (process)")
    gigabytes = float(summary.split("peak memory ")[1].split()[0])
    assert 0.05 < gigabytes < 100


@pytest.mark.parametrize("module", ["accelerate", "tensorboard"])
def test_a_missing_library_is_named_with_its_command(monkeypatch, tmp_path, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'rsvp-segmentation\[train\]'"):
        make_accelerator("no", 1, "cpu", tmp_path)


def test_runs_of_one_process_may_have_different_settings() -> None:
    for precision, accumulate in [("bf16", 2), ("no", 3), ("bf16", 1)]:
        found = make_accelerator(precision, accumulate, "cpu")
        assert found.mixed_precision == precision
        assert found.gradient_accumulation_steps == accumulate
    with pytest.raises(BadInput, match="the device xpu:1 is not available here; cpu is") as caught:
        make_accelerator("no", 1, "xpu:1")
    assert "\n" not in str(caught.value)
