"""The segmenters at full size, with random weights: parity with their classes, and time.

    python -m eval.segmenters [--kinds NAME ...] [--rounds N] [--threads N]

Parity compares logits of a box and of points with a forward pass of transformers' own class, on the
pixels of its own processor where that runs (SAM 3's needs torchvision). Times of encoding, of one
box and of sixteen boxes are medians, and ratios to SAM 2.1 tiny, which is measured in turn with
each. EdgeTAM needs timm and torchvision.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from eval._common import make_parser, run
from rsvp import registry
from rsvp.platform.pretrained import transformers
from rsvp.platform.torchvision import torchvision_works
from rsvp.segmenters.networks import KINDS
from rsvp.segmenters.promptable import PromptableSegmenter
from rsvp.segmenters.sam2_weights import official_config
from rsvp.types import Box, Image, Point, Proposal

TINY = "sam2 tiny"
HEIGHT, WIDTH = 480, 641


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
    """Who made the class's input, its pixels, and the scale of x and y."""
    made = KINDS[kind].usual
    if kind == "sam-hq":
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        found = SamImageProcessorPil()(image.rgb, return_tensors="pt")
        height, width = found["reshaped_input_sizes"][0].tolist()
        scale = torch.tensor([width / image.width, height / image.height])
        return "SamImageProcessorPil", found["pixel_values"], scale
    scale = torch.tensor([made.size / image.width, made.size / image.height])
    if kind == "sam3" and torchvision_works():
        pixels = transformers.Sam3ImageProcessor()(image.rgb, return_tensors="pt")["pixel_values"]
        return "Sam3ImageProcessor", pixels, scale
    values = torch.from_numpy(image.rgb.copy()).permute(2, 0, 1)[None]
    values = values if made.resampling == "uint8" else values.float() / 255
    values = F.interpolate(values, (made.size, made.size), mode="bilinear", antialias=True)
    values = values / 255 if made.resampling == "uint8" else values
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (made.mean, made.std))
    return "its official transform", (values - mean) / std, scale


@torch.inference_mode()
def parity(name: str, segmenter: Any, image: Image) -> str:
    """The largest difference of logits, and how many pixels of the masks differ."""
    kind = name.split(maxsplit=1)[0]
    who, pixels, scale = own_inputs(kind, image)
    box, points = Box(50, 60, 400, 300), (Point(200, 100), Point(90, 300, positive=False))
    prompts: list[tuple[Proposal, dict[str, Any]]] = [
        (Proposal("", box), {"input_boxes": torch.tensor([[box.xyxy]]) * scale.repeat(2)}),
        (
            Proposal("", points=points),
            {
                "input_points": torch.tensor([[[[p.x, p.y] for p in points]]]) * scale,
                "input_labels": torch.tensor([[[1, 0]]]),
            },
        ),
    ]
    [encoding] = segmenter.encode([image])
    worst, pixels_off, spread = 0.0, 0, 0.0
    for proposal, prompt in prompts:
        expected = segmenter.net(pixel_values=pixels, multimask_output=False, **prompt)
        logits = segmenter.mask_logits(encoding, [proposal]).logits
        theirs = expected.pred_masks.flatten(0, 2)
        worst = max(worst, float((logits - theirs).abs().max()))
        spread = max(spread, float(theirs.std()))
        pixels_off += int(((logits > 0) != (theirs > 0)).sum())
    return f"logits differ by {worst:.1e} (std {spread:.2f}), {pixels_off} pixels, input by {who}"


def seconds(segmenter: PromptableSegmenter, image: Image) -> tuple[float, float, float]:
    """Of encoding, of one box, of sixteen boxes."""
    boxes = [Proposal("", Box(10 + 9 * i, 20, 200 + 9 * i, 300)) for i in range(16)]
    times = [time.perf_counter()]
    [encoding] = segmenter.encode([image])
    times.append(time.perf_counter())
    for proposals in (boxes[:1], boxes):
        segmenter.masks(encoding, proposals)
        times.append(time.perf_counter())
    encode, one, sixteen = (after - before for before, after in itertools.pairwise(times))
    return encode, one, sixteen


def measure(args: argparse.Namespace) -> None:
    """Print the parity and the times of each."""
    torch.set_num_threads(args.threads)
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = Image(rgb, "0" * 64)
    tiny = make_segmenter(TINY)
    print("| network | weights | encode | one box | sixteen boxes | ratios to tiny | parity |")
    print("|---|---|---|---|---|---|---|")
    for name in args.kinds:
        try:
            other = tiny if name == TINY else make_segmenter(name)
        except ImportError as error:
            print(f"{name} is left out: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            continue
        same = parity(name, other, image)
        rounds = [(seconds(tiny, image), seconds(other, image)) for _ in range(args.rounds)]
        base, own = (
            [statistics.median(column) for column in zip(*(r[i] for r in rounds), strict=True)]
            for i in (0, 1)
        )
        gb = sum(p.numel() for p in other.net.parameters()) * 4 / 1e9
        times = " | ".join(f"{value:.2f} s" for value in own)
        ratios = ", ".join(f"{b / a:.2f}" for a, b in zip(base, own, strict=True))
        print(f"| {name} | {gb:.2f} GB | {times} | {ratios} | {same} |", flush=True)
        del other
        gc.collect()


def main() -> int:
    parser = make_parser("segmenters", __doc__)
    parser.add_argument("--kinds", nargs="+", choices=tuple(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return run(measure, parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
