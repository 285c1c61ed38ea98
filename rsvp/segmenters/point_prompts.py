"""Proposals as prompts of a mask decoder of the SAM family.

The rules of the official image predictor (https://github.com/facebookresearch/sam2): a box becomes
its two corners, followed by the points. One point alone is ambiguous, so the decoder gives three
masks and the one with the best predicted IoU is taken. Every other prompt gives a single mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rsvp.masks import clip_box
from rsvp.segmenters.transforms import Window, content_size
from rsvp.types import Box, Point, Proposal

TOP_LEFT, BOTTOM_RIGHT = 2, 3  # the prompt encoder's labels of a box's corners

ZOOMS = (
    1.0,
    0.5,
    0.25,
    0.125,
)  # windows around points without a box, as shares of the image's sides
CUT_OFF = 0.8  # what the predicted IoU counts for each side where the window cuts a mask off
MAX_BATCH = 32  # proposals (or crops) in one batch of the network; bounds memory, not results
_CHANNELS = 32  # of the mask decoder's largest feature map, in the official networks
_REUSED_BYTES = 32 << 20  # glibc keeps freed arrays below this size for the next allocation


# x, y in pixels of the model's square input, and the label: 1 positive, 0 negative, 2 and 3 the
# corners of a box.
PromptPoint = tuple[float, float, int]


def prompt_points(
    proposal: Proposal, window: Window, size: int, *, pad: bool = False
) -> list[PromptPoint]:
    """A proposal's box corners, then its points, in a window resized to a square of `size`."""
    pixels = [(point.x, point.y, int(point.positive)) for point in proposal.points]
    if box := proposal.box:
        pixels = [(box.x0, box.y0, TOP_LEFT), (box.x1, box.y1, BOTTOM_RIGHT), *pixels]
    height, width = content_size(window, size, pad=pad)
    sx, sy = width / window.width, height / window.height
    return [((x - window.x0) * sx, (y - window.y0) * sy, label) for x, y, label in pixels]


def point_windows(points: Sequence[Point], image_size: tuple[int, int]) -> list[Window]:
    """The image of size (H, W), then smaller windows in it, around the positive points.

    A window has a share of the image's sides, `ZOOMS`; one too small for the points is left out.
    """
    height, width = image_size
    chosen = [point for point in points if point.positive] or points
    x0, x1 = min(p.x for p in chosen), max(p.x for p in chosen)
    y0, y1 = min(p.y for p in chosen), max(p.y for p in chosen)
    windows = []
    for share in ZOOMS:
        w, h = max(1, round(share * width)), max(1, round(share * height))
        left = min(max(round((x0 + x1 - w) / 2), 0), width - w)
        top = min(max(round((y0 + y1 - h) / 2), 0), height - h)
        if share == 1 or (x1 - x0 < w / 2 and y1 - y0 < h / 2):
            windows.append(Window(left, top, left + w, top + h))
    return windows


class PromptBatch(NamedTuple):
    """N prompts of one length, in pixels of the model's square input.

    Attributes:
        coords: (N, P, 2) xy.
        labels: (N, P): 1 positive, 0 negative, 2 and 3 the corners of a box, which come first.
    """

    coords: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def stack(cls, prompts: Sequence[list[PromptPoint]], device: torch.device) -> PromptBatch:
        """Prompts of one length as tensors."""
        coords = [[(x, y) for x, y, _ in prompt] for prompt in prompts]
        labels = [[label for _, _, label in prompt] for prompt in prompts]
        return cls(torch.tensor(coords, device=device), torch.tensor(labels, device=device))

    @property
    def single_point(self) -> bool:
        """Whether each prompt is one point and nothing else, which is ambiguous."""
        return self.labels.shape[1] == 1

    def boxes(self, size: int) -> torch.Tensor:
        """(N, 4) xyxy relative to the view, 0 to 1; the whole view where there are only points."""
        whole = self.coords.new_tensor([0.0, 0.0, 1.0, 1.0])
        if self.single_point:
            return whole.expand(len(self.coords), -1)
        # A box and a pair of points have the same length, so one batch may hold both.
        has_box = self.labels[:, :1] == TOP_LEFT
        return torch.where(has_box, self.coords[:, :2].flatten(1) / size, whole)


def box_on_image(proposal: Proposal, image_size: tuple[int, int]) -> Box | None:
    """The part of a proposal's box that lies on the image, None where there is none."""
    height, width = image_size
    return proposal.box and clip_box(proposal.box.xyxy, Box(0, 0, width, height))


def decoder_batch_size(mask_side: int, device: torch.device, most: int = MAX_BATCH) -> int:
    """The number of prompts in one batch of the mask decoder, at most `most`.

    On a CPU its feature maps stay below the size that the allocator reuses: the system maps larger
    ones anew each time, page by page, which costs more than a larger batch saves.

    Args:
        mask_side: of the square logits, and of the largest map.
    """
    if device.type != "cpu":
        return most
    each = 4 * _CHANNELS * mask_side**2
    return max(1, min(most, (_REUSED_BYTES - 1) // each))
