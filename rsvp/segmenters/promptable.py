"""What every SAM backend builds on: encode windows, decode prompts in batches."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from rsvp.masks import mask_to_box
from rsvp.platform.devices import choose_placement
from rsvp.segmenters.mask_filter import tight_boxes
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.point_prompts import (
    CUT_OFF,
    MAX_BATCH,
    TOP_LEFT,
    PromptBatch,
    PromptPoint,
    box_on_image,
    decoder_batch_size,
    point_windows,
    prompt_points,
)
from rsvp.segmenters.transforms import Window, margin_box, paste_logits
from rsvp.types import Image, Masks, Proposal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """An image, encoded once, to be prompted many times.

    Attributes:
        image: the image itself.
        features: (1, C, h, w) float32 each, high to low resolution: the two high-resolution levels
            of SAM 2's mask decoder, or HQ-SAM's early features; then the image embedding. Empty for
            a segmenter with a crop margin, which encodes a crop of each box when the boxes are
            known.
    """

    image: Image
    features: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.image.height, self.image.width)


class DecoderOutput(NamedTuple):
    """The mask decoder's output for n proposals, not yet at the image's size.

    Attributes:
        logits: (n, s, s) float32, each covering its proposal's window, or the padded square with
            it; s is `Preprocessing.mask_side`.
        scores: (n,) float32, the predicted IoU.
        presence: (n,) float32, the probability that the label's object is there; None where the
            network does not read labels.
    """

    logits: torch.Tensor
    scores: torch.Tensor
    presence: torch.Tensor | None = None


def best_mask(
    logits: torch.Tensor, scores: torch.Tensor, presence: torch.Tensor | None = None
) -> DecoderOutput:
    """Of m masks each, (n, m, s, s), the one whose predicted IoU, (n, m), is best."""
    rows = torch.arange(len(scores), device=scores.device)
    best = scores.argmax(dim=1)
    return DecoderOutput(logits[rows, best], scores[rows, best], presence)


class PromptableSegmenter(ABC):
    """A `Segmenter` on a network of the SAM 2 family.

    Attributes:
        name: the spec that made it, e.g. ``sam2:embedded``.
        net: the network, float32 weights, in eval mode.
        device, dtype: where it runs, and the dtype of the image encoder's products.
        preprocessing: how its input is made.
        crop_margin: encode a crop of each box, with this margin; None encodes the whole image.
        reads_labels: whether a proposal's label affects its mask.
    """

    reads_labels = False

    @classmethod
    def from_network(
        cls,
        net: Any,
        preprocessing: Preprocessing,
        *,
        name: str = "sam2:network",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Self:
        """Wrap a network in memory, e.g. one in training; it is moved and put into eval mode.

        Raises:
            BadInput: a device that this machine lacks, or an unknown dtype.
        """
        segmenter = cls.__new__(cls)
        segmenter._place(net, preprocessing, name, device, dtype)
        return segmenter

    def _place(
        self,
        net: Any,
        preprocessing: Preprocessing,
        name: str,
        device: str | torch.device | None,
        dtype: str | torch.dtype | None,
    ) -> None:
        """Move the network to its device and set the attributes; subclasses add their own."""
        placement = choose_placement(device, dtype)
        log.info("%s runs on %s", name, placement.reason)
        self.name, self.preprocessing = name, preprocessing
        self.crop_margin = preprocessing.crop_margin
        self.device, self.dtype = placement.device, placement.dtype
        self.net = net.to(self.device).eval()

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        """Encode images, a few in one encoder batch; see `Segmenter`.

        With a crop margin this only keeps the images: crops are encoded when the boxes are known.
        """
        if self.crop_margin is not None:
            return [Encoding(image) for image in images]
        encodings: list[Encoding] = []
        for start in range(0, len(images), MAX_BATCH):
            batch = images[start : start + MAX_BATCH]
            levels = self.features([(i, Window.whole((i.height, i.width))) for i in batch])
            rows = zip(*(level.chunk(len(batch)) for level in levels), strict=True)
            encodings += map(Encoding, batch, rows)
        return encodings

    def masks(self, encoding: Encoding, proposals: Sequence[Proposal]) -> Masks:
        """One mask a proposal, at the image's own size; see `Segmenter`.

        A box is clipped to the image. With a crop margin, points without a box get the box of the
        mask that they give at first, see `locate`.
        """
        proposals = [self.locate(encoding.image, proposal) for proposal in proposals]
        found = self.mask_logits(encoding, proposals)
        windows = self.windows(encoding.image_size, proposals)
        masks = np.zeros((len(proposals), *encoding.image_size), dtype=np.bool_)
        with torch.inference_mode():
            # One at a time: many masks of a large photo need no more than their own bytes.
            for out, logits, window in zip(masks, found.logits, windows, strict=True):
                paste_logits(logits, window, encoding.image_size, out, self.preprocessing.padded)
        presence = None if found.presence is None else found.presence.cpu().numpy()
        return Masks(masks, found.scores.clamp(0, 1).cpu().numpy(), presence)

    def windows(self, image_size: tuple[int, int], proposals: Sequence[Proposal]) -> list[Window]:
        """The part of an image of size (H, W) that the network sees, for each proposal.

        The whole image, unless there is a crop margin and the proposal has a box on the image.
        """
        whole = Window.whole(image_size)
        if self.crop_margin is None:
            return [whole] * len(proposals)
        boxes = [box_on_image(proposal, image_size) for proposal in proposals]
        return [margin_box(box.xyxy, self.crop_margin) if box else whole for box in boxes]

    @torch.inference_mode()
    def locate(self, image: Image, proposal: Proposal) -> Proposal:
        """The proposal; with a crop margin, and points but no box, with a box of what they mean.

        A network that encodes crops sees a small thing best in a small part of the image. So it
        gets several windows around the points, and the box is that of the best mask: by its
        predicted IoU, times `CUT_OFF` for each side where it ends at the border of a window inside
        the image. If that mask is empty there is no box.
        """
        if self.crop_margin is None or proposal.box is not None or not proposal.points:
            return proposal
        size = (image.height, image.width)
        windows = point_windows(proposal.points, size)
        prompts = [self._prompt(proposal, window) for window in windows]
        batch = PromptBatch.stack(prompts, self.device)
        features = self.features([(image, window) for window in windows])
        logits, scores = self._predict(features, batch, multimask=batch.single_point)
        borders = torch.tensor(Window.whole((logits.shape[2], logits.shape[3])), device=self.device)
        ends = tight_boxes(logits.flatten(0, 1) > 0) == borders
        inner = torch.tensor(windows) != torch.tensor(Window.whole(size))
        cuts = ends.view(*scores.shape, 4) & inner.to(self.device)[:, None]
        best = int((scores * CUT_OFF ** cuts.sum(dim=2)).argmax())
        mask = np.zeros(size, dtype=np.bool_)
        window = windows[best // scores.shape[1]]
        paste_logits(logits.flatten(0, 1)[best], window, size, mask, self.preprocessing.padded)
        return replace(proposal, box=mask_to_box(mask))

    @torch.inference_mode()
    def mask_logits(self, encoding: Encoding, proposals: Sequence[Proposal]) -> DecoderOutput:
        """The decoder's output; each square of logits covers its window, see `windows`."""
        side = self.preprocessing.mask_side
        logits = torch.empty(len(proposals), side, side, device=self.device)
        scores = torch.empty(len(proposals), device=self.device)
        presence = torch.empty_like(scores) if self.reads_labels else None
        windows = self.windows(encoding.image_size, proposals)
        boxes = [box_on_image(p, encoding.image_size) or p.box for p in proposals]
        prompts = [
            self._prompt(replace(proposal, box=box), window)
            for proposal, box, window in zip(proposals, boxes, windows, strict=True)
        ]
        batch = decoder_batch_size(side, self.device)
        for start in range(0, len(proposals), batch):
            rows = range(start, min(start + batch, len(proposals)))
            features: Sequence[torch.Tensor] = encoding.features
            if self.crop_margin is not None:
                features = self.features([(encoding.image, windows[row]) for row in rows])
            # The decoder's self-attention has no mask: a padding token would change the masks.
            for kind in dict.fromkeys(_kind(prompts[row]) for row in rows):
                group = [row for row in rows if _kind(prompts[row]) == kind]
                own = features
                if self.crop_margin is not None:
                    own = [level[[row - start for row in group]] for level in features]
                stacked = PromptBatch.stack([prompts[row] for row in group], self.device)
                found = self._decode(own, stacked, [proposals[row].label for row in group])
                logits[group], scores[group] = found.logits, found.scores
                if presence is not None and found.presence is not None:
                    presence[group] = found.presence
        return DecoderOutput(logits, scores, presence)

    def _prompt(self, proposal: Proposal, window: Window) -> list[PromptPoint]:
        """See `prompt_points`."""
        made = self.preprocessing
        return prompt_points(proposal, window, made.size, pad=made.pad)

    @abstractmethod
    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """Features of windows of images, (n, C, h, w) float32 each, high to low resolution."""

    @torch.inference_mode()
    def every_mask(
        self, features: Sequence[torch.Tensor], points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All three masks of each point alone, in one decoder batch.

        Args:
            features: of one view, as `features` gives them.
            points: (n, 2) float32, x, y in pixels of the square input.

        Returns:
            (n, 3, s, s) logits, s the side of masks, and (n, 3) predicted IoUs.
        """
        labels = torch.ones(len(points), 1, dtype=torch.int, device=self.device)
        prompts = PromptBatch(points.to(self.device)[:, None], labels)
        return self._predict(features, prompts, multimask=True)

    def _decode(
        self, features: Sequence[torch.Tensor], prompts: PromptBatch, labels: Sequence[str]
    ) -> DecoderOutput:
        """The masks of N prompts with a label each, which SAM 2 does not read."""
        del labels
        return best_mask(*self._predict(features, prompts, multimask=prompts.single_point))

    @abstractmethod
    def _predict(
        self, features: Sequence[torch.Tensor], prompts: PromptBatch, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, m, s, s) logits and (N, m) predicted IoUs of N prompts.

        Args:
            features: (1, C, h, w) each, which all prompts share, or (N, C, h, w), one row each.
            prompts: all with a box, or all without one.
        """


def _kind(prompt: list[PromptPoint]) -> tuple[int, bool]:
    """What prompts of a batch share: how many points, and whether the first two are a box."""
    return len(prompt), prompt[0][2] == TOP_LEFT
