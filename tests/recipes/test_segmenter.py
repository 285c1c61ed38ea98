"""A short training of the segmenter, its samples and its loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from recipes.embedded import crops, segmenter
from recipes.embedded.loop import read_log
from rsvp.embedded.scenes import scenes
from rsvp.errors import BadInput
from rsvp.masks import encode_rle
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.transforms import Window
from rsvp.types import Box, Image, Proposal


@pytest.fixture
def photos(tmp_path):
    """A folder of rendered scenes with annotations as of photos, every other one of split val."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, scene in enumerate(scenes(4, 21, size=120)):
        Pil.fromarray(scene.rgb).save(folder / "images" / f"{number}.png")
        split = "train" if number % 2 else "val"
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": 120, "width": 120,
             "split": split}
        )  # fmt: skip
        for o in scene.objects:
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0,
                 "segmentation": encode_rle(o.mask)}
            )  # fmt: skip
    annotations.append({**annotations[0], "id": len(annotations), "iscrowd": 1})
    document = {
        "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


def test_training_resumes_and_the_export_loads(tmp_path) -> None:
    settings = {"batch": 2, "log_every": 1, "eval_every": 100, "eval_scenes": 2}
    segmenter.train(tmp_path, segmenter.SegmenterConfig(steps=1, **settings), None)
    segmenter.train(tmp_path, segmenter.SegmenterConfig(steps=2, **settings), None)
    loaded = Sam2Segmenter(str(tmp_path / "model"))
    assert loaded.crop_margin == crops.MARGIN
    image = Image(next(iter(scenes(1, 5, size=100))).rgb, sha256="")
    (encoding,) = loaded.encode([image])
    masks = loaded.masks(encoding, [Proposal("", Box(10, 10, 60, 70))])
    assert masks.masks.shape == (1, 100, 100)


def test_photos_are_trained_on_and_validated(photos, tmp_path) -> None:
    config = segmenter.SegmenterConfig(
        steps=1, batch=2, log_every=1, eval_every=1, eval_scenes=1, photo_share=0.9
    )
    segmenter.train(tmp_path, config, photos)
    (row,) = read_log(tmp_path / "log.csv")
    assert 0 <= float(row["photos_val"]) <= 1


def test_photo_instances_are_the_annotated_objects(photos) -> None:
    held_out = crops.PhotoInstances(photos, "val")
    expected = [o for n, scene in enumerate(scenes(4, 21, size=120)) if n % 2 == 0
                for o in scene.objects]  # fmt: skip
    assert len(held_out) == len(expected)  # without the crowd
    for instance, o in zip(held_out, expected, strict=False):
        np.testing.assert_array_equal(instance.mask, o.mask)
        assert instance.box == o.box
    with pytest.raises(BadInput, match="no image of split 'test'"):
        crops.PhotoInstances(photos, "test")


def test_mask_loss_is_low_for_the_true_mask_alone() -> None:
    target = torch.zeros(1, crops.MASK_SIZE, crops.MASK_SIZE)
    target[:, 16:48, 16:48] = 1
    logits = torch.where(target[:, None] > 0, 20.0, -20.0)
    loss, iou, whole = segmenter.mask_loss(logits, target, torch.tensor([1024.0]))
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert (iou.item(), whole.item()) == (1, 0.5)
    loss, iou, _ = segmenter.mask_loss(-logits, target)
    assert loss.item() > 10
    assert iou.item() == 0


def test_views_hold_the_prompts_of_their_objects(monkeypatch) -> None:
    monkeypatch.setattr(crops, "WHOLE", 1)  # so that background is seen
    rng = np.random.default_rng(3)
    source = crops.RenderedInstances(12, [])
    for _ in range(4):
        picture = source.draw(rng, crops.POINTED)
        crop = crops.crop_view(picture.objects[0], rng)
        assert [group.shape for group in crop.prompts] == [(1, k, 3) for k in (1, 2, 3, 4)]
        window = crops.window_view(picture, rng, 3)
        assert [group.shape for group in window.prompts] == [(6, 1, 3), (6, 3, 3)]
        for view in (crop, window):
            assert view.rgb.shape == (3, crops.SIZE, crops.SIZE)
            assert view.targets.shape[1:] == (crops.MASK_SIZE, crops.MASK_SIZE)
            for (x, y, label), target in zip(view.prompts[0][:, 0], view.targets, strict=True):
                assert label == 1
                assert 0 <= min(x, y) <= max(x, y) <= crops.SIZE
                if target.any():  # the point lies on the object
                    shown = target[int(y / 2 - 0.01), int(x / 2 - 0.01)]
                    assert shown > 0
        assert not window.targets[-1].any()  # the last prompts are on no object


def test_what_a_window_does_not_show_is_outside() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((80, 100), np.bool_)
    mask[20:60, 10:50] = True
    instance = crops.Instance(np.zeros((80, 100, 3), np.uint8), mask, Box(10, 20, 50, 60))
    view = crops.make_view([instance], Window(30, 0, 94, 64), [[[(40.0, 32.0, 1)]]], rng)
    torch.testing.assert_close(view.outside, torch.tensor([20.0 * 40]))
    torch.testing.assert_close(view.prompts[0], torch.tensor([[[20.0, 64.0, 1.0]]]))
    mirrored = crops.mirrored(instance)
    assert mirrored.box == Box(50, 20, 90, 60)
    assert mirrored.mask[20:60, 50:90].all()


def test_fine_tuning_starts_from_a_trained_segmenter(tmp_path) -> None:
    settings = {"batch": 3, "log_every": 1, "eval_every": 100, "eval_scenes": 1}
    segmenter.train(tmp_path / "a", segmenter.SegmenterConfig(steps=1, **settings), None)
    kept = segmenter.FineTuningConfig(steps=1, lr=0.0, muon_lr=0.0, **settings)
    segmenter.train(tmp_path / "b", kept, None, start=tmp_path / "a" / "model")
    first, second = (tmp_path / run / "model" / "model.safetensors" for run in "ab")
    assert first.read_bytes() == second.read_bytes()
