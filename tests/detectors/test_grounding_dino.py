"""transformers' Grounding DINO and MM-Grounding-DINO as detectors, from folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

from rsvp import registry
from rsvp.detectors import Candidates, Detector
from rsvp.detectors.grounded import write_captions
from rsvp.detectors.grounding_dino import GroundingDinoDetector
from rsvp.detectors.preprocessing import to_pixels
from rsvp.errors import BadInput, ModelUnavailable

PHRASES = ["red cup", "dog", "St. Bernard", "Dog"]


@pytest.fixture(params=["dino", "mm"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_folder")


def everything(folder: Path) -> GroundingDinoDetector:
    return GroundingDinoDetector(str(folder), threshold=None, iou=None, device="cpu")


def test_many_phrases_take_one_forward(folder: Path, picture) -> None:
    detector = everything(folder)
    assert isinstance(detector, Detector)
    assert detector.name == f"grounding-dino:{folder}"
    calls: list[int] = []
    detector.net.register_forward_hook(lambda *_: calls.append(1))
    image = picture(60, 80)
    found = detector.candidates(image, PHRASES)
    assert calls == [1]
    assert 0 < len(found) <= 12
    assert set(found.phrases) <= set(PHRASES[:3])
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= [image.width, image.height]).all()


def test_it_is_what_transformers_says(folder: Path, picture) -> None:
    """The same boxes, and for each phrase the highest probability among its tokens."""
    detector, image = everything(folder), picture(64, 100)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("red cup. dog.", return_tensors="pt")
    net = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    with torch.inference_mode():
        told = net(pixel_values=to_pixels(image.rgb, detector.preprocessing), **inputs)
    probabilities = told.logits[0].sigmoid()
    cup, dog = probabilities[:, 1:3].amax(1), probabilities[:, 4]
    best, order = torch.maximum(cup, dog).sort(descending=True)
    found = detector.candidates(image, ["red cup", "dog"])
    assert len(found) == len(order)
    np.testing.assert_allclose(found.scores, best, atol=1e-5)
    assert found.phrases == tuple("red cup" if cup[i] >= dog[i] else "dog" for i in order)
    boxes = told.pred_boxes[0][order].numpy() * [100, 64, 100, 64]
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    inside = (boxes[:, :2] - boxes[:, 2:] / 2 >= 0).all(1)
    inside &= (boxes[:, :2] + boxes[:, 2:] / 2 <= [100, 64]).all(1)
    assert inside.any()
    np.testing.assert_allclose(middles[inside], boxes[inside, :2], atol=1e-3)


def test_thresholds_and_duplicates_are_the_shared_ones(folder: Path, picture) -> None:
    image = picture(60, 80)
    loose = everything(folder).candidates(image, PHRASES)
    middle = float(np.median(loose.scores))
    strict = GroundingDinoDetector(str(folder), threshold=middle, iou=0.1, device="cpu")
    found, expected = strict.candidates(image, PHRASES), loose.at_least(middle).nms(0.1)
    assert 0 < len(found) < len(loose)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)


def test_more_phrases_than_fit_are_all_asked(dino_folder: Path, picture) -> None:
    """The small network reads 32 tokens at once."""
    detector = everything(dino_folder)
    calls: list[int] = []
    detector.net.register_forward_hook(lambda *_: calls.append(1))
    phrases = [f"{a} {b}" for a in ("red", "wine", "stop") for b in ("cup", "dog", "sign", "glass")]
    assert len(write_captions(phrases, detector._tokenizer, 32)) == 2
    found = detector.candidates(picture(60, 80), phrases)
    assert calls == [1, 1]
    assert len(found) == 24


def test_what_no_word_names_is_not_found(dino_folder: Path, picture) -> None:
    assert len(everything(dino_folder).candidates(picture(60, 80), ["zzz"])) == 0


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_slivers_are_images_too(dino_folder: Path, picture, size) -> None:
    assert isinstance(everything(dino_folder).candidates(picture(*size), ["dog"]), Candidates)


def test_the_registry_makes_it(dino_folder: Path) -> None:
    made = registry.make("detector", f"grounding-dino:{dino_folder}", threshold=0.1, device="cpu")
    assert isinstance(made, GroundingDinoDetector)
    assert made.threshold == 0.1


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"iou": -1}, {"device": "nowhere"}])
def test_options_are_checked(dino_folder: Path, options) -> None:
    with pytest.raises(BadInput):
        GroundingDinoDetector(str(dino_folder), **options)


@pytest.mark.parametrize("model", ["no/such/folder", "missing.pth", "nobody/nothing"])
def test_missing_weights_are_one_line(model: str) -> None:
    with pytest.raises(ModelUnavailable, match=model) as error:
        GroundingDinoDetector(model)
    assert "\n" not in str(error.value)


def test_damaged_folders_are_one_line(dino_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(dino_folder, folder)
    state = load_file(folder / "model.safetensors")
    dropped = next(iter(key for key in state if "text_projection" in key))
    save_file({k: v for k, v in state.items() if k != dropped}, folder / "model.safetensors")
    with pytest.raises(ModelUnavailable, match=f"lacks weights.*{dropped}"):
        GroundingDinoDetector(str(folder))
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelUnavailable, match="cannot be read as Grounding DINO"):
        GroundingDinoDetector(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelUnavailable, match="type 'bert'"):
        GroundingDinoDetector(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        GroundingDinoDetector(str(folder))
