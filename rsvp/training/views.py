"""From a picture to a training sample: a view that is encoded once, and the proposals on it.

Boxes are as wrong as a multimodal LLM's: moved and scaled, snapped to the bands of a grid, or drawn
around two things at once. Texts are as wrong as they can be: what another thing in the picture is
called, what nothing in it is. A segmenter that looks at crops sees one box a view, with several
texts; one that looks at whole images sees several boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsvp.errors import BadInput
from rsvp.frames import bands_to_box, box_to_bands
from rsvp.segmenters.sam2_weights import Preprocessing
from rsvp.segmenters.transforms import Window, crop_to_square, margin_box
from rsvp.training.pictures import Picture, Pictures, Thing
from rsvp.types import BoolMask, Box

INSIDE, OUTSIDE = 0.5, 0.1  # a thing is in a box with this share of its pixels; out of it below
GRID, BAND_PADDING = (9, 9), 0.2  # the bands of the paper's visual prompt
SMALLEST = 4.0  # pixels; a shorter side is no box that anybody would propose
Rng = np.random.Generator
STYLES = ("clean", "near", "jittered", "bands", "shared")


@dataclass(frozen=True, slots=True)
class Mix:
    """How samples are drawn.

    Attributes:
        clean, near, jittered, bands, shared: shares of the box styles, which sum to 1: exact, off
            by some 3 % of its extent, by 8 % or 16 %, snapped to bands, around two things.
        proposals: of one view.
        absent: share of the proposals that may be negatives, which are.
        wordless: share of the boxes that come without any text.
        other_names: share of the texts that are a group, a keyword, another phrase.
        points: share of the steps whose prompts are single points instead of boxes.
        recolor: how much brightness, contrast and saturation vary, 0 to 1.
    """

    clean: float = 0.15
    near: float = 0.15
    jittered: float = 0.25
    bands: float = 0.2
    shared: float = 0.25
    proposals: int = 4
    absent: float = 0.5
    wordless: float = 0.08
    other_names: float = 0.2
    points: float = 0.1
    recolor: float = 0.5

    def style(self, rng: Rng) -> str:
        """A box style."""
        return str(rng.choice(STYLES, p=[getattr(self, style) for style in STYLES]))


@dataclass(frozen=True, slots=True)
class Ask:
    """A proposal and its truth: the box and the text that go in, the thing that should come out.

    Attributes:
        thing: None where nothing in the box is what the text names.
        point: xy in pixels; given instead of the box, which then only says what is meant.
    """

    box: Box
    text: str
    thing: Thing | None
    point: tuple[float, float] | None = None

    @property
    def spots(self) -> tuple[tuple[float, float], ...]:
        """What the prompt encoder is given, xy in pixels: a point, or the corners of the box."""
        x0, y0, x1, y1 = self.box.xyxy
        return ((x0, y0), (x1, y1)) if self.point is None else (self.point,)


@dataclass(frozen=True, slots=True)
class View:
    """What is encoded once, and the P proposals on it.

    Attributes:
        pixels: (3, S, S) float32, normalised.
        spots: (P, K, 2) float32 xy in pixels of the square: two corners of each box, or a point.
        texts: P of them; an empty one says nothing.
        targets: (P, s, s) float32, the share of each place that is target; s = S / 2, twice as fine
            as the decoder's logits, so that what is thin counts.
        present: (P,) bool, whether the text names something in the box.
        broken: the pictures passed over to get here, each with its cause.
        keep: SAM 2's own masks are the truth, see `Picture`.
    """

    pixels: Tensor = field(repr=False)
    spots: Tensor
    texts: tuple[str, ...]
    targets: Tensor = field(repr=False)
    present: Tensor
    broken: tuple[str, ...] = ()
    keep: bool = False


def draw_box(
    style: str,
    thing: Thing,
    others: Sequence[Thing],
    size: tuple[int, int],
    rng: Rng,
) -> Box:
    """A box for a thing as it might be proposed.

    Args:
        style: one of `STYLES`; ``shared`` is drawn around the thing and one of the others.
        size: (H, W) of the image.
    """
    box = thing.box
    if style in ("near", "jittered"):
        spread = 0.03 if style == "near" else 0.08 if rng.random() < 0.7 else 0.16
        box = _moved(box, rng.normal(0, spread, 4))
    elif style == "bands":
        rows, columns = box_to_bands(box, grid=GRID, image_size=size)
        return bands_to_box(rows, columns, grid=GRID, image_size=size, padding=BAND_PADDING)
    elif style == "shared" and others:
        # Things nearby are confused more often than things far away.
        near = sorted(others, key=lambda other: _distance(box, other.box))
        other = near[min(int(rng.geometric(0.6)) - 1, len(near) - 1)].box
        box = Box(
            min(box.x0, other.x0), min(box.y0, other.y0),
            max(box.x1, other.x1), max(box.y1, other.y1),
        )  # fmt: skip
    return _on(box, size)


def draw_text(
    box: Box, thing: Thing, scene: tuple[Picture, Pictures, Mix], rng: Rng, *, absent: bool
) -> Ask:
    """A text for a box that was drawn for a thing.

    Args:
        scene: the picture, where it is from, and how samples are drawn.
        absent: look for a text that names nothing in the box; else it names the thing, or
            something else that the box holds as well.
    """
    picture, pictures, mix = scene
    if absent:
        text = _absent_text(box, picture, pictures, rng)
        if text is not None:
            return Ask(box, text, None)
    if rng.random() < mix.wordless and _alone(thing, box, picture):
        return Ask(box, "", thing)
    if rng.random() < mix.other_names and len(thing.texts) > 1:
        text = thing.texts[int(rng.integers(1, len(thing.texts)))]
        if not any(text in other.texts for other in _others_in(box, thing, picture)):
            return Ask(box, text, thing)
    return Ask(box, thing.texts[0], thing)


def held(thing: Thing, box: Box) -> float:
    """The share of a thing's pixels whose centres are in the box."""
    x0, y0 = max(0, round(box.x0)), max(0, round(box.y0))
    inside = np.count_nonzero(thing.mask[y0 : round(box.y1), x0 : round(box.x1)])
    return float(inside / np.count_nonzero(thing.mask))


def asks(
    picture: Picture,
    pictures: Pictures,
    mix: Mix,
    boxes: Rng,
    texts: Rng,
    *,
    one_box: bool,
) -> list[Ask]:
    """The proposals of a view, `mix.proposals` of them.

    Args:
        boxes, texts: what the boxes and the texts are drawn by.
        one_box: all share one box, because the view is a crop around it.
    """
    found: list[Ask] = []
    scene = (picture, pictures, mix)
    while len(found) < mix.proposals:
        thing = picture.things[int(boxes.integers(len(picture.things)))]
        others = [other for other in picture.things if other.texts[0] != thing.texts[0]]
        size = (picture.rgb.shape[0], picture.rgb.shape[1])
        box = draw_box(mix.style(boxes), thing, others, size, boxes)
        named = [thing, *(o for o in others if held(o, box) >= INSIDE)] if one_box else [thing]
        for turn in range(mix.proposals if one_box else 1):
            # With one box: every thing in it is asked for once, then it is up to chance.
            absent = turn >= len(named) and texts.random() < mix.absent
            absent = absent or (not one_box and texts.random() < mix.absent)
            who = named[turn % len(named)]
            found.append(draw_text(box, who, scene, texts, absent=absent))
    return found[: mix.proposals]


def point_asks(picture: Picture, pictures: Pictures, mix: Mix, rng: Rng) -> list[Ask]:
    """As `asks`, prompted by a point on each thing; the whole picture is the view."""
    found = []
    for _ in range(mix.proposals):
        thing = picture.things[int(rng.integers(len(picture.things)))]
        ys, xs = np.nonzero(thing.mask)
        pixel = int(rng.integers(len(ys)))
        absent = rng.random() < mix.absent / 2
        ask = draw_text(thing.box, thing, (picture, pictures, mix), rng, absent=absent)
        found.append(replace(ask, point=(float(xs[pixel]) + 0.5, float(ys[pixel]) + 0.5)))
    return found


class Views:
    """Training samples by position: the same position gives the same sample, in any process.

    Args:
        batch: samples a step; all of one step are prompted by boxes, or all by points.
        seed: of everything that is drawn.
        fixed: whether a picture's boxes and pixels are the same in every pass, so that its features
            can be kept; texts are drawn anew in every pass.
    """

    def __init__(
        self,
        pictures: Pictures,
        preprocessing: Preprocessing,
        mix: Mix,
        *,
        batch: int,
        seed: int,
        fixed: bool = False,
    ) -> None:
        self.pictures, self.preprocessing, self.mix = pictures, preprocessing, mix
        self.batch, self.seed, self.fixed = batch, seed, fixed
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def index(self, position: int) -> int:
        """Which picture position 0, 1, … of the training takes: each once a pass, shuffled."""
        turn, place = divmod(position, len(self.pictures))
        if self._order[0] != turn:
            rng = np.random.default_rng([self.seed, turn, 1])
            self._order = (turn, rng.permutation(len(self.pictures)))
        return int(self._order[1][place])

    def __getitem__(self, position: int) -> View:
        """The sample; a broken picture is passed over for the next one, and named.

        Raises:
            BadInput: every picture is broken.
        """
        index = self.index(position)
        broken: list[str] = []
        for step in range(len(self.pictures)):
            chosen = (index + step) % len(self.pictures)
            try:
                picture = self.pictures[chosen]
                return self._view(picture, chosen, position, tuple(broken))
            except Exception as error:  # hostile files: whatever is wrong is named and counted
                broken.append(f"picture {chosen}: {' '.join(str(error).split())}")
        raise BadInput(f"no picture can be used; the first: {broken[0]}")

    def _view(self, picture: Picture, index: int, position: int, broken: tuple[str, ...]) -> View:
        turn = position // len(self.pictures)
        boxes = np.random.default_rng([self.seed, index, 0 if self.fixed else turn, 2])
        texts = np.random.default_rng([self.seed, index, turn, 3])
        if self.pointed(position):
            asked = point_asks(picture, self.pictures, self.mix, texts)
        else:
            crops = self.preprocessing.crop_margin is not None
            asked = asks(picture, self.pictures, self.mix, boxes, texts, one_box=crops)
        return make_view(picture, asked, self.preprocessing, self._recolor(boxes), broken)

    def pointed(self, position: int) -> bool:
        """Whether the step that this position is part of is prompted by points."""
        step = position // self.batch
        chance = np.random.default_rng([self.seed, step, 4]).random()
        return not self.fixed and bool(chance < self.mix.points)

    def _recolor(self, rng: Rng) -> tuple[float, float, float]:
        """Gain, lift and saturation."""
        much = self.mix.recolor
        gain, color = 1 + much * rng.uniform(-0.5, 0.5), 1 + much * rng.uniform(-1, 0.6)
        return gain, much * rng.uniform(-0.2, 0.2), color


def make_view(
    picture: Picture,
    asked: Sequence[Ask],
    preprocessing: Preprocessing,
    recolor: tuple[float, float, float] = (1.0, 0.0, 1.0),
    broken: tuple[str, ...] = (),
) -> View:
    """The tensors of a view: a crop around the proposals' one box, or the whole picture."""
    size = preprocessing.size
    window = Window.whole((picture.rgb.shape[0], picture.rgb.shape[1]))
    if preprocessing.crop_margin is not None and asked[0].point is None:
        window = margin_box(asked[0].box.xyxy, preprocessing.crop_margin)
    square, _ = crop_to_square(
        picture.rgb, tuple(map(float, window)), 0.0, size, fill=preprocessing.mean
    )
    gain, lift, color = recolor
    grey = square.mean(0, keepdim=True)
    square = ((grey + (square - grey) * color) * gain + lift).clamp_(0, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    scale = np.array([size / window.width, size / window.height])
    spots = (np.array([ask.spots for ask in asked]) - np.array([window.x0, window.y0])) * scale
    return View(
        (square - mean) / std,
        torch.from_numpy(spots).float(),
        tuple(ask.text for ask in asked),
        torch.stack([_target(ask.thing, window, size // 2) for ask in asked]),
        torch.tensor([ask.thing is not None for ask in asked]),
        broken,
        picture.keep,
    )


def _target(thing: Thing | None, window: Window, side: int) -> Tensor:
    if thing is None:
        return torch.zeros(side, side)
    return shrink(thing.mask, window, side)


def shrink(mask: BoolMask, window: Window, side: int) -> Tensor:
    """(side, side) float32: the share of each place of a window that an (H, W) mask covers."""
    truth = torch.zeros(1, 1, window.height, window.width)
    seen = window.clip((mask.shape[0], mask.shape[1]))
    rows = slice(seen.y0 - window.y0, seen.y1 - window.y0)
    columns = slice(seen.x0 - window.x0, seen.x1 - window.x0)
    cut = np.ascontiguousarray(mask[seen.y0 : seen.y1, seen.x0 : seen.x1])
    truth[0, 0, rows, columns] = torch.from_numpy(cut).float()
    return F.interpolate(truth, (side, side), mode="bilinear", antialias=True)[0, 0]


def _absent_text(box: Box, picture: Picture, pictures: Pictures, rng: Rng) -> str | None:
    """A text that names nothing in the box, of another thing here or of another picture."""
    inside = {text for t in picture.things if held(t, box) > OUTSIDE for text in t.texts}
    elsewhere = [t.texts[0] for t in picture.things if t.texts[0] not in inside]
    if elsewhere and rng.random() < 0.5:
        return elsewhere[int(rng.integers(len(elsewhere)))]
    for _ in range(20):
        text = pictures.other_text(rng)
        if text.strip() and text not in inside:
            return text
    return None


def _others_in(box: Box, thing: Thing, picture: Picture) -> list[Thing]:
    return [t for t in picture.things if t is not thing and held(t, box) > OUTSIDE]


def _alone(thing: Thing, box: Box, picture: Picture) -> bool:
    """Whether the box says by itself which thing is meant."""
    return all(held(other, box) < INSIDE for other in _others_in(box, thing, picture))


def _moved(box: Box, shares: np.ndarray) -> Box:
    """Each side moved by a share of the box's extent; never turned inside out."""
    dx0, dy0, dx1, dy1 = (float(share) for share in shares)
    x0, y0 = box.x0 + dx0 * box.width, box.y0 + dy0 * box.height
    x1, y1 = box.x1 + dx1 * box.width, box.y1 + dy1 * box.height
    return Box(x0, y0, max(x1, x0 + SMALLEST), max(y1, y0 + SMALLEST))


def _on(box: Box, size: tuple[int, int]) -> Box:
    """Cut to the image."""
    height, width = size
    x0, y0 = min(max(box.x0, 0.0), width - 1.0), min(max(box.y0, 0.0), height - 1.0)
    return Box(x0, y0, max(min(box.x1, width), x0 + 1), max(min(box.y1, height), y0 + 1))


def _distance(a: Box, b: Box) -> float:
    """Between the boxes' centres, in pixels."""
    (ax, ay), (bx, by) = a.center, b.center
    return float(np.hypot(ax - bx, ay - by))
