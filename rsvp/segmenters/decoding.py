"""Between proposals and a SAM 2 mask decoder: what every backend of that network shares.

The official image predictor's rules (https://github.com/facebookresearch/sam2): a box is prompted
as its two corners, followed by the points; one point alone is ambiguous, so that of three masks the
one with the best predicted IoU is taken; every other prompt asks for a single mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from rsvp.segmenters.crops import Window, paste_logits
from rsvp.types import Box, Image, Masks, Proposal

_T = TypeVar("_T")

# Proposals (and crops) that go through the network at once; bounds memory, not results.
CHUNK = 32
_CHANNELS = 32  # of the mask decoder's largest feature map, in the official networks
_KEPT_BYTES = 32 << 20  # an array below this glibc keeps for the next one, when it is freed
TOP_LEFT, BOTTOM_RIGHT = 2, 3  # the prompt encoder's labels of a box's corners


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """An image, encoded once, to be prompted many times.

    Attributes:
        image: the image itself.
        features: (1, C, h, w) float32 each, high to low resolution: the two high-resolution levels
            that the mask decoder adds, then the image embedding. Empty where the segmenter looks
            at a crop of each box, which is encoded when the box is known.
    """

    image: Image
    features: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.image.height, self.image.width)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A proposal as the prompt encoder takes it.

    Attributes:
        coords: x, y in pixels of the model's square input.
        labels: 1 on the target, 0 off it, 2 and 3 the corners of a box; one for each pair.
    """

    coords: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]

    @property
    def ambiguous(self) -> bool:
        """One point and nothing else."""
        return len(self.labels) == 1


class Decoded(NamedTuple):
    """The mask decoder's answer to n proposals, before it is brought to the image's size.

    Attributes:
        logits: (n, s, s) float32, each spread over its proposal's window; s is a quarter of the
            input size.
        scores: (n,) float32, the predicted IoU.
        presence: (n,) float32, the probability that what the label names is there; None where the
            network does not read labels.
    """

    logits: torch.Tensor
    scores: torch.Tensor
    presence: torch.Tensor | None = None


def prompt_in(proposal: Proposal, window: Window, size: int) -> Prompt:
    """A proposal's box corners and points, in a window that is shown as a square of `size`."""
    pairs: list[tuple[float, float]] = []
    labels: list[int] = []
    if proposal.box is not None:
        pairs += [(proposal.box.x0, proposal.box.y0), (proposal.box.x1, proposal.box.y1)]
        labels += [TOP_LEFT, BOTTOM_RIGHT]
    for point in proposal.points:
        pairs.append((point.x, point.y))
        labels.append(int(point.positive))
    sx, sy = size / window.width, size / window.height
    coords = tuple(((x - window.x0) * sx, (y - window.y0) * sy) for x, y in pairs)
    return Prompt(coords, tuple(labels))


def prompt_tensors(
    prompts: Sequence[Prompt], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, P, 2) float32 coordinates and (N, P) integer labels of prompts of one length."""
    coords = torch.tensor([prompt.coords for prompt in prompts], device=device)
    return coords, torch.tensor([prompt.labels for prompt in prompts], device=device)


def best_of(
    logits: torch.Tensor, scores: torch.Tensor, presence: torch.Tensor | None = None
) -> Decoded:
    """Of m masks each, (n, m, s, s), the one whose predicted IoU, (n, m), is best."""
    every = torch.arange(len(scores), device=scores.device)
    best = scores.argmax(dim=1)
    return Decoded(logits[every, best], scores[every, best], presence)


def to_masks(found: Decoded, windows: Sequence[Window], image_size: tuple[int, int]) -> Masks:
    """The decoder's answer at the image's own size, (H, W).

    Logits are brought to that size one mask at a time, so that many masks of a large photo need no
    more than their own bytes.

    Args:
        windows: the part of the image that each square of logits is spread over.
    """
    masks = np.zeros((len(windows), *image_size), dtype=np.bool_)
    with torch.inference_mode():
        for out, square, window in zip(masks, found.logits, windows, strict=True):
            paste_logits(square, window, image_size, out)
    presence = None if found.presence is None else found.presence.cpu().numpy()
    return Masks(masks, found.scores.clamp(0, 1).cpu().numpy(), presence)


def alike(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Positions of the prompts that fit in one decoder batch as they are.

    Not padded to one length: the decoder's self-attention has no mask, so that a padding token,
    zero as it is, would change a proposal's mask with the company that it keeps.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for position, prompt in enumerate(prompts):
        groups[len(prompt.labels)].append(position)
    return list(groups.values())


def on_image(box: Box | None, image_size: tuple[int, int]) -> Box | None:
    """The part of a box that lies on the image, None where there is none."""
    if box is None:
        return None
    height, width = image_size
    x0, y0, x1, y1 = max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height)
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def cut_to(proposal: Proposal, image_size: tuple[int, int]) -> Proposal:
    """The proposal with its box cut to the image; a box wholly outside stays as it is."""
    box = on_image(proposal.box, image_size) or proposal.box
    return Proposal(proposal.label, box, proposal.points, proposal.raw)


def batch_size(input_size: int, device: torch.device, most: int = CHUNK) -> int:
    """How many prompts go through the mask decoder at once, at most `most`.

    On a CPU only so many that its feature maps are reused from one to the next: larger ones the
    system gives and takes back each time, page by page, which costs more than a batch saves.

    Args:
        input_size: side of the network's square input; the largest map has a quarter of it.
    """
    if device.type != "cpu":
        return most
    each = 4 * _CHANNELS * (input_size // 4) ** 2
    return max(1, min(most, (_KEPT_BYTES - 1) // each))


def chunks(items: Sequence[_T], size: int = CHUNK) -> Iterator[Sequence[_T]]:
    """The items, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def encode_whole(
    images: Sequence[Image],
    features: Callable[[Sequence[tuple[Image, Window]]], Sequence[torch.Tensor]],
) -> list[Encoding]:
    """Encodings of whole images, a few in one pass of the encoder.

    Args:
        features: of windows of images, (n, C, h, w) a level.
    """
    found: list[Encoding] = []
    for chunk in chunks(images):
        views = [(image, Window.whole((image.height, image.width))) for image in chunk]
        levels = features(views)
        found += [
            Encoding(image, tuple(level[i : i + 1] for level in levels))
            for i, image in enumerate(chunk)
        ]
    return found
