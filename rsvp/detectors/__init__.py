"""Detectors: phrases in, candidate boxes out. A detector finds candidates and chooses none.

Every threshold and the removal of duplicates can be disabled with None. Then the caller, or the
MLLM that sees the candidates, gets everything that the network found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput
from rsvp.masks import nms
from rsvp.types import Image, PackedMask

__all__ = ["Candidates", "Detector"]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The n candidates of one image, in no particular order.

    Attributes:
        boxes: (n, 4) float32, xyxy in pixels of the upright image, x0 < x1 and y0 < y1.
        scores: (n,) float32, 0 to 1.
        phrases: n, the phrase that each box matches, spelled as the caller did; "" from a detector
            that reads no text.
        masks: n, in the image's size, from a detector that segments as well; else None.

    Raises:
        BadInput: a shape, a type or a value other than these.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    phrases: tuple[str, ...]
    masks: tuple[PackedMask, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n = len(self.boxes)
        _check_array("candidates' boxes", self.boxes, (n, 4))
        _check_array("candidates' scores", self.scores, (n,))
        if len(self.phrases) != n:
            raise BadInput(f"{n} boxes need as many phrases, found {len(self.phrases)}")
        if not (self.boxes[:, :2] < self.boxes[:, 2:]).all():
            raise BadInput("candidates' boxes are x0,y0,x1,y1 with x0 < x1 and y0 < y1")
        if ((self.scores < 0) | (self.scores > 1)).any():
            raise BadInput(f"scores are 0 to 1, found {self.scores.min()} to {self.scores.max()}")
        if self.masks is not None and len(self.masks) != n:
            raise BadInput(f"{n} boxes need as many masks, found {len(self.masks)}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def none(cls) -> Candidates:
        """No candidates."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())

    @classmethod
    def concat(cls, parts: Sequence[Candidates]) -> Candidates:
        """The boxes, scores and phrases of several parts, best score first."""
        if not parts:
            return cls.none()
        joined = cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            tuple(phrase for part in parts for phrase in part.phrases),
        )
        return joined.take(np.argsort(-joined.scores, kind="stable"))

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> Candidates:
        """The candidates of these row numbers, in their order."""
        chosen = np.asarray(rows, dtype=np.intp)
        return Candidates(
            self.boxes[chosen],
            self.scores[chosen],
            tuple(self.phrases[row] for row in chosen),
            None if self.masks is None else tuple(self.masks[row] for row in chosen),
        )

    def at_least(self, score: float | None) -> Candidates:
        """Those with at least this score; all of them if `score` is None."""
        return self if score is None else self.take(np.flatnonzero(self.scores >= score))

    def nms(self, iou: float | None, *, per_phrase: bool = False) -> Candidates:
        """Greedy non-maximum suppression of boxes; the remaining ones, best score first.

        Args:
            iou: of two boxes with a higher IoU, the one with the lower score is dropped, of equal
                scores the later one. None changes nothing, not even the order.
            per_phrase: only boxes of the same phrase suppress each other.
        """
        if iou is None:
            return self
        groups = self.phrases if per_phrase else None
        return self.take(nms(self.boxes, self.scores, iou, groups=groups))


@runtime_checkable
class Detector(Protocol):
    """Finds candidates by name.

    One of concepts has `concepts = True`: its phrases are best chosen for the image, and its
    `candidates` takes `like`, boxes around examples of what else to find, as SAM 3's does.

    Attributes:
        name: the spec that made it, e.g. ``grounding-dino:IDEA-Research/grounding-dino-tiny``.
    """

    name: str

    def candidates(self, image: Image, phrases: Sequence[str]) -> Candidates:
        """Everything on the image that one of the phrases may name, for all of them at once.

        Raises:
            BadInput: no phrase, or one without a word in it.
        """
        ...


def _check_array(what: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise BadInput(f"{what} are {shape} float32, found {array.shape} {array.dtype}")
    if not np.isfinite(array).all():
        raise BadInput(f"{what} hold a number that is not finite")
