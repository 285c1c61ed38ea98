"""`sam3:`, `sam-hq:` and `edgetam:` on small random networks against their own classes.

SAM's processor runs without torchvision; SAM 3's is used where it works, and elsewhere the same
steps are written out.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_sams import SAVE, save_sam3

from rsvp import registry
from rsvp.errors import MissingExtra, ModelUnavailable
from rsvp.platform.pretrained import transformers
from rsvp.platform.torchvision import torchvision_works
from rsvp.segmenters.automatic import automatic_masks
from rsvp.segmenters.mask_filter import AutomaticSettings
from rsvp.segmenters.transforms import Window, content_size, crop_to_square
from rsvp.types import Box, Point, Proposal

KINDS = tuple(SAVE)
SIZES = ((96, 160), (211, 75), (64, 64))
BOX = Box(5, 6, 50, 45)
PROMPTS = {
    "box": Proposal("thing", BOX),
    "point": Proposal("thing", points=(Point(30, 40),)),
    "points": Proposal("thing", points=(Point(30, 40), Point(60, 20, positive=False))),
    "box and point": Proposal("thing", BOX, (Point(30, 40),)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {kind: save(tmp_path_factory.mktemp(kind)) for kind, save in SAVE.items()}


@pytest.fixture(scope="module")
def segmenters(folders) -> dict:
    return {
        kind: registry.make("segmenter", f"{kind}:{folder}", device="cpu")
        for kind, folder in folders.items()
    }


def processor(kind: str, folder: str):
    """The class's own processor, or None.

    SAM 3's needs torchvision. SAM 2's, which EdgeTAM has, resizes in 8 bits: the official EdgeTAM
    does so in float32.
    """
    if kind == "sam-hq":
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        return transformers.SamHQProcessor(SamImageProcessorPil.from_pretrained(folder))
    if kind == "edgetam" or not torchvision_works():
        return None
    images = transformers.Sam3ImageProcessor.from_pretrained(folder)
    return transformers.Sam3TrackerProcessor(images)


def written_out(segmenter, image, proposal: Proposal) -> dict:
    """What `Sam2Processor` and `Sam3TrackerProcessor` make of an image and a prompt."""
    made = segmenter.preprocessing
    pixels = torch.from_numpy(image.rgb.copy()).permute(2, 0, 1)[None]
    pixels = pixels if made.resampling == "uint8" else pixels.float() / 255
    pixels = F.interpolate(pixels, (made.size, made.size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (made.mean, made.std))
    scale = torch.tensor([made.size / image.width, made.size / image.height])
    pixels = pixels / 255 if made.resampling == "uint8" else pixels
    inputs = {"pixel_values": (pixels - mean) / std}
    if proposal.box:
        inputs["input_boxes"] = torch.tensor([[proposal.box.xyxy]]) * scale.repeat(2)
    if proposal.points:
        points = [[p.x, p.y] for p in proposal.points]
        inputs["input_points"] = torch.tensor([[points]]) * scale
        inputs["input_labels"] = torch.tensor([[[int(p.positive) for p in proposal.points]]])
    return inputs


def reference(segmenter, image, proposal) -> tuple[torch.Tensor, np.ndarray]:
    """The class's own logits, (s, s), and mask, (H, W); of a single point's masks the best."""
    own = processor(*segmenter.name.split(":"))
    size = (image.height, image.width)
    if own is None:
        inputs = written_out(segmenter, image, proposal)
    else:
        prompt = {}
        if proposal.box:
            prompt["input_boxes"] = [[list(proposal.box.xyxy)]]
        if proposal.points:
            prompt["input_points"] = [[[[p.x, p.y] for p in proposal.points]]]
            prompt["input_labels"] = [[[int(p.positive) for p in proposal.points]]]
        inputs = dict(own(images=image.rgb, return_tensors="pt", **prompt))
        inputs |= {
            key: inputs[key].float() for key in inputs if key in ("input_boxes", "input_points")
        }
    sizes = [inputs.pop(k) for k in ("original_sizes", "reshaped_input_sizes") if k in inputs]
    single = proposal.box is None and len(proposal.points) == 1
    with torch.inference_mode():
        found = segmenter.net(**inputs, multimask_output=single)
    best = found.iou_scores[0, 0].argmax()
    logits = found.pred_masks[0, :, best : best + 1]
    if own is None:
        mask = F.interpolate(logits, size, mode="bilinear", align_corners=False) > 0
    else:
        mask = own.post_process_masks([logits], *sizes)[0]
    return logits[0, 0], np.asarray(mask)[0, 0]


@pytest.mark.parametrize(("prompt", "size"), list(itertools.product(PROMPTS, SIZES)))
@pytest.mark.parametrize("kind", KINDS)
def test_the_class_itself_gives_the_same(kind, prompt, size, segmenters, make_image) -> None:
    segmenter, image, proposal = segmenters[kind], make_image(*size), PROMPTS[prompt]
    expected, mask = reference(segmenter, image, proposal)
    [encoding] = segmenter.encode([image])
    logits, *_ = segmenter.mask_logits(encoding, [proposal])
    torch.testing.assert_close(logits[0], expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(segmenter.masks(encoding, [proposal]).masks[0], mask)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_images_and_prompts_gives_what_each_gives_alone(
    kind, segmenters, make_image
) -> None:
    segmenter, images = segmenters[kind], [make_image(*size) for size in SIZES]
    for image, encoding in zip(images, segmenter.encode(images), strict=True):
        together = segmenter.mask_logits(encoding, list(PROMPTS.values())).logits
        for row, proposal in enumerate(PROMPTS.values()):
            [own] = segmenter.encode([image])
            alone = segmenter.mask_logits(own, [proposal]).logits[0]
            torch.testing.assert_close(together[row], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_margin_encodes_the_crop_alone(kind, folders, make_image) -> None:
    segmenter = registry.make("segmenter", f"{kind}:{folders[kind]}", device="cpu", crop_margin=0.2)
    image = make_image(160, 200)
    [encoding] = segmenter.encode([image])
    found = segmenter.masks(encoding, [Proposal("thing", Box(50, 50, 100, 90)), PROMPTS["point"]])
    assert not found.masks[0, :, :40].any()
    assert not found.masks[0, 98:].any()
    assert found.masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_automatic_masks_have_the_best_mask_of_each_point(kind, segmenters, make_image) -> None:
    segmenter, image = segmenters[kind], make_image(90, 150)
    found = automatic_masks(
        segmenter, image, AutomaticSettings(3, min_iou=0, min_stability=0, overlap=1)
    )
    [encoding] = segmenter.encode([image])
    points = [Point(x, y) for y in (15, 45, 75) for x in (25, 75, 125)]
    best = segmenter.masks(encoding, [Proposal("p", points=(point,)) for point in points]).masks
    every = {mask.unpack().tobytes() for mask in found.masks}
    assert 9 < len(found) <= 27
    assert all(mask.tobytes() in every for mask in best if mask.any())


def test_hq_sam_keeps_the_aspect_ratio_and_pads(make_image) -> None:
    image = make_image(90, 150)
    window = Window.whole((90, 150))
    square, _ = crop_to_square(
        image.rgb, window, 0.0, 64, fill=(0.5,) * 3, pad=True, resampling="pillow"
    )
    assert content_size(window, 64, pad=True) == (38, 64)
    assert (square[:, 38:] == 0.5).all()
    assert not (square[:, :38] == 0.5).all()


def test_hq_sam_upscales_what_its_transformer_returns(segmenters, make_image) -> None:
    segmenter, returned, upscaled = segmenters["sam-hq"], [], []
    decoder = segmenter.net.mask_decoder
    hooks = [
        decoder.transformer.register_forward_hook(lambda *made: returned.append(made[2][1])),
        decoder.upscale_conv1.register_forward_hook(lambda *made: upscaled.append(made[1][0])),
    ]
    [encoding] = segmenter.encode([make_image(90, 150)])
    segmenter.mask_logits(encoding, [PROMPTS["box"]])
    for hook in hooks:
        hook.remove()
    [keys], [image] = returned, upscaled
    torch.testing.assert_close(image.flatten(2).transpose(1, 2), keys[0], atol=0, rtol=0)


def test_sam3_adds_its_embedding_for_no_memory(segmenters, make_image) -> None:
    segmenter, image = segmenters["sam3"], make_image(90, 150)
    [before] = segmenter.encode([image])
    segmenter.net.no_memory_embedding.data.add_(1)
    [after] = segmenter.encode([image])
    segmenter.net.no_memory_embedding.data.sub_(1)
    torch.testing.assert_close(after.features[-1], before.features[-1] + 1)


# ---------------------------------------------------------------- folders


def test_the_tracker_alone_is_read_of_a_folder_with_the_video_model(folders, segmenters) -> None:
    weights = load_file(folders["sam3"] / "model.safetensors")
    net = segmenters["sam3"].net
    assert type(net).__name__ == "Sam3TrackerModel"
    decoder, neck = "mask_decoder.conv_s0.weight", "fpn_layers.0.proj1.weight"
    assert torch.equal(net.state_dict()[decoder], weights[f"tracker_model.{decoder}"])
    assert torch.equal(net.vision_encoder.neck.state_dict()[neck], weights[f"tracker_neck.{neck}"])


def test_a_folder_may_name_another_image_size(tmp_path, make_image) -> None:
    folder = save_sam3(tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 56, "width": 56}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    segmenter = registry.make("segmenter", f"sam3:{folder}", device="cpu")
    [encoding] = segmenter.encode([make_image(40, 60)])
    assert segmenter.mask_logits(encoding, [PROMPTS["box"]]).logits.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("kind", "of", "message"),
    [
        ("sam2", "sam3", "names a model of type 'sam3_video', not 'sam2'"),
        ("sam3", "sam-hq", "names a model of type 'sam_hq', not 'sam3_tracker'"),
        ("sam-hq", "sam3", "cannot be read as HQ-SAM"),
        ("edgetam", "sam-hq", "cannot be read as EdgeTAM"),
    ],
)
def test_another_kinds_folder_is_refused(kind, of, message, folders) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        registry.make("segmenter", f"{kind}:{folders[of]}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["embedded", "/nowhere/weights.pt"])
def test_what_only_sam2_reads_is_refused(kind, model) -> None:
    with pytest.raises(ModelUnavailable, match=f"{kind} reads hub ids and folders"):
        registry.make("segmenter", f"{kind}:{model}")


def test_hq_sam_of_another_size_is_refused(folders, tmp_path) -> None:
    for file in folders["sam-hq"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 128}}')
    with pytest.raises(ModelUnavailable, match="weights are for images of 64 pixels, found 128"):
        registry.make("segmenter", f"sam-hq:{tmp_path}")


def test_missing_weights_are_refused(tmp_path) -> None:
    folder = save_sam3(tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "conv_s1" not in k},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelUnavailable, match="it lacks weights, first mask_decoder"):
        registry.make("segmenter", f"sam3:{folder}")


@pytest.mark.skipif(torchvision_works(), reason="transformers may find timm")
def test_edgetam_without_timm_names_what_to_install(folders, tmp_path) -> None:
    settings = json.loads((folders["edgetam"] / "config.json").read_text())
    settings["vision_config"].pop("backbone_config")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MissingExtra, match=r"EdgeTAM needs .*rsvp-segmentation\[vision\]"):
        registry.make("segmenter", f"edgetam:{tmp_path}")
