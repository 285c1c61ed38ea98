"""What flows through the pipeline: frozen values, checked once, at construction.

Coordinates are pixels of the upright image (EXIF orientation applied), x to the right, y down,
origin at the top-left corner of the top-left pixel; a box is xyxy. Masks are (H, W) bool.
"""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput

BoolMask = NDArray[np.bool_]
RgbArray = NDArray[np.uint8]


class ComparedByContent:
    """Equality and hashing of dataclasses that hold arrays, by the fields that are compared."""

    __slots__ = ()

    def _content(self) -> tuple[Any, ...]:
        values = (getattr(self, f.name) for f in fields(self) if f.compare)  # type: ignore[arg-type]
        return tuple(
            (v.shape, str(v.dtype), v.tobytes()) if isinstance(v, np.ndarray) else v for v in values
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, ComparedByContent):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())


@dataclass(frozen=True, slots=True)
class PackedMask:
    """An (H, W) bool mask as compressed bits: some kB, where an array has a byte for each pixel.

    Attributes:
        size: (H, W).
        area: how many of its pixels are True.
    """

    size: tuple[int, int]
    area: int
    bits: bytes = field(repr=False)

    @classmethod
    def pack(cls, mask: BoolMask) -> PackedMask:
        """The mask, packed; BadInput unless it is (H, W) bool."""
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise BadInput(f"a mask is (H, W) bool, found {mask.shape} {mask.dtype}")
        bits = zlib.compress(np.packbits(mask).data, 1)
        return cls((mask.shape[0], mask.shape[1]), int(np.count_nonzero(mask)), bits)

    def unpack(self) -> BoolMask:
        """The mask as a new (H, W) bool array."""
        bits = np.frombuffer(zlib.decompress(self.bits), dtype=np.uint8)
        pixels = np.unpackbits(bits, count=self.size[0] * self.size[1])
        return pixels.view(np.bool_).reshape(self.size)


def union_of(masks: Iterable[PackedMask], size: tuple[int, int]) -> BoolMask:
    """(H, W) bool, what any of the masks covers; all False where there are none."""
    union = np.zeros(size, dtype=np.bool_)
    for mask in masks:
        union |= mask.unpack()
    return union


@dataclass(frozen=True, slots=True)
class Image:
    """An upright RGB image. Made by `rsvp.images.load_image`, never by hand.

    Two are equal where they have the same bytes and path.

    Attributes:
        rgb: (H, W, 3) uint8.
        sha256: hex digest of the source bytes (of the raw pixels when there was no file).
        path: where it came from, or None.
    """

    rgb: RgbArray = field(repr=False, compare=False)
    sha256: str
    path: str | None = None

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise BadInput(
                f"an image is an (H, W, 3) uint8 array, found {self.rgb.shape} {self.rgb.dtype}"
            )
        if 0 in self.rgb.shape:
            raise BadInput(f"the image is empty: {self.rgb.shape}")

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])


@dataclass(frozen=True, slots=True)
class Box:
    """An xyxy box in pixels; `x0 < x1` and `y0 < y1`, all finite."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in self.xyxy):
            raise BadInput(f"a box needs four finite numbers, found {self.xyxy}")
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise BadInput(f"a box is x0,y0,x1,y1 with x0 < x1 and y0 < y1, found {self.xyxy}")

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return (self.x0, self.y0, self.x1, self.y1)

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return self.width * self.height

    def intersection(self, other: Box) -> Box | None:
        """The part that both boxes share; None where that has no area."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    @property
    def center(self) -> tuple[float, float]:
        return ((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)


@dataclass(frozen=True, slots=True)
class Point:
    """A click in pixels; `positive` is False for "not this"."""

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y)):
            raise BadInput(f"a point needs two finite numbers, found {(self.x, self.y)}")


@dataclass(frozen=True, slots=True)
class Mention:
    """An object that a step of a reasoning path, or its answer, names.

    Attributes:
        label: what it is called there; may be empty.
        number: of its proposal, from 1, the same wherever it returns; None where it has no usable
            place.
    """

    label: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the chain of thought, with the boxes that it names.

    Attributes:
        objects: of a reasoning path, see `Reasoning.answer`.
    """

    text: str
    boxes: tuple[Box, ...] = ()
    objects: tuple[Mention, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where stage 1 says a target is: a box, points, or both; or, ready, its very pixels.

    Attributes:
        label: what the model calls it; may be empty, never None.
        raw: the numbers as the model wrote them, in its own frame, for debugging.
        mask: where the pixels are known already; the segmenter is not asked then.
        score: of such a mask, 0 to 1.
    """

    label: str
    box: Box | None = None
    points: tuple[Point, ...] = ()
    raw: tuple[float, ...] = ()
    mask: PackedMask | None = field(default=None, repr=False, compare=False)
    score: float | None = None

    def __post_init__(self) -> None:
        if self.box is None and not self.points:
            raise BadInput("a proposal needs a box or at least one point")


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What stage 1 concluded. No proposals means that the model said: not in this image.

    Attributes:
        understood: False when the model said that it cannot read images of this sort at all, or
            that it does not know words of the query, or found nothing in an image that is unlike
            those that it was trained on.
        unknown_words: these words.
        warnings: what was odd about the reply, a line each.
        answer: of a reasoning path, whose proposals are all objects that it names, each once, in
            the order in which they come; None where there is no path.
        answer_objects: those that are the answer.
    """

    steps: tuple[Step, ...]
    proposals: tuple[Proposal, ...]
    reason: str
    raw: str = field(default="", repr=False)
    understood: bool = True
    unknown_words: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    answer: str | None = None
    answer_objects: tuple[Mention, ...] = ()

    @property
    def no_target(self) -> bool:
        return not (self.proposals if self.answer is None else self.answer_objects)

    def keep(self, kept: Sequence[int]) -> Reasoning:
        """The path with the proposals of these indices alone; mentions of others lose theirs."""
        numbers: dict[int | None, int] = {old + 1: new for new, old in enumerate(kept, start=1)}

        def renumbered(mentions: tuple[Mention, ...]) -> tuple[Mention, ...]:
            return tuple(replace(one, number=numbers.get(one.number)) for one in mentions)

        return replace(
            self,
            steps=tuple(replace(step, objects=renumbered(step.objects)) for step in self.steps),
            proposals=tuple(self.proposals[index] for index in kept),
            answer_objects=renumbered(self.answer_objects),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What the MLLM was asked to do; `+` and `-` work on it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*map(operator.sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn: text and images in the order in which the model sees them.

    Attributes:
        kept: (h, w) bool, in the size of the last image, of which the model sees only the patches
            that this mask touches; None shows all of it. See `rsvp.mllm.check_sparse`.
    """

    role: str
    parts: tuple[str | RgbArray, ...]
    kept: BoolMask | None = None

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise BadInput(f"a message's role is system, user or assistant, found {self.role!r}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What an MLLM wrote back.

    Attributes:
        finish_reason: "stop", "length", or the server's own word.
        confidence: mean probability of the sampled tokens, 0 to 1, where the backend knows it.
        familiarity: log-odds that the images are like those that the model was trained on, above
            the threshold: below 0 they are unlike them. None where the backend cannot tell.
        resized: (h, w) in pixels of the last image as the model's own preprocessing resized it;
            None where the backend cannot tell.
    """

    text: str
    usage: Usage = Usage()
    seconds: float = 0.0
    finish_reason: str = "stop"
    confidence: float | None = None
    familiarity: float | None = None
    resized: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Masks(ComparedByContent):
    """The segmenter's answer, one mask a proposal, in the image's own size.

    Attributes:
        masks: (n, H, W) bool.
        scores: (n,) float32, the predicted IoU, 0 to 1.
        presence: (n,) float32, the probability that what the label names is there, from a
            segmenter that reads labels; None from one that does not.
    """

    masks: NDArray[np.bool_] = field(repr=False)
    scores: NDArray[np.float32]
    presence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise BadInput(f"masks are (n, H, W) bool, found {self.masks.shape} {self.masks.dtype}")
        if self.scores.shape != (len(self.masks),):
            raise BadInput(
                f"{len(self.masks)} masks need as many scores, found {self.scores.shape}"
            )
        if self.presence is not None and self.presence.shape != self.scores.shape:
            raise BadInput(
                f"{len(self.masks)} masks need as many presences, found {self.presence.shape}"
            )


@dataclass(frozen=True, slots=True)
class Target:
    """One object that answers the query.

    Attributes:
        box: the proposal's box (the mask's own extent when there was none).
        score: the segmenter's predicted IoU, 0 to 1.
        packed: its pixels; hundreds of targets on a large photo must fit in memory.
        presence: the probability that what the label names is in the box, from a segmenter that
            reads labels; None from one that does not.
        raw: the numbers of the proposal as the MLLM wrote them, in its own frame.
    """

    label: str
    box: Box
    score: float
    packed: PackedMask = field(repr=False)
    presence: float | None = None
    raw: tuple[float, ...] = ()

    @property
    def mask(self) -> BoolMask:
        """(H, W) bool, unpacked anew each time."""
        return self.packed.unpack()


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Which parts made a result; `prompt_sha256` covers the text of every prompt sent."""

    mllm: str | None
    strategy: str | None
    segmenter: str
    prompt_sha256: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a round of verification decided about one target.

    Attributes:
        round: from 1.
        target: from 0, in the order in which stage 2 found them; those that a round adds go on
            counting. Targets that left keep their number.
        verdict: accept, correct, reject, or add (what was missing).
        label: of the target.
    """

    round: int
    target: int
    verdict: str
    reason: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class RoundCost:
    """What one round of verification cost.

    Attributes:
        seconds: spent waiting for replies.
        usd: None where no prices were given.
    """

    round: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    usd: float | None = None


@dataclass(frozen=True)
class Segmentation:
    """The values of one query on one image: why, and the exact pixels.

    `rsvp.result.Result` adds saving, drawing and exporting; writers and drawing take these values.
    Two are equal, and have one hash, whatever time they took.

    Attributes:
        shown: (h, w, 3) uint8, what the MLLM saw: the image, maybe smaller, with bands, marks and
            hints; None where none was asked, or where stage 2 ran elsewhere.
        rounds: of verification that were made; `verdicts` and `round_costs` say more.
        agreement: the share of several sampled replies that give these targets; None where one
            reply was asked for.
    """

    image: Image
    query: str
    reasoning: Reasoning
    targets: tuple[Target, ...]
    models: ModelNames
    usage: Usage = Usage()
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    rounds: int = 0
    verdicts: tuple[Verdict, ...] = ()
    round_costs: tuple[RoundCost, ...] = ()
    agreement: float | None = None
    warnings: tuple[str, ...] = ()
    shown: RgbArray | None = field(default=None, repr=False, compare=False)

    @property
    def no_target(self) -> bool:
        return not self.targets

    @property
    def understood(self) -> bool:
        """False where the MLLM cannot read the image or the query; no target means nothing then."""
        return self.reasoning.understood

    @property
    def unanswered(self) -> str:
        """Why no target does not mean that nothing is there; empty where there is an answer."""
        if words := self.reasoning.unknown_words:
            return f"no answer: this model does not know {', '.join(map(repr, words))}"
        if self.understood or not self.no_target or self.reasoning.proposals:
            return ""
        return "no answer: this model cannot read images of this kind, so nothing is known of it"

    @property
    def reason(self) -> str:
        """Why the MLLM chose these targets, or none."""
        return self.reasoning.reason

    @property
    def mask(self) -> BoolMask:
        """(H, W) bool, the union of the targets' masks; all False when there is no target."""
        return union_of((t.packed for t in self.targets), (self.image.height, self.image.width))


@dataclass(frozen=True, slots=True)
class Look:
    """A closer look at part of an image.

    Attributes:
        query: what the MLLM wanted to see.
        targets: what was found; empty where that is not in the image.
        box: the part of the image that was shown, in its pixels; None where nothing was, as
            nothing was found or it is too large to be shown larger.
        picture: (h, w, 3) uint8, what the MLLM was shown.
    """

    query: str
    targets: tuple[Target, ...] = ()
    box: Box | None = None
    picture: RgbArray | None = field(default=None, repr=False)

    @property
    def no_target(self) -> bool:
        return not self.targets

    @property
    def size(self) -> tuple[int, int] | None:
        """(h, w) of the picture."""
        if self.picture is None:
            return None
        return int(self.picture.shape[0]), int(self.picture.shape[1])


@dataclass(frozen=True)
class AnsweredQuestion(Segmentation):
    """The answer to one question about one image; its targets are those of all looks.

    Attributes:
        answer: the chosen one's own words where there are choices.
        choice: index of the chosen one; None without choices, or where the answer is none of them.
        zoom, background: how looks were shown, see `rsvp.answer.Zoom`; no background but for masks.
    """

    answer: str = ""
    choices: tuple[str, ...] = ()
    choice: int | None = None
    zoom: str = "none"
    background: str | None = None
    looks: tuple[Look, ...] = ()

    @property
    def question(self) -> str:
        return self.query
