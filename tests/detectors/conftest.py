"""Folders and files of small detectors, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors

from rsvp.images import load_image
from rsvp.types import Image


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detectors.text_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detectors.detector_folder(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="session")
def mm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detectors.detector_folder(tmp_path_factory.mktemp("mm"), mm=True)


@pytest.fixture(scope="session")
def official_file(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    from rsvp.detectors import groundingdino_py

    if not groundingdino_py.installed():
        pytest.skip(f"groundingdino-py is not installed: {groundingdino_py.INSTALL}")
    return tiny_detectors.official_file(tmp_path_factory.mktemp("official") / "o.pth", text_folder)


@pytest.fixture
def picture() -> Callable[[int, int], Image]:
    """`picture(height, width)`: blobs of colour on noise."""

    def make(height: int, width: int) -> Image:
        random = np.random.default_rng(height * width)
        coarse = random.integers(0, 216, (5, 7, 3), dtype=np.uint8)
        rows, columns = np.arange(height) * 5 // height, np.arange(width) * 7 // width
        noise = random.integers(0, 40, (height, width, 3), dtype=np.uint8)
        return load_image(coarse[rows][:, columns] + noise)

    return make
