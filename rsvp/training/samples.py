"""Training samples: an image or a crop that is encoded once, and the proposals on it.

Boxes have the errors of a multimodal LLM's boxes: they are shifted and scaled, snapped to the bands
of a grid, or drawn around two objects. Negative texts name another object of the image, or nothing
in it. If the segmenter encodes crops, a sample has one box with several texts; if it encodes whole
images, a sample has several boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from rsvp.errors import BadInput
from rsvp.frames import bands_to_box, box_to_bands
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.transforms import Window, crop_to_square, margin_box
from rsvp.training.config import BOX_STYLES, SamplingConfig, TrainConfig
from rsvp.training.data import AnnotatedImage, Annotation, ImageSource
from rsvp.types import BoolMask, Box

# An object counts as inside a box from this fraction of its pixels on, as outside up to that one.
INSIDE, OUTSIDE = 0.5, 0.1
GRID, BAND_PADDING = (9, 9), 0.2  # the bands of the paper's visual prompt
MIN_SIDE = 4.0  # pixels of a plausible box
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class TrainingProposal:
    """A box or a point with a text, and the object that should be segmented."""

    box: Box
    text: str
    target: Annotation | None  # None if the text names nothing in the box
    point: tuple[float, float] | None = None  # xy in pixels, the prompt instead of the box


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """The tensors of a view, S x S pixels, and the P proposals on it."""

    pixels: Tensor = field(repr=False)  # (3, S, S) float32, normalised
    points: Tensor  # (P, K, 2) float32 xy in pixels of the view: corners of the boxes, or a point
    texts: tuple[str, ...]  # P of them; an empty one is no text
    # (P, S / 2, S / 2) float32, the covered fraction of each pixel: twice the resolution of the
    # decoder's logits, so that thin parts count.
    targets: Tensor = field(repr=False)
    present: Tensor  # (P,) bool, whether the text names something in the box
    index: int = 0  # of the image that was asked for
    broken: tuple[str, ...] = ()  # the images that were skipped instead, each with its cause
    keep: bool = False  # see `AnnotatedImage`


def draw_box(style: str, annotation: Annotation, image: AnnotatedImage, rng: Rng) -> Box:
    """A box for an object as a model might propose it; ``shared`` includes another object."""
    box = annotation.box
    if style in ("near", "jittered"):
        spread = 0.03 if style == "near" else 0.08 if rng.random() < 0.7 else 0.16
        box = _jittered(box, rng.normal(0, spread, 4))
    elif style == "bands":
        rows, columns = box_to_bands(box, grid=GRID, image_size=image.size)
        return bands_to_box(rows, columns, grid=GRID, image_size=image.size, padding=BAND_PADDING)
    elif style == "shared" and (others := image.with_other_names(annotation)):
        # Close objects are confused more often than distant ones.
        others.sort(key=lambda other: np.hypot(*np.subtract(box.center, other.box.center)))
        other = others[min(int(rng.geometric(0.6)) - 1, len(others) - 1)].box
        box = Box(
            min(box.x0, other.x0), min(box.y0, other.y0),
            max(box.x1, other.x1), max(box.y1, other.y1),
        )  # fmt: skip
    return _clipped(box, image.size)


def _jittered(box: Box, shifts: np.ndarray) -> Box:
    """Each side shifted by a fraction of the box's extent, with at least `MIN_SIDE` between."""
    extent = np.array([box.width, box.height] * 2)
    x0, y0, x1, y1 = (box.xyxy + shifts * extent).tolist()
    return Box(x0, y0, max(x1, x0 + MIN_SIDE), max(y1, y0 + MIN_SIDE))


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    """Clipped to an (H, W) image, at least a pixel long."""
    height, width = size
    x0, y0 = min(max(box.x0, 0.0), width - 1.0), min(max(box.y0, 0.0), height - 1.0)
    return Box(x0, y0, max(min(box.x1, width), x0 + 1), max(min(box.y1, height), y0 + 1))


class ProposalSampler:
    """Draws `config.proposals` proposals on one image; `source` gives texts for negatives."""

    def __init__(self, image: AnnotatedImage, source: ImageSource, config: SamplingConfig) -> None:
        self.image, self.source, self.config = image, source, config

    def boxes(self, box_rng: Rng, text_rng: Rng, *, one_box: bool) -> list[TrainingProposal]:
        """Box prompts; boxes and texts are drawn independently.

        With `one_box`, all proposals share one box, because the view is a crop around it.
        """
        image, config = self.image, self.config
        fractions = [getattr(config, style) for style in BOX_STYLES]
        found: list[TrainingProposal] = []
        while len(found) < config.proposals:
            annotation = image.annotations[int(box_rng.integers(len(image.annotations)))]
            style = str(box_rng.choice(BOX_STYLES, p=fractions))
            box = draw_box(style, annotation, image, box_rng)
            if not one_box:
                absent = text_rng.random() < config.absent
                found.append(self._with_text(annotation, box, text_rng, absent=absent))
                continue
            others = image.with_other_names(annotation)
            inside = [annotation, *(o for o in others if o.fraction_inside(box) >= INSIDE)]
            for number in range(config.proposals):
                # First every object in the box is asked for once.
                absent = number >= len(inside) and text_rng.random() < config.absent
                named = inside[number % len(inside)]
                found.append(self._with_text(named, box, text_rng, absent=absent))
        return found

    def points(self, rng: Rng) -> list[TrainingProposal]:
        """Single points on objects; the view is the whole image."""
        found = []
        for _ in range(self.config.proposals):
            annotation = self.image.annotations[int(rng.integers(len(self.image.annotations)))]
            ys, xs = np.nonzero(annotation.mask)
            pixel = int(rng.integers(len(ys)))
            absent = rng.random() < self.config.absent / 2
            proposal = self._with_text(annotation, annotation.box, rng, absent=absent)
            found.append(replace(proposal, point=(float(xs[pixel]) + 0.5, float(ys[pixel]) + 0.5)))
        return found

    def _with_text(
        self, annotation: Annotation, box: Box, rng: Rng, *, absent: bool
    ) -> TrainingProposal:
        """A text for the box; with `absent`, one that names nothing in it, if there is one."""
        if absent and (text := self._negative_text(box, rng)) is not None:
            return TrainingProposal(box, text, None)
        others = [a for a in self.image.annotations if a is not annotation]
        if rng.random() < self.config.wordless and all(
            other.fraction_inside(box) < INSIDE for other in others
        ):
            return TrainingProposal(box, "", annotation)  # the box alone says what is meant
        text = annotation.texts[0]
        if rng.random() < self.config.other_names and len(annotation.texts) > 1:
            other_name = annotation.texts[int(rng.integers(1, len(annotation.texts)))]
            same = [other for other in others if other_name in other.texts]
            if not any(other.fraction_inside(box) > OUTSIDE for other in same):
                text = other_name
        return TrainingProposal(box, text, annotation)

    def _negative_text(self, box: Box, rng: Rng) -> str | None:
        """A text that names nothing in the box: of another object here, or of another image."""
        annotations = self.image.annotations
        inside = {t for a in annotations if a.fraction_inside(box) > OUTSIDE for t in a.texts}
        elsewhere = [a.texts[0] for a in annotations if a.texts[0] not in inside]
        if elsewhere and rng.random() < 0.5:
            return elsewhere[int(rng.integers(len(elsewhere)))]
        for _ in range(20):
            text = self.source.random_text(rng)
            if text.strip() and text not in inside:
                return text
        return None


class TrainingDataset(Dataset[TrainingSample]):
    """Training samples by position: a position gives the same sample in every process.

    With `fixed`, an image has the same boxes and pixels in every epoch, so that its features can
    be cached; the texts still differ.
    """

    def __init__(
        self,
        source: ImageSource,
        preprocessing: Preprocessing,
        config: TrainConfig,
        *,
        fixed: bool = False,
    ) -> None:
        self.source, self.preprocessing, self.fixed = source, preprocessing, fixed
        self.config, self.seed, self.batch = config.mix, config.seed, config.batch
        self._permutation: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def image_index(self, position: int) -> int:
        """The image at position 0, 1, … of the training: each once per epoch, shuffled."""
        epoch, place = divmod(position, len(self.source))
        if self._permutation[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch, 1])
            self._permutation = (epoch, rng.permutation(len(self.source)))
        return int(self._permutation[1][place])

    def __getitem__(self, position: int) -> TrainingSample:
        """The sample; a broken image is skipped for the next one. BadInput if all are broken."""
        first = self.image_index(position)
        broken: list[str] = []
        for offset in range(len(self.source)):
            index = (first + offset) % len(self.source)
            try:
                sample = self._sample(index, position)
            except Exception as error:  # whatever is wrong with a file, the training continues
                broken.append(f"image {index}: {' '.join(str(error).split())}")
            else:
                return replace(sample, index=first, broken=tuple(broken))
        raise BadInput(f"no image can be used; the first: {broken[0]}")

    def __getitems__(self, positions: Sequence[int]) -> list[TrainingSample] | BadInput:
        """The samples of a batch; an error is returned, since a worker would add its traceback."""
        try:
            return [self[position] for position in positions]
        except BadInput as error:
            return error

    def _sample(self, index: int, position: int) -> TrainingSample:
        epoch = position // len(self.source)
        box_rng = np.random.default_rng([self.seed, index, 0 if self.fixed else epoch, 2])
        text_rng = np.random.default_rng([self.seed, index, epoch, 3])
        image = self.source[index]
        sampler = ProposalSampler(image, self.source, self.config)
        if self.uses_points(position):
            proposals = sampler.points(text_rng)
        else:
            crops = self.preprocessing.crop_margin is not None
            proposals = sampler.boxes(box_rng, text_rng, one_box=crops)
        return make_sample(image, proposals, self.preprocessing, self._color_jitter(box_rng))

    def uses_points(self, position: int) -> bool:
        """Whether the step of this position is prompted by points."""
        step = position // self.batch
        chance = np.random.default_rng([self.seed, step, 4]).random()
        return not self.fixed and bool(chance < self.config.points)

    def _color_jitter(self, rng: Rng) -> tuple[float, float, float]:
        """Contrast, brightness and saturation."""
        drawn = self.config.recolor * rng.uniform((-0.5, -1, -0.2), (0.5, 0.6, 0.2))
        contrast, saturation, brightness = drawn.tolist()
        return 1 + contrast, brightness, 1 + saturation


def make_sample(
    image: AnnotatedImage,
    proposals: Sequence[TrainingProposal],
    preprocessing: Preprocessing,
    color_jitter: tuple[float, float, float] = (1.0, 0.0, 1.0),
) -> TrainingSample:
    """The tensors of proposals on an image, or on the crop around their one box.

    Args:
        color_jitter: contrast, brightness and saturation.
    """
    size = preprocessing.size
    window = Window.whole(image.size)
    if preprocessing.crop_margin is not None and proposals[0].point is None:
        window = margin_box(proposals[0].box.xyxy, preprocessing.crop_margin)
    square, _ = crop_to_square(
        image.rgb,
        tuple(map(float, window)),
        0.0,
        size,
        fill=preprocessing.mean,
        resampling=preprocessing.resampling,
    )
    contrast, brightness, saturation = color_jitter
    grey = square.mean(0, keepdim=True)
    square = ((grey + (square - grey) * saturation) * contrast + brightness).clamp_(0, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    scale = np.array([size / window.width, size / window.height])
    points = np.array([p.point or p.box.xyxy for p in proposals]).reshape(len(proposals), -1, 2)
    points -= np.array([window.x0, window.y0])
    nothing = torch.zeros(size // 2, size // 2)
    targets = [
        nothing if p.target is None else downsampled_mask(p.target.mask, window, size // 2)
        for p in proposals
    ]
    return TrainingSample(
        (square - mean) / std,
        torch.from_numpy(points * scale).float(),
        tuple(p.text for p in proposals),
        torch.stack(targets),
        torch.tensor([p.target is not None for p in proposals]),
        keep=image.keep,
    )


def downsampled_mask(mask: BoolMask, window: Window, side: int) -> Tensor:
    """(side, side) float32: the fraction of each cell of a window that an (H, W) mask covers."""
    full = torch.zeros(1, 1, window.height, window.width)
    part = window.clip((mask.shape[0], mask.shape[1]))
    rows = slice(part.y0 - window.y0, part.y1 - window.y0)
    columns = slice(part.x0 - window.x0, part.x1 - window.x0)
    crop = np.ascontiguousarray(mask[part.y0 : part.y1, part.x0 : part.x1])
    full[0, 0, rows, columns] = torch.from_numpy(crop).float()
    return F.interpolate(full, (side, side), mode="bilinear", antialias=True)[0, 0]
