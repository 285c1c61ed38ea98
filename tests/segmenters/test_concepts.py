"""`sam3:` and `sam3-lite:` as detectors, on small random networks of their own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scripted import Script
from tiny_sams import SAM3_SIZE, save_sam3, save_sam3_lite

from rsvp import registry
from rsvp.errors import BadInput, ModelUnavailable
from rsvp.pipeline import Pipeline
from rsvp.platform.pretrained import transformers
from rsvp.platform.torchvision import torchvision_works
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.marks import MarksStrategy

SAVE = {"sam3": save_sam3, "sam3-lite": save_sam3_lite}
SIZE = (96, 160)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {kind: save(tmp_path_factory.mktemp(kind)) for kind, save in SAVE.items()}


@pytest.fixture
def detector(folders):
    def make(kind: str = "sam3", **options):
        options = {"threshold": None, "overlap": None, "device": "cpu"} | options
        return registry.make("detector", f"{kind}:{folders[kind]}", **options)

    return make


def reference(detector, image, phrase: str) -> dict[str, torch.Tensor]:
    """The class's own forward pass and its post-processing."""
    pixels = torch.from_numpy(image.rgb.copy()).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, (SAM3_SIZE, SAM3_SIZE), mode="bilinear", antialias=True)
    text = detector._tokenizer(phrase, padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        found = detector.net(
            pixel_values=pixels / 127.5 - 1,
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
        )
    if torchvision_works():
        own = transformers.Sam3ImageProcessor()
        return own.post_process_instance_segmentation(found, threshold=-1.0, target_sizes=[SIZE])[0]
    masks = F.interpolate(found.pred_masks.sigmoid(), SIZE, mode="bilinear")[0] > 0.5
    scores = found.pred_logits.sigmoid() * found.presence_logits.sigmoid()
    boxes = found.pred_boxes[0] * torch.tensor([SIZE[1], SIZE[0]] * 2)
    return {"scores": scores[0], "boxes": boxes, "masks": masks}


@pytest.mark.parametrize("kind", SAVE)
def test_the_class_itself_gives_the_same(kind, detector, make_image) -> None:
    made, image = detector(kind), make_image(*SIZE)
    found = made.candidates(image, ["red cup"])
    expected = reference(made, image, "red cup")
    masks = expected["masks"].bool().numpy()
    visible = masks.any(axis=(1, 2))
    assert 4 < len(found) <= 12
    for box, score, mask in zip(found.boxes, found.scores, found.masks, strict=True):
        row = int(np.abs(expected["scores"].numpy() - score).argmin())
        assert score == pytest.approx(float(expected["scores"][row]), abs=1e-5)
        clipped = np.clip(expected["boxes"][row].numpy(), 0, [160, 96, 160, 96])
        np.testing.assert_allclose(box, clipped, atol=1e-2)
        assert (mask.unpack() != masks[row]).mean() < 1e-3
        assert visible[row] or not mask.area
    assert (np.diff(found.scores) <= 0).all()


def test_phrases_share_one_encoding_and_keep_their_names(detector, make_image) -> None:
    made, image = detector(), make_image(*SIZE)
    encodings = []
    made.net.vision_encoder.register_forward_hook(lambda *_: encodings.append(1))
    found = made.candidates(image, ["cup", "Dog", "cup"])
    alone = made.candidates(image, ["Dog"])
    assert set(found.phrases) == {"cup", "Dog"}
    dogs = found.take([row for row, phrase in enumerate(found.phrases) if phrase == "Dog"])
    np.testing.assert_allclose(dogs.scores, alone.scores, atol=1e-6)
    assert len(encodings) == 2


def test_overlapping_masks_are_removed_across_phrases(detector, make_image) -> None:
    image = make_image(*SIZE)
    every = detector().candidates(image, ["cup", "dog"])
    found = detector(overlap=0.5).candidates(image, ["cup", "dog"])
    assert 0 < len(found) < len(every)
    assert found.scores[0] == every.scores[0]
    masks = np.stack([mask.unpack().ravel() for mask in found.masks]).astype(int)
    shared, areas = masks @ masks.T, masks.sum(axis=1)
    iou = shared / (areas[:, None] + areas - shared)
    assert (iou[~np.eye(len(found), dtype=bool)] < 0.6).all()


def test_the_presence_decides_whether_there_are_candidates(detector, make_image) -> None:
    made, image = detector(threshold=0.05), make_image(*SIZE)
    assert len(made.candidates(image, ["cup"]))
    with torch.no_grad():
        made.net.detr_decoder.presence_head.layer3.bias.fill_(-30)
    assert not len(made.candidates(image, ["cup"]))


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ([], "at least one phrase"),
        ([" . "], "has a word in it"),
        (["cup " * 40], "no phrase is short enough: 32 tokens"),
    ],
)
def test_phrases_that_cannot_be_looked_for(phrases, message, detector, make_image) -> None:
    with pytest.raises(BadInput, match=message):
        detector().candidates(make_image(*SIZE), phrases)


def test_a_phrase_that_is_too_long_is_left_out(detector, make_image, caplog) -> None:
    found = detector().candidates(make_image(*SIZE), ["cup " * 40, "dog"])
    assert set(found.phrases) == {"dog"}
    assert "reads no phrase as long as" in caplog.text


def test_another_folder_and_options_out_of_range_are_refused(folders) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be read as SAM 3 LiteText"):
        registry.make("detector", f"sam3-lite:{folders['sam3']}")
    with pytest.raises(BadInput, match="overlap is 0 to 1"):
        registry.make("detector", f"sam3:{folders['sam3']}", overlap=2.0)


# ---------------------------------------------------------------- marks


def test_named_marks_of_several_phrases_are_united_as_they_are(detector, make_image) -> None:
    made, image = detector(overlap=0.9), make_image(300, 500)
    strategy = MarksStrategy(detector=made, phrases=("cup", "dog"), max_marks=40)
    found = strategy.view(image, "pets").candidates
    assert len(set(found.phrases)) > 1
    first = 1
    other = next(n for n, p in enumerate(found.phrases, 1) if p != found.phrases[0])
    reply = f'{{"targets": [{{"label": "pets", "marks": [{first}, {other}]}}], "reason": "r"}}'
    result = Pipeline(Script(reply), strategy, BoxSegmenter()).segment(image, "pets")
    expected = found.masks[0].unpack() | found.masks[other - 1].unpack()
    np.testing.assert_array_equal(result.mask, expected)
    assert result.targets[0].score == pytest.approx(float(found.scores[other - 1]))


def test_the_detector_is_named_in_the_strategys_spec(folders) -> None:
    strategy = registry.make("strategy", f"marks:sam3-lite:{folders['sam3-lite']}")
    assert type(strategy._detector).__name__ == "Sam3LiteDetector"
