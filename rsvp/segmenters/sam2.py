"""SAM 2: transformers' `Sam2Model` behind the `Segmenter` protocol; its rules: `decoding`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from rsvp.errors import BadInput
from rsvp.platform.devices import choose_placement
from rsvp.segmenters.crops import Window, crop_to_square, margin_box
from rsvp.segmenters.decoding import (
    BOTTOM_RIGHT,
    TOP_LEFT,
    Decoded,
    Encoding,
    Prompt,
    alike,
    batch_size,
    best_of,
    chunks,
    cut_to,
    encode_whole,
    on_image,
    prompt_in,
    prompt_tensors,
    to_masks,
)
from rsvp.segmenters.weights import Preprocessing, checked_margin, load_sam2
from rsvp.types import Image, Masks, Proposal

if TYPE_CHECKING:
    from transformers import Sam2Model

__all__ = [
    "BOTTOM_RIGHT",
    "TOP_LEFT",
    "Decoded",
    "Encoding",
    "Prompt",
    "Sam2Segmenter",
    "best_of",
    "crop_to_square",
    "margin_box",
    "prompt_in",
]

log = logging.getLogger(__name__)


class Sam2Segmenter:
    """SAM 2 from a hub id, a folder, an official `.pt` file, or ``embedded``.

    Attributes:
        name: ``sam2:`` and the model.
        net: the network, float32 weights, in eval mode.
        preprocessing: how its images are made.
        reads_labels: whether a proposal's label has a say in its mask.
    """

    reads_labels = False

    def __init__(
        self,
        model: str,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        crop_margin: float | None = None,
    ) -> None:
        """Load the weights.

        Args:
            device: e.g. ``cuda``; the best one here by default.
            dtype: of the image encoder's products: bfloat16 on CUDA and float32 elsewhere by
                default. The mask decoder, cheap and sensitive, always computes in float32.
            crop_margin: look at a crop of each box, larger by this share of the box on each side;
                by default what the folder's `preprocessor_config.json` says, else the whole image.

        Raises:
            ModelUnavailable: no such weights, or not SAM 2's.
            BadInput: a device that is not here, an unknown dtype, a negative margin.
        """
        net, preprocessing = load_sam2(model)
        if crop_margin is not None:
            preprocessing = replace(preprocessing, crop_margin=_margin(crop_margin))
        self._set_up(net, preprocessing, name=f"sam2:{model}", device=device, dtype=dtype)

    @classmethod
    def from_network(
        cls,
        net: Sam2Model,
        preprocessing: Preprocessing,
        *,
        name: str = "sam2:network",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Sam2Segmenter:
        """Wrap a network in memory, e.g. one in training; it is moved and put into eval mode."""
        segmenter = cls.__new__(cls)
        segmenter._set_up(net, preprocessing, name=name, device=device, dtype=dtype)
        return segmenter

    def _set_up(
        self,
        net: Sam2Model,
        preprocessing: Preprocessing,
        *,
        name: str,
        device: str | torch.device | None,
        dtype: str | torch.dtype | None,
    ) -> None:
        self.name = name
        self.preprocessing = preprocessing
        self.crop_margin = preprocessing.crop_margin
        placement = choose_placement(device, dtype)
        log.info("%s runs on %s", name, placement.reason)
        self.device, self.dtype = placement.device, placement.dtype
        self.net = net
        module: torch.nn.Module = net  # transformers' own methods are untyped
        module.to(self.device).eval()
        self._mean = torch.tensor(preprocessing.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self.device).view(3, 1, 1)

    # ------------------------------------------------------------ the protocol

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        """Encode images, all in one encoder batch; see `Segmenter`.

        With a crop margin this only keeps the images: crops are encoded when the boxes are known.
        """
        if self.crop_margin is not None:
            return [Encoding(image) for image in images]
        return encode_whole(images, self.features)

    def masks(self, encoding: Encoding, proposals: Sequence[Proposal]) -> Masks:
        """One mask a proposal, at the image's own size; see `Segmenter`.

        A box is cut to the part that lies on the image.
        """
        found = self.mask_logits(encoding, proposals)
        windows = self.windows(encoding.image_size, proposals)
        return to_masks(found, windows, encoding.image_size)

    # ------------------------------------------------------------ one level below

    def windows(self, image_size: tuple[int, int], proposals: Sequence[Proposal]) -> list[Window]:
        """The part of an image of size (H, W) that the network looks at, for each proposal.

        The whole image, unless there is a crop margin and the proposal has a box on the image.
        """
        whole = Window.whole(image_size)
        if self.crop_margin is None:
            return [whole] * len(proposals)
        boxes = [on_image(proposal.box, image_size) for proposal in proposals]
        return [whole if b is None else margin_box(b.xyxy, self.crop_margin) for b in boxes]

    @torch.inference_mode()
    def mask_logits(self, encoding: Encoding, proposals: Sequence[Proposal]) -> Decoded:
        """The decoder's answer; each square of logits is spread over its window, see `windows`."""
        side = self.preprocessing.size // 4
        logits = torch.empty(len(proposals), side, side, device=self.device)
        scores = torch.empty(len(proposals), device=self.device)
        presence = torch.empty_like(scores) if self.reads_labels else None
        windows = self.windows(encoding.image_size, proposals)
        prompts = [
            prompt_in(cut_to(proposal, encoding.image_size), window, self.preprocessing.size)
            for proposal, window in zip(proposals, windows, strict=True)
        ]
        batch = batch_size(self.preprocessing.size, self.device)
        for rows in chunks(range(len(proposals)), batch):
            crops = self.crop_margin is not None
            views = [(encoding.image, windows[row]) for row in rows] if crops else []
            features = self.features(views) if crops else list(encoding.features)
            for places in alike([prompts[row] for row in rows]):
                group = [rows[place] for place in places]
                own = [level[places] for level in features] if crops else features
                labels = [proposals[row].label for row in group]
                found = self._decode(own, [prompts[row] for row in group], labels)
                logits[group], scores[group] = found.logits, found.scores
                if presence is not None and found.presence is not None:
                    presence[group] = found.presence
        return Decoded(logits, scores, presence)

    @torch.inference_mode()
    def features(self, views: Sequence[tuple[Image, Window]]) -> list[torch.Tensor]:
        """Features of windows of images, (n, C, h, w) float32 each, high to low resolution."""
        squares = [
            crop_to_square(
                image.rgb, window, 0.0, self.preprocessing.size, fill=self.preprocessing.mean
            )[0]
            for image, window in views
        ]
        pixels = torch.stack(squares).to(self.device).sub_(self._mean).div_(self._std)
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            return [level.float() for level in self.net.get_image_embeddings(pixels)]

    @torch.inference_mode()
    def every_mask(
        self, features: Sequence[torch.Tensor], points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All three masks of each point alone, in one decoder batch.

        Args:
            features: of one view, as `features` gives them.
            points: (n, 2) float32, x, y in pixels of the square input.

        Returns:
            (n, 3, s, s) logits, s a quarter of the input size, and (n, 3) predicted IoUs.
        """
        found = self.net(
            image_embeddings=list(features),
            input_points=points.to(self.device)[None, :, None],
            input_labels=torch.ones(1, len(points), 1, dtype=torch.int, device=self.device),
            multimask_output=True,
        )
        return found.pred_masks[0], found.iou_scores[0]

    def _decode(
        self, features: Sequence[torch.Tensor], prompts: Sequence[Prompt], labels: Sequence[str]
    ) -> Decoded:
        """Prompts of one shape, on features that they share or on one row of features each.

        Args:
            labels: one a prompt; SAM 2 does not read them.
        """
        del labels
        coords, kinds = self._tensors(prompts)
        # (images, prompts of each, points of each, 2)
        across = 0 if len(features[-1]) == 1 else 1
        found = self.net(
            image_embeddings=list(features),
            input_points=coords.unsqueeze(across),
            input_labels=kinds.unsqueeze(across),
            multimask_output=prompts[0].ambiguous,
        )
        return best_of(found.pred_masks.flatten(0, 1), found.iou_scores.flatten(0, 1))

    def _tensors(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, P, 2) coordinates and (N, P) labels of prompts of one shape."""
        return prompt_tensors(prompts, self.device)


def _margin(margin: float) -> float:
    try:
        return checked_margin(margin)
    except ValueError as error:
        raise BadInput(str(error)) from error
