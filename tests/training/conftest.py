"""Small models and painted data, written once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from painted import make_config, paintings, write_bert, write_coco, write_sam2
from runs import run

from rsvp.training.config import TrainConfig


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``sam2``, ``crops`` (a SAM 2 that looks at crops) and ``bert``."""
    folder = tmp_path_factory.mktemp("models")
    write_sam2(folder / "sam2")
    write_sam2(folder / "crops", crop_margin=0.25)
    write_bert(folder / "bert")
    return folder


@pytest.fixture(scope="session")
def painted_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of twelve paintings."""
    return write_coco(tmp_path_factory.mktemp("painted"), paintings(12))


@pytest.fixture(scope="session")
def config(models: Path, painted_coco: Path) -> TrainConfig:
    """Six quick steps on the paintings."""
    return make_config(models, f"coco:{painted_coco}")


@pytest.fixture(scope="session")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `config` that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = run(config, out)
    assert (result.step, result.interrupted, result.broken) == (6, False, 0)
    return out


@pytest.fixture(autouse=True)
def _end_children() -> Iterator[None]:
    """The child processes of a test end with it."""
    yield
    for child in multiprocessing.active_children():
        child.kill()
