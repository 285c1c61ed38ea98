"""The segmenters at full size, with random weights: parity with their classes, and time.

    python -m eval.segmenters [--kinds NAME ...] [--images N] [--rounds N]

Parity compares logits and masks of boxes and of points with transformers' own class, on the pixels
of its own processor where that runs (SAM 3's needs torchvision). The class encodes each image a
second time, on one thread more, too: how far it differs from itself by the order of its sums is
printed beside. Seconds of processor time of encoding, of one box and of sixteen boxes, on one
thread, are medians, and ratios to SAM 2.1 tiny, which is measured in turn with each. EdgeTAM needs
timm and torchvision.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from eval._common import make_parser, run
from rsvp import registry
from rsvp.platform.pretrained import transformers
from rsvp.platform.torchvision import torchvision_works
from rsvp.segmenters.networks import KINDS
from rsvp.segmenters.promptable import Encoding, PromptableSegmenter
from rsvp.segmenters.sam2_weights import official_config
from rsvp.segmenters.transforms import Window, paste_logits
from rsvp.types import Box, Image, Point, Proposal

TINY = "sam2 tiny"
COLUMNS = (
    "network", "weights", "encode", "one box", "sixteen boxes", "ratios to tiny",
    "logits differ by", "the class by itself", "pixels", "std", "input by",
)  # fmt: skip
SIZES = ((480, 641), (1001, 333), (97, 1023))  # (H, W) of the images


def edgetam_config() -> Any:
    """The configuration of yonigozlan/EdgeTAM-hf; the class's defaults name another encoder."""
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "num_classes": 1,
        "label_names": ["none"],
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }
    vision = {"model_type": "edgetam_vision_model", "backbone_config": backbone}
    return transformers.EdgeTamConfig(vision_config=vision)


CONFIGS: dict[str, Callable[[], Any]] = {
    TINY: lambda: official_config("tiny"),
    "sam2 large": lambda: official_config("large"),
    "sam3": transformers.Sam3TrackerConfig,
    "sam-hq": transformers.SamHQConfig,  # ViT-B
    "edgetam": edgetam_config,
}


def make_segmenter(name: str) -> PromptableSegmenter:
    """The segmenter of one of `CONFIGS`, with random weights, on the CPU in float32."""
    kind = name.split(maxsplit=1)[0]
    torch.manual_seed(0)
    net = getattr(transformers, KINDS[kind].classes + "Model")(CONFIGS[name]())
    with torch.no_grad():
        for weight in net.parameters():
            fan_in = max(weight[0].numel(), 1) if weight.ndim > 1 else 64
            weight.add_(torch.randn(weight.shape) / fan_in**0.5 / 4)
    factory: Any = registry.load("segmenter", kind)
    made: PromptableSegmenter = factory.from_network(
        net, KINDS[kind].usual, name=f"{kind}:random", device="cpu", dtype="float32"
    )
    return made


def own_inputs(kind: str, image: Image) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Who made the class's input, its pixels, and the scale of x and y (float64, as processors)."""
    made = KINDS[kind].usual
    if kind == "sam-hq":
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        found = SamImageProcessorPil()(image.rgb, return_tensors="pt")
        height, width = found["reshaped_input_sizes"][0].tolist()
        scale = torch.tensor([width / image.width, height / image.height], dtype=torch.float64)
        return "SamImageProcessorPil", found["pixel_values"], scale
    scale = torch.tensor([made.size / image.width, made.size / image.height], dtype=torch.float64)
    if kind == "sam3" and torchvision_works():
        pixels = transformers.Sam3ImageProcessor()(image.rgb, return_tensors="pt")["pixel_values"]
        return "Sam3ImageProcessor", pixels, scale
    values = torch.from_numpy(image.rgb.copy()).permute(2, 0, 1)[None]
    values = values if made.resampling == "uint8" else values.float() / 255
    values = F.interpolate(values, (made.size, made.size), mode="bilinear", antialias=True)
    values = values / 255 if made.resampling == "uint8" else values
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (made.mean, made.std))
    return "its official transform", (values - mean) / std, scale


class Parity(NamedTuple):
    """Largest differences of logits, to the class and of the class to itself, over all prompts."""

    ours: float
    own: float
    pixels: int  # of the masks, at the image's size
    spread: float  # the standard deviation of the logits


@torch.inference_mode()
def parity(name: str, segmenter: PromptableSegmenter, encoding: Encoding, *, twice: bool) -> Parity:
    """Compare the segmenter with its network's class on an image that it has encoded."""
    image = encoding.image
    made = segmenter.preprocessing
    pixels, scale = own_inputs(name.split(maxsplit=1)[0], image)[1:]
    embedded = [_embeddings(segmenter.net, pixels)] * 2
    if twice:
        torch.set_num_threads(2)
        embedded[1] = _embeddings(segmenter.net, pixels)
        torch.set_num_threads(1)
    boxes = [Box(0.1 * k * image.width, 9.5, (0.3 + 0.2 * k) * image.width, 80) for k in range(3)]
    points = (Point(image.width / 3, 40), Point(image.width / 2, 60.5, positive=False))
    xy = scale * torch.tensor([[[[p.x, p.y] for p in points]]], dtype=torch.float64)
    box = scale.repeat(2) * torch.tensor([[one.xyxy for one in boxes]], dtype=torch.float64)
    prompts: list[tuple[list[Proposal], dict[str, Any]]] = [
        ([Proposal("", one) for one in boxes], {"input_boxes": box.float()}),
        (
            [Proposal("", points=points)],
            {"input_points": xy.float(), "input_labels": torch.tensor([[[1, 0]]])},
        ),
    ]
    found = []
    for proposals, prompt in prompts:
        expected, again = (
            segmenter.net(**one, **prompt, multimask_output=False).pred_masks.flatten(0, 2)
            for one in embedded
        )
        logits = segmenter.mask_logits(encoding, proposals).logits
        masks = np.zeros((len(proposals), image.height, image.width), dtype=np.bool_)
        whole = Window.whole((image.height, image.width))
        for one, out in zip(expected, masks, strict=True):
            paste_logits(one, whole, out.shape, out, made.padded)
        off = int((masks != segmenter.masks(encoding, proposals).masks).sum())
        ours, own = (float((one - expected).abs().max()) for one in (logits, again))
        found.append(Parity(ours, own, off, float(expected.std())))
    return worst(found)


def worst(found: Sequence[Parity]) -> Parity:
    """The largest of each difference; the smallest spread."""
    ours, own, pixels, spread = zip(*found, strict=True)
    return Parity(max(ours), max(own), sum(pixels), min(spread))


def _embeddings(net: Any, pixels: torch.Tensor) -> dict[str, Any]:
    """The arguments of the class's forward pass that stand for an image that it has encoded."""
    found = net.get_image_embeddings(pixels)
    if not isinstance(found, tuple):
        return {"image_embeddings": found}
    return {"image_embeddings": found[0], "intermediate_embeddings": found[1]}


def seconds(segmenter: PromptableSegmenter, image: Image) -> tuple[list[float], Encoding]:
    """Processor time of encoding, of one box, of sixteen boxes; and the encoding."""
    boxes = [Proposal("", Box(10 + 9 * i, 20, 200 + 9 * i, 300)) for i in range(16)]
    times = [time.process_time()]
    [encoding] = segmenter.encode([image])
    times.append(time.process_time())
    for proposals in (boxes[:1], boxes):
        segmenter.masks(encoding, proposals)
        times.append(time.process_time())
    return [after - before for before, after in itertools.pairwise(times)], encoding


def measure(args: argparse.Namespace) -> None:
    """Print the parity and the times of each."""
    torch.set_num_threads(1)
    images = [photo_noise(*size) for size in SIZES[: args.images]]
    tiny = make_segmenter(TINY)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in args.kinds:
        try:
            other = tiny if name == TINY else make_segmenter(name)
        except ImportError as error:
            print(f"{name} is left out: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            continue
        rounds = [(seconds(tiny, images[0]), seconds(other, images[0])) for _ in range(args.rounds)]
        base, own = (
            [statistics.median(column) for column in zip(*(r[i][0] for r in rounds), strict=True)]
            for i in (0, 1)
        )
        encodings = [rounds[0][1][1], *(other.encode([image])[0] for image in images[1:])]
        gb = sum(p.numel() for p in other.net.parameters()) * 4 / 1e9
        times = " | ".join(f"{value:.2f} s" for value in own)
        ratios = ", ".join(f"{b / a:.2f}" for a, b in zip(base, own, strict=True))
        same = worst([parity(name, other, one, twice=args.twice) for one in encodings])
        print(
            f"| {name} | {gb:.2f} GB | {times} | {ratios} | {same.ours:.1e} | "
            f"{same.own:.1e} | "
            f"{same.pixels} | {same.spread:.2f} | {own_inputs(name.split()[0], images[0])[0]} |",
            flush=True,
        )
        del other
        gc.collect()


def photo_noise(height: int, width: int) -> Image:
    """Noise of several scales, as photographs have it."""
    rng = np.random.default_rng(height)
    levels = [
        np.kron(rng.integers(0, 256, (height // s + 1, width // s + 1, 3)), np.ones((s, s, 1)))
        for s in (1, 8, 64)
    ]
    mean = sum(level[:height, :width] for level in levels) / len(levels)
    return Image(np.asarray(mean).astype(np.uint8), "0" * 64)


def main() -> int:
    parser = make_parser("segmenters", __doc__)
    parser.add_argument("--kinds", nargs="+", choices=tuple(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--images", type=int, default=len(SIZES), choices=(1, 2, 3))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--twice", action="store_true", help="compare the class with itself too")
    return run(measure, parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
