"""The groundingdino-py package and transformers say the same, from one official `.pth`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rsvp import registry
from rsvp.detectors import Detector, groundingdino_py
from rsvp.detectors.grounded import write_captions
from rsvp.detectors.grounding_dino import GroundingDinoDetector
from rsvp.detectors.groundingdino_py import GroundingDinoPyDetector, read_config
from rsvp.errors import BadInput, ModelUnavailable

PHRASES = ["red cup", "dog", "St. Bernard", "stop sign", "Wine glass?"]
OPEN = {"threshold": None, "iou": None, "device": "cpu"}


@pytest.fixture(scope="module")
def pair(official_file: Path, text_folder: Path):
    """The package's own network and transformers', from the same file."""
    options = {**OPEN, "text_encoder": str(text_folder)}
    return (
        GroundingDinoPyDetector(str(official_file), **options),
        GroundingDinoDetector(str(official_file), **options),
    )


@pytest.mark.parametrize("size", [(96, 128), (133, 90)])
def test_boxes_and_logits_are_equal(pair, size) -> None:
    package, ours = pair
    (caption,) = write_captions(PHRASES, ours._tokenizer, 256)
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    their_logits, their_boxes = package.detect(pixels, caption)
    logits, boxes = ours.detect(pixels, caption)
    assert logits.shape == their_logits.shape == (30, len(caption.ids))
    assert their_logits.std() > 0.5  # nothing is equal for being constant
    assert their_boxes.std(dim=0).min() > 0.01
    torch.testing.assert_close(logits, their_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, their_boxes, atol=1e-4, rtol=0)


def test_candidates_are_equal(pair, picture, monkeypatch) -> None:
    image = picture(60, 90)
    for detector in pair:
        small = type(detector.preprocessing)(shortest=96, longest=160)
        monkeypatch.setattr(detector, "preprocessing", small)
    theirs, ours = (detector.candidates(image, PHRASES) for detector in pair)
    assert isinstance(pair[0], Detector)
    assert len(theirs) == len(ours) == 30
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
    by_place = lambda found: found.boxes[np.lexsort(found.boxes.T)]  # noqa: E731
    np.testing.assert_allclose(by_place(theirs), by_place(ours), atol=0.01)
    assert sorted(theirs.phrases) == sorted(ours.phrases)


def test_nothing_of_the_import_stays_behind(pair) -> None:
    assert sys.modules.get("timm") is None or hasattr(sys.modules["timm"], "__file__")
    for name in ("torchvision", "groundingdino.util.slconfig"):
        module = sys.modules.get(name)
        assert module is None or getattr(module, "__file__", None)


def test_the_registry_makes_it(official_file: Path, text_folder: Path) -> None:
    made = registry.make(
        "detector", f"groundingdino-py:{official_file}", text_encoder=str(text_folder), device="cpu"
    )
    assert isinstance(made, GroundingDinoPyDetector)
    assert made.name == f"groundingdino-py:{official_file}"


def test_a_config_that_does_not_fit_is_told(
    official_file: Path, text_folder: Path, tmp_path: Path
) -> None:
    lines = official_file.with_suffix(".py").read_text()
    for change, complaint in (
        (("enc_layers = 2", "enc_layers = 3"), "does not fit.*are missing"),
        (("num_queries = 30", "num_queries = 31"), r"tgt_embed.*\(30, 256\), expected \(31, 256\)"),
        (("hidden_dim = 256", "nothing = 256"), "no Grounding DINO can be built"),
    ):
        config = tmp_path / "config.py"
        config.write_text(lines.replace(*change))
        with pytest.raises(BadInput, match=complaint):
            GroundingDinoPyDetector(
                str(official_file), config=str(config), text_encoder=str(text_folder)
            )


def test_files_that_are_no_checkpoints_are_one_line(
    official_file: Path, text_folder: Path, tmp_path: Path
) -> None:
    state = torch.load(official_file, weights_only=True)["model"]
    cut = tmp_path / "cut.pth"
    torch.save({"model": {k: v for k, v in state.items() if "feat_map.bias" not in k}}, cut)
    with pytest.raises(ModelUnavailable, match=r"missing, first .*text_projection\.bias"):
        GroundingDinoDetector(str(cut), text_encoder=str(text_folder))
    torch.save({"model": {"a": torch.zeros(2)}}, cut)
    for kind in (GroundingDinoDetector, GroundingDinoPyDetector):
        with pytest.raises(ModelUnavailable, match=r"lacks transformer\.level_embed"):
            kind(str(cut), text_encoder=str(text_folder))
    cut.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelUnavailable, match=r"cut\.pth"):
        GroundingDinoDetector(str(cut), text_encoder=str(text_folder))
    with pytest.raises(ModelUnavailable, match="tokenizer files"):
        GroundingDinoDetector(str(official_file), text_encoder="no/such/place")


def test_without_the_package_its_command_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(groundingdino_py, "installed", lambda: False)
    with pytest.raises(ModelUnavailable, match="pip install --no-deps groundingdino-py==0"):
        GroundingDinoPyDetector(str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.py", "backbone = 'swin_T_224_1k'\nlayers = [1, 2]\nnone = None\n"),
        ("c.yaml", "backbone: swin_T_224_1k\nlayers: [1, 2]\nnone:\n"),
        ("c.json", '{"backbone": "swin_T_224_1k", "layers": [1, 2], "none": null}'),
    ],
)
def test_configs_of_each_kind(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_config(tmp_path / name)
    assert found == {"backbone": "swin_T_224_1k", "layers": [1, 2], "none": None}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("c.py", "import os\nbackbone = 'x'", "line 1"),
        ("c.py", "backbone = open('x')", "cannot be read"),
        ("c.py", "_base_ = 'other.py'", "another config"),
        ("c.py", "backbone = (", "cannot be read"),
        ("c.yaml", "a: [", "cannot be read"),
        ("c.yaml", "!!python/object/apply:os.getcwd []", "cannot be read"),
        ("c.json", "[]", "no backbone"),
        ("c.json", "{", "cannot be read"),
        ("c.txt", "", "is a .py"),
    ],
)
def test_configs_are_read_and_never_run(tmp_path: Path, name, text, complaint) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=complaint) as error:
        read_config(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_missing_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_config(tmp_path / "none.py")
