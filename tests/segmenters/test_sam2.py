"""`Sam2Segmenter` on a small random Sam2Model: the real class, every path, nothing to download."""

from __future__ import annotations

import json
import shutil
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from rsvp.errors import BadInput, ModelUnavailable
from rsvp.masks import mask_to_box
from rsvp.segmenters import Segmenter
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.point_prompts import point_windows, prompt_points
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.transforms import Window, paste_logits
from rsvp.types import Box, Image, Point, Proposal

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def boxed(*xyxy: float, points: tuple[Point, ...] = ()) -> Proposal:
    return Proposal("thing", Box(*xyxy), points)


@pytest.fixture(scope="module")
def segmenter(sam2_folder: Path) -> Sam2Segmenter:
    return Sam2Segmenter(str(sam2_folder), device="cpu")


@pytest.fixture
def folder_with(sam2_folder: Path, tmp_path: Path):
    """Copy the small model's folder and add settings of its images."""

    def make(settings: dict, name: str = "preprocessor_config.json") -> str:
        folder = tmp_path / "model"
        shutil.copytree(sam2_folder, folder)
        (folder / name).write_text(json.dumps(settings))
        return str(folder)

    return make


def reference_pixels(rgb: np.ndarray, size: int = 128) -> torch.Tensor:
    """The official transform, step by step: ToTensor, Resize, Normalize."""
    tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1).contiguous().float().div(255)
    resized = F.interpolate(tensor[None], (size, size), mode="bilinear", antialias=True)
    return (resized - MEAN) / STD


def reference_masks(segmenter, image, **prompt) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' own forward pass on the reference pixels, prompts in its own words."""
    with torch.inference_mode():
        found = segmenter.net(pixel_values=reference_pixels(image.rgb), **prompt)
    return found.pred_masks[0], found.iou_scores[0]


# ---------------------------------------------------------------- against transformers' own calls


def test_a_box_gives_what_transformers_gives_for_the_box(segmenter, make_image) -> None:
    image = make_image(96, 160)
    [encoding] = segmenter.encode([image])
    logits, scores, _ = segmenter.mask_logits(encoding, [boxed(20, 10, 90, 70)])
    scale = torch.tensor([128 / 160, 128 / 96, 128 / 160, 128 / 96])
    box = torch.tensor([[[20.0, 10.0, 90.0, 70.0]]]) * scale
    expected, iou = reference_masks(segmenter, image, input_boxes=box, multimask_output=False)
    torch.testing.assert_close(logits, expected[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores, iou[:, 0])


def test_masks_are_the_logits_brought_to_the_images_size_above_zero(segmenter, make_image) -> None:
    image = make_image(75, 211)
    [encoding] = segmenter.encode([image])
    proposals = [boxed(20, 10, 90, 70), boxed(100, 0, 211, 75)]
    found = segmenter.masks(encoding, proposals)
    logits, scores, _ = segmenter.mask_logits(encoding, proposals)
    full = F.interpolate(logits[:, None], (75, 211), mode="bilinear", align_corners=False)[:, 0]
    assert found.masks.shape == (2, 75, 211)
    np.testing.assert_array_equal(found.masks, (full > 0).numpy())
    assert 0 < found.masks.mean() < 1
    np.testing.assert_array_equal(found.scores, scores.clamp(0, 1).numpy())
    assert found.scores.dtype == np.float32


def test_one_point_takes_the_best_of_three_masks(segmenter, make_image) -> None:
    image = make_image(128, 128)
    [encoding] = segmenter.encode([image])
    points = torch.tensor([[[[30.0, 40.0]]]])
    expected, iou = reference_masks(
        segmenter, image, input_points=points, input_labels=torch.ones(1, 1, 1, dtype=torch.int)
    )
    assert expected.shape[1] == 3
    logits, scores, _ = segmenter.mask_logits(encoding, [Proposal("p", points=(Point(30, 40),))])
    torch.testing.assert_close(logits[0], expected[0, iou.argmax()], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores[0], iou.max())


def test_several_points_ask_for_a_single_mask_and_negative_ones_count(
    segmenter, make_image
) -> None:
    image = make_image(128, 128)
    [encoding] = segmenter.encode([image])
    points = torch.tensor([[[[30.0, 40.0], [90.0, 100.0]]]])
    expected, _ = reference_masks(
        segmenter,
        image,
        input_points=points,
        input_labels=torch.tensor([[[1, 0]]]),
        multimask_output=False,
    )
    both = Proposal("p", points=(Point(30, 40), Point(90, 100, positive=False)))
    logits, *_ = segmenter.mask_logits(encoding, [both])
    torch.testing.assert_close(logits, expected[:, 0], atol=1e-4, rtol=1e-4)
    positive, *_ = segmenter.mask_logits(
        encoding, [Proposal("p", points=(Point(30, 40), Point(90, 100)))]
    )
    assert not torch.allclose(logits, positive, atol=1e-3)


def test_a_box_with_points_is_one_prompt(segmenter, make_image) -> None:
    image = make_image(128, 128)
    [encoding] = segmenter.encode([image])
    expected, _ = reference_masks(
        segmenter,
        image,
        input_boxes=torch.tensor([[[20.0, 10.0, 90.0, 70.0]]]),
        input_points=torch.tensor([[[[30.0, 40.0], [80.0, 15.0]]]]),
        input_labels=torch.tensor([[[1, 0]]]),
        multimask_output=False,
    )
    points = (Point(30, 40), Point(80, 15, positive=False))
    logits, *_ = segmenter.mask_logits(encoding, [boxed(20, 10, 90, 70, points=points)])
    torch.testing.assert_close(logits, expected[:, 0], atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- batches


MIXED = [
    boxed(20, 10, 90, 70),
    Proposal("p", points=(Point(30, 40),)),
    boxed(40, 40, 100, 90, points=(Point(50, 50), Point(45, 80, positive=False))),
    Proposal("q", points=(Point(30, 40), Point(100, 20, positive=False))),
    boxed(-30, 50, 60, 400),
    Proposal("r", points=(Point(80, 60),)),
]


@pytest.mark.parametrize("crop_margin", [None, 0.15])
def test_a_proposal_gets_the_same_mask_alone_and_in_company(
    sam2_folder, make_image, crop_margin
) -> None:
    segmenter = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=crop_margin)
    [encoding] = segmenter.encode([make_image(100, 140)])
    logits, scores, _ = segmenter.mask_logits(encoding, MIXED)
    for row, proposal in enumerate(MIXED):
        alone, score, _ = segmenter.mask_logits(encoding, [proposal])
        torch.testing.assert_close(logits[row], alone[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scores[row], score[0])


@pytest.mark.parametrize("crop_margin", [None, 0.15])
def test_boxes_of_one_image_share_one_call(
    sam2_folder, make_image, crop_margin, monkeypatch
) -> None:
    segmenter = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=crop_margin)
    calls = {"encoder": 0, "decoder": 0}

    def count(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda *_: calls.__setitem__(name, calls[name] + 1))

    count("encoder", segmenter.net.vision_encoder)
    count("decoder", segmenter.net.mask_decoder)
    encodings = segmenter.encode([make_image(60, 80, seed) for seed in range(3)])
    assert calls == {"encoder": 1 if crop_margin is None else 0, "decoder": 0}
    segmenter.masks(encodings[0], [boxed(x, 5, x + 20, 40) for x in range(8)])
    assert calls == {"encoder": 1, "decoder": 1}


def test_images_of_any_size_encode_in_one_batch_as_alone(segmenter, make_image) -> None:
    images = [make_image(100, 140, 1), make_image(140, 90, 2), make_image(300, 31, 3)]
    together = segmenter.encode(images)
    for image, encoding in zip(images, together, strict=True):
        [alone] = segmenter.encode([image])
        assert encoding.image_size == (image.height, image.width)
        assert [tuple(f.shape) for f in encoding.features] == [
            (1, 4, 32, 32),
            (1, 8, 16, 16),
            (1, 32, 8, 8),
        ]
        for one, other in zip(encoding.features, alone.features, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_more_proposals_than_a_chunk(segmenter, make_image) -> None:
    [encoding] = segmenter.encode([make_image(64, 64)])
    proposals = [boxed(x, y, x + 20, y + 30) for x in range(0, 40, 5) for y in range(0, 34, 6)]
    assert len(proposals) == 48
    logits, *_ = segmenter.mask_logits(encoding, proposals)
    last, *_ = segmenter.mask_logits(encoding, proposals[-1:])
    torch.testing.assert_close(logits[-1], last[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("crop_margin", [None, 0.2])
def test_no_proposals_give_no_masks(sam2_folder, make_image, crop_margin) -> None:
    segmenter = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=crop_margin)
    assert segmenter.encode([]) == []
    [encoding] = segmenter.encode([make_image(30, 50)])
    found = segmenter.masks(encoding, [])
    assert found.masks.shape == (0, 30, 50)
    assert found.scores.shape == (0,)


def test_masks_of_a_large_photo_need_little_more_than_their_own_bytes(
    segmenter, make_image
) -> None:
    [encoding] = segmenter.encode([make_image(1500, 2000)])
    peak = 0
    real = F.interpolate

    def watch(tensor: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        nonlocal peak
        result = real(tensor, *args, **kwargs)
        peak = max(peak, result.numel())
        return result

    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "interpolate", watch)
        found = segmenter.masks(encoding, [boxed(x, 0, x + 500, 900) for x in range(6)])
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak == 1500 * 2000  # logits at full size: one mask's at a time
    assert arrays < 1.4 * found.masks.nbytes


# ---------------------------------------------------------------- crops


def test_a_crop_of_the_whole_image_equals_no_crop(sam2_folder, segmenter, make_image) -> None:
    image = make_image(90, 150)
    crops = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=0.0)
    proposals = [boxed(0, 0, 150, 90), boxed(0, 0, 150, 90, points=(Point(30, 40),))]
    [plain_encoding], [crop_encoding] = segmenter.encode([image]), crops.encode([image])
    plain, cropped = (
        segmenter.masks(plain_encoding, proposals),
        crops.masks(crop_encoding, proposals),
    )
    np.testing.assert_allclose(cropped.scores, plain.scores, atol=1e-5)
    assert (cropped.masks == plain.masks).mean() > 0.9999
    assert plain.masks.any()


def test_a_crop_is_the_small_image_it_shows(sam2_folder, segmenter, make_image) -> None:
    image = make_image(200, 300)
    crops = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=0.25)
    [encoding] = crops.encode([image])
    found = crops.masks(encoding, [boxed(100, 60, 180, 100)])
    part = type(image)(np.ascontiguousarray(image.rgb[50:110, 80:200]), "")
    [small] = segmenter.encode([part])
    expected = segmenter.masks(small, [boxed(20, 10, 100, 50)])
    assert (found.masks[0, 50:110, 80:200] == expected.masks[0]).mean() > 0.999
    outside = found.masks[0].copy()
    outside[50:110, 80:200] = False
    assert not outside.any()
    assert found.masks.any()


def test_a_crop_that_leaves_the_image_shows_the_mean_colour(sam2_folder, make_image) -> None:
    crops = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=0.5)
    image = make_image(64, 64)
    seen = []
    crops.net.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    [encoding] = crops.encode([image])
    crops.masks(encoding, [boxed(0, 0, 64, 64)])
    [pixels] = seen
    assert pixels.shape == (1, 3, 128, 128)
    assert pixels[0, :, :31].abs().max() < 1e-6
    expected = (torch.from_numpy(image.rgb.copy()).permute(2, 0, 1) / 255 - MEAN) / STD
    torch.testing.assert_close(pixels[0, :, 32:96, 32:96], expected)


def test_windows(sam2_folder, segmenter) -> None:
    crops = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=0.1)
    proposals = [
        boxed(10, 10, 30, 30),
        Proposal("p", points=(Point(1, 1),)),
        boxed(80, 0, 1e9, 20),  # cut to the image before the margin: no gigantic crop
        boxed(500, 500, 600, 600),  # nowhere on the image
    ]
    whole = Window(0, 0, 100, 50)
    assert crops.windows((50, 100), proposals) == [(8, 8, 32, 32), whole, (78, -2, 102, 22), whole]
    assert segmenter.windows((50, 100), proposals) == [whole] * 4


def test_points_alone_get_the_box_of_the_best_mask_of_their_windows(
    sam2_folder, segmenter, make_image
) -> None:
    crops = Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=0.1)
    image = make_image(80, 120)
    asked = Proposal("p", points=(Point(30, 40),))
    located = crops.locate(image, asked)
    scores, boxes = [], []
    for window in point_windows(asked.points, (80, 120)):
        x0, y0, x1, y1 = window
        part = np.ascontiguousarray(image.rgb[y0:y1, x0:x1])
        features = crops.features([(Image(part, ""), Window.whole(part.shape[:2]))])
        point = torch.tensor([[(30 - x0) * 128 / (x1 - x0), (40 - y0) * 128 / (y1 - y0)]])
        for logits, score in zip(
            *(row[0] for row in crops.every_mask(features, point)), strict=True
        ):
            shown = (logits > 0).numpy()
            sides = [shown[:, 0], shown[0], shown[:, -1], shown[-1]]
            inner = [x0 > 0, y0 > 0, x1 < 120, y1 < 80]
            cuts = sum(side.any() and i for side, i in zip(sides, inner, strict=True))
            scores.append(float(score) * 0.8**cuts)
            mask = np.zeros((80, 120), np.bool_)
            paste_logits(logits, window, (80, 120), mask)
            boxes.append(mask_to_box(mask))
    assert located == replace(asked, box=boxes[int(np.argmax(scores))])
    [encoding] = crops.encode([image])
    found, expected = crops.masks(encoding, [asked]), crops.masks(encoding, [located])
    np.testing.assert_array_equal(found.masks, expected.masks)
    unchanged = boxed(1, 2, 30, 40)
    assert crops.locate(image, unchanged) is unchanged
    assert segmenter.locate(image, asked) is asked


def test_windows_around_points() -> None:
    whole = Window(0, 0, 100, 40)
    expected = [
        whole, Window(50, 5, 100, 25), Window(68, 10, 93, 20), Window(74, 12, 86, 17)
    ]  # fmt: skip
    outside = Point(3, 3, positive=False)
    assert point_windows([Point(80, 15), outside], (40, 100)) == expected
    far = [Point(10, 10), Point(55, 12)]  # too far from each other for any smaller window
    assert point_windows(far, (40, 100)) == [whole]
    assert point_windows([outside], (40, 100))[1] == Window(0, 0, 50, 20)


def test_prompts_move_with_the_window() -> None:
    prompt = prompt_points(
        boxed(20, 30, 40, 50, points=(Point(30, 40, positive=False),)), Window(10, 20, 60, 70), 100
    )
    assert prompt == [(20, 20, 2), (60, 60, 3), (40, 40, 0)]


# ---------------------------------------------------------------- the folder's own settings


def test_it_is_a_segmenter_with_a_name(segmenter, sam2_folder) -> None:
    assert isinstance(segmenter, Segmenter)
    assert segmenter.name == f"sam2:{sam2_folder}"
    assert segmenter.preprocessing == Preprocessing(128)


def test_the_folders_mean_std_and_crop_margin_are_used(folder_with, make_image) -> None:
    folder = folder_with({"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "crop_margin": 0.15})
    segmenter = Sam2Segmenter(folder, device="cpu")
    assert segmenter.preprocessing == Preprocessing(128, (0, 0, 0), (1, 1, 1), 0.15)
    assert segmenter.crop_margin == 0.15
    assert Sam2Segmenter(folder, device="cpu", crop_margin=0.5).crop_margin == 0.5
    seen = []
    segmenter.net.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = make_image(128, 128)
    segmenter.masks(segmenter.encode([image])[0], [Proposal("p", points=(Point(1, 1),))])
    torch.testing.assert_close(seen[0][0], torch.tensor(image.rgb.copy()).permute(2, 0, 1) / 255)


def test_the_folders_size_is_used(folder_with, make_image) -> None:
    folder = folder_with({"size": {"height": 64, "width": 64}})
    segmenter = Sam2Segmenter(folder, device="cpu")
    assert segmenter.preprocessing.size == 64
    [encoding] = segmenter.encode([make_image(50, 70)])
    assert [f.shape[-1] for f in encoding.features] == [16, 8, 4]
    assert segmenter.masks(encoding, [boxed(5, 5, 30, 30)]).masks.shape == (1, 50, 70)


def test_settings_nested_as_transformers_5_saves_them(folder_with) -> None:
    folder = folder_with({"image_processor": {"image_mean": [0.5] * 3}}, "processor_config.json")
    assert Sam2Segmenter(folder, device="cpu").preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": {"height": 64, "width": 96}}, "square"),
        ({"size": {"height": 100, "width": 100}}, "multiple of 32"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"crop_margin": -1}, "crop_margin"),
    ],
)
def test_settings_that_cannot_be(folder_with, settings, said) -> None:
    with pytest.raises(ModelUnavailable, match=said):
        Sam2Segmenter(folder_with(settings), device="cpu")


# ---------------------------------------------------------------- loading


def test_weights_stored_as_bfloat16_run_as_float32(sam2_folder, tmp_path, make_image) -> None:
    folder = tmp_path / "bf16"
    shutil.copytree(sam2_folder, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value.bfloat16() for key, value in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    segmenter = Sam2Segmenter(str(folder), device="cpu")
    assert {weight.dtype for weight in segmenter.net.parameters()} == {torch.float32}
    [encoding] = segmenter.encode([make_image(40, 40)])
    assert segmenter.masks(encoding, [boxed(5, 5, 30, 30)]).masks.shape == (1, 40, 40)


def test_weights_that_are_not_finite_or_pickled_are_refused(sam2_folder, tmp_path) -> None:
    folder = Path(shutil.copytree(sam2_folder, tmp_path / "nan"))
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "mask_decoder" in key)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=f"not finite, first {name}"):
        Sam2Segmenter(str(folder), device="cpu")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="holds no safetensors; pickled weights") as caught:
        Sam2Segmenter(str(folder), device="cpu")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("mask_decoder_config.num_hidden_layers", 10**9, "num_hidden_layers 1000000000 is above"),
        ("mask_decoder_config.hidden_size", 10**12, "hidden_size 1000000000000 is above"),
        ("vision_config.backbone_config.blocks_per_stage", [1, 10**400], "blocks_per_stage 1000"),
        ("mask_decoder_config", "none", "cannot be read as SAM 2"),
        ("vision_config.backbone_config", {"model_type": [1]}, "cannot be read as SAM 2"),
    ],
)
def test_absurd_settings_are_refused(sam2_folder, tmp_path, path, value, said) -> None:
    folder = Path(shutil.copytree(sam2_folder, tmp_path / "absurd"))
    config = part = json.loads((folder / "config.json").read_text())
    *parents, last = path.split(".")
    for key in parents:
        part = part[key]
    part[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match=said) as caught:
        Sam2Segmenter(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_folder_of_the_video_model_as_on_the_hub(sam2_folder, tmp_path) -> None:
    folder = tmp_path / "video"
    shutil.copytree(sam2_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"], config["architectures"] = "sam2_video", ["Sam2VideoModel"]
    config["prompt_encoder_config"]["model_type"] = "sam2_video_prompt_encoder"
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights["memory_encoder.projection.weight"] = torch.ones(2, 2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    video, plain = Sam2Segmenter(str(folder), device="cpu"), Sam2Segmenter(str(sam2_folder))
    for key, value in plain.net.state_dict().items():
        assert torch.equal(video.net.state_dict()[key], value.cpu())


def test_a_missing_weight_is_never_made_up(sam2_folder, tmp_path) -> None:
    folder = tmp_path / "holes"
    shutil.copytree(sam2_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"mask_decoder\.iou_token\.weight"):
        Sam2Segmenter(str(folder), device="cpu")


def test_a_truncated_file_is_one_line(sam2_folder, tmp_path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(sam2_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelUnavailable, match="cannot be read as SAM 2") as caught:
        Sam2Segmenter(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_another_kind_of_model_is_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelUnavailable, match="'clip'"):
        Sam2Segmenter(str(tmp_path))


def test_what_is_not_here_names_the_command(tmp_path, monkeypatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise FileNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        ModelUnavailable, match=r"hf download facebook/sam2.1-hiera-tiny$"
    ) as caught:
        Sam2Segmenter("facebook/sam2.1-hiera-tiny")
    assert "\n" not in str(caught.value)
    for path in (tmp_path / "nothing", tmp_path / "nothing.pt"):
        with pytest.raises(ModelUnavailable, match="nothing"):
            Sam2Segmenter(str(path))


@pytest.mark.parametrize("name", ["embeded", "no-such-folder", "./owner/model", "a/b/c"])
def test_what_can_only_be_a_path_is_never_looked_for_on_the_hub(name, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ModelUnavailable, match="there are no SAM 2 weights at"):
        Sam2Segmenter(name)


def test_cached_hub_files_are_used_with_no_request(sam2_folder, monkeypatch) -> None:
    asked = []

    def snapshot(model: str, *, local_files_only: bool, **_: object) -> str:
        asked.append((model, local_files_only))
        return str(sam2_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert Sam2Segmenter("owner/model", device="cpu").name == "sam2:owner/model"
    assert asked == [("owner/model", True)]


def test_embedded_is_the_packaged_folder(sam2_folder, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        "rsvp.registry.embedded_folder", lambda kind: asked.append(kind) or sam2_folder
    )
    assert Sam2Segmenter("embedded", device="cpu").name == "sam2:embedded"
    assert asked == ["segmenter"]


def test_options_that_cannot_be(sam2_folder) -> None:
    with pytest.raises(BadInput, match="crop_margin"):
        Sam2Segmenter(str(sam2_folder), device="cpu", crop_margin=-0.1)
    with pytest.raises(BadInput, match="dtype"):
        Sam2Segmenter(str(sam2_folder), device="cpu", dtype="int8")
    with pytest.raises(BadInput, match="device 'toaster'"):
        Sam2Segmenter(str(sam2_folder), device="toaster")


def test_the_placement_is_logged_with_its_reason(sam2_folder, caplog) -> None:
    with caplog.at_level("INFO", logger="rsvp"):
        Sam2Segmenter(str(sam2_folder), device="cpu")
    assert "cpu (asked), float32 (usual there)" in caplog.text


def test_bfloat16_on_request_is_close(sam2_folder, segmenter, make_image) -> None:
    half = Sam2Segmenter(str(sam2_folder), device="cpu", dtype="bfloat16")
    image = make_image(128, 128)
    [one], [other] = segmenter.encode([image]), half.encode([image])
    for exact, rounded in zip(one.features, other.features, strict=True):
        assert rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).norm() < 0.05 * exact.norm()


@pytest.mark.benchmarks
def test_eight_boxes_in_one_decoder_batch(segmenter, make_image) -> None:
    [encoding] = segmenter.encode([make_image(480, 640)])
    proposals = [boxed(40 * x, 50, 40 * x + 200, 400) for x in range(8)]

    def seconds(calls: list[list[Proposal]]) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            for call in calls:
                segmenter.mask_logits(encoding, call)
            times.append(time.perf_counter() - start)
        return sorted(times)[7]

    together, apart = seconds([proposals]), seconds([[proposal] for proposal in proposals])
    print(
        f"\neight boxes: one batch {1e3 * together:.1f} ms, eight calls {1e3 * apart:.1f} ms, "
        f"ratio {apart / together:.1f}"
    )
    assert apart > together
