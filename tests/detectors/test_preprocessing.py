"""The network's input equals the official transform, and transformers' own processor."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_detectors import GroundingDinoImageProcessorPil

from rsvp.detectors import groundingdino_py
from rsvp.detectors.preprocessing import (
    DetectorPreprocessing,
    read_preprocessing,
    resized_size,
    to_pixels,
)

OFFICIAL = DetectorPreprocessing()


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((800, 1000), (800, 1000)),  # left as it is
        ((1000, 4000), (333, 1332)),  # the longer side is the limit
        ((4000, 1000), (1332, 333)),
        ((1, 9000), (1, 9000)),
        ((3000, 3000), (800, 800)),
    ],
)
def test_sizes_by_the_official_rule(size, resized) -> None:
    assert resized_size(size, OFFICIAL) == resized


@pytest.fixture(scope="module")
def official_resize():
    """The official `resize`, which hands the drawing of pixels to torchvision: here the size."""
    if not groundingdino_py.installed():
        pytest.skip(f"groundingdino-py is not installed: {groundingdino_py.INSTALL}")
    groundingdino_py.load_package()
    absent = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    with pytest.MonkeyPatch.context() as patch:
        for name in absent:
            patch.setitem(sys.modules, name, MagicMock())
        module = importlib.import_module("groundingdino.datasets.transforms")
    del sys.modules["groundingdino.datasets.transforms"]
    module.F = SimpleNamespace(resize=lambda image, size: SimpleNamespace(size=size[::-1]))
    return module.resize


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_any_size_as_the_official_code_has_it(official_resize, height: int, width: int) -> None:
    told, _ = official_resize(SimpleNamespace(size=(width, height)), None, 800, 1333)
    expected = told.size[::-1]
    if 0 not in expected:  # it makes nothing of an image over 2666 times as long as wide
        assert resized_size((height, width), OFFICIAL) == expected


@pytest.mark.parametrize("size", [(48, 64), (200, 150), (97, 97), (300, 90)])
def test_it_is_what_transformers_processor_makes(picture, size) -> None:
    rgb = picture(*size).rgb
    small = DetectorPreprocessing(shortest=100, longest=180)
    ours = to_pixels(rgb, small)
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 100, "longest_edge": 180})
    theirs = processor(rgb, return_tensors="pt")["pixel_values"]
    limited = max(size) / min(size) > 1.8
    if limited:  # the longer side is rounded differently; the shorter is the same
        assert abs(ours.shape[2] - theirs.shape[2]) <= 3
        assert ours.shape[3] == theirs.shape[3]
    else:
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_values_by_hand() -> None:
    rgb = np.full((4, 4, 3), 255, np.uint8)
    found = to_pixels(rgb, DetectorPreprocessing(shortest=8, longest=8))
    assert found.shape == (1, 3, 8, 8)
    assert found[0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)


def test_a_folder_says_how(tmp_path: Path) -> None:
    assert read_preprocessing(tmp_path) == OFFICIAL
    settings = {"size": {"shortest_edge": 64, "longest_edge": 96}, "image_mean": [0.5, 0.5, 0.5]}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert read_preprocessing(tmp_path) == DetectorPreprocessing(64, 96, (0.5, 0.5, 0.5))
    for broken in ({"size": {"height": 3}}, {"size": 800}, {"image_mean": [1, 2]}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"shortest_edge|three numbers"):
            read_preprocessing(tmp_path)
