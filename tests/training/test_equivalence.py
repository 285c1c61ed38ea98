"""Caches, accumulation, processes and workers do not change what is learned."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from painted import make_config
from runs import assert_close_run, assert_same_run, rows, run, totals

from rsvp.training.components import FeatureCache, FrozenEncoder
from rsvp.training.config import TrainConfig
from rsvp.training.monitor import StopCondition


def test_cached_features_give_the_same_losses(models, painted_coco, tmp_path, monkeypatch) -> None:
    """Three epochs: with an empty cache, a full one, and one that never returns anything."""
    config = make_config(models, f"coco:{painted_coco}", batch=3, steps=9)
    encoded: list[int] = []
    encode = FrozenEncoder.features

    def counted(self: Any, batch: Any) -> Any:
        known = self.cache.get(batch.indices)
        encoded.append(known is None)
        return encode(self, batch)

    monkeypatch.setattr(FrozenEncoder, "features", counted)
    run(config, tmp_path / "cold", cache=str(tmp_path / "cache"))
    assert encoded == [True] * 3 + [False] * 6  # there are nine training images
    encoded.clear()
    run(config, tmp_path / "warm", cache=str(tmp_path / "cache"))
    assert encoded == [False] * 9
    monkeypatch.setattr(FeatureCache, "get", lambda self, indices: None)
    run(config, tmp_path / "never", cache=str(tmp_path / "other"))
    assert_same_run(tmp_path / "never", tmp_path / "cold")
    assert_same_run(tmp_path / "never", tmp_path / "warm")


def test_another_data_set_or_encoder_has_its_own_cache(models, painted_coco, tmp_path) -> None:
    """Image 3 of another selection of images is another image."""
    cache = tmp_path / "cache"
    data = f"coco:{painted_coco}"
    others: list[dict[str, Any]] = [
        {},
        {"hold_out": 3},
        {"eval_data": (data,)},
        {"seed": 1},
        {"segmenter": f"sam2:{models / 'crops'}"},
    ]
    for number, changes in enumerate(others):
        config = make_config(models, data, steps=1, eval_every=9, **changes)
        run(config, tmp_path / str(number), cache=str(cache))
        assert len(list(cache.iterdir())) == number + 1
    run(make_config(models, data, steps=2, eval_every=9), tmp_path / "again", cache=str(cache))
    assert len(list(cache.iterdir())) == 5


def short(models: Path, data: Path, **changes: Any) -> TrainConfig:
    return make_config(models, f"coco:{data}", steps=3, eval_every=3, **changes)


@pytest.fixture(scope="module")
def at_once(models, painted_coco, tmp_path_factory) -> Path:
    """Three steps by one process, without accumulation."""
    out = tmp_path_factory.mktemp("at_once") / "run"
    run(short(models, painted_coco), out)
    return out


def test_gradient_accumulation_gives_the_same_result(
    models, painted_coco, at_once, tmp_path
) -> None:
    run(short(models, painted_coco, accumulate=2), tmp_path / "run")
    assert_close_run(at_once, tmp_path / "run")


def test_accelerates_environment_does_not_change_the_accumulation(
    models, painted_coco, at_once, tmp_path, monkeypatch
) -> None:
    """`accelerate launch` sets its own number of steps."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    run(short(models, painted_coco, accumulate=4), tmp_path / "run")
    assert_close_run(at_once, tmp_path / "run")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_as_rank(rank: int, world: int, port: int, work: Callable[[], object]) -> None:
    """Do `work` with the environment that torchrun gives each process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    work()


def in_two(work: Callable[[], object]) -> list[int | None]:
    """The exit codes of two processes that do the same work, connected by gloo."""
    context, port = multiprocessing.get_context("fork"), free_port()
    pair = [context.Process(target=run_as_rank, args=(rank, 2, port, work)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(timeout=100)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in pair]


def test_two_processes_give_the_result_of_one(models, painted_coco, at_once, tmp_path) -> None:
    config = short(models, painted_coco)
    assert in_two(lambda: run(config, tmp_path / "run")) == [0, 0]
    assert totals(tmp_path / "run")[0] == pytest.approx(totals(at_once)[0], rel=1e-5)
    assert_close_run(at_once, tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run" / "log.csv")] == ["1", "2", "3"]
    measured, alone = (rows(out / "measured.csv")[0] for out in (tmp_path / "run", at_once))
    assert float(measured["base_clean"]) == pytest.approx(float(alone["base_clean"]), rel=1e-4)


def test_two_processes_stop_at_the_same_step_and_resume(
    models, painted_coco, at_once, tmp_path, monkeypatch
) -> None:
    """Only the second process reaches its time limit, between two rows of the log."""
    config, out = short(models, painted_coco), tmp_path / "run"
    run(config, tmp_path / "alone", log_every=3)
    reached = StopCondition.reached

    def second_is_late(self: Any, step: int) -> bool:
        late = os.environ["RANK"] == "1" and step == 2 and not (out / "checkpoint.pt").exists()
        return late or reached(self, step)

    def both() -> None:
        result = run(config, out, log_every=3)
        assert result.step == 2

    monkeypatch.setattr(StopCondition, "reached", second_is_late)
    assert in_two(both) == [0, 0]
    monkeypatch.undo()
    assert in_two(lambda: run(config, out, log_every=3, resume=True)) == [0, 0]
    assert_close_run(tmp_path / "alone", out)


def test_workers_change_nothing_and_end_with_the_run(config, whole, tmp_path) -> None:
    run(config, tmp_path / "run", workers=2)
    assert_same_run(whole, tmp_path / "run")
    assert multiprocessing.active_children() == []
