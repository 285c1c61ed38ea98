"""Validation: the mean IoU by style of box, beside SAM 2 with the same boxes.

clean         the exact box
jittered      shifted and scaled, as an MLLM's boxes are
bands         snapped to the bands of a 9x9 grid and padded
shared        around two objects, one of which is named
ambiguous     the mean of the last three, or of those that the images allow
presence_auc  area under the ROC curve of presence: the object's name against another object's
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput
from rsvp.masks import mask_iou
from rsvp.segmenters import Segmenter
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.vlsm import VlsmSegmenter, save_pretrained
from rsvp.training.components import Components
from rsvp.training.config import Metric
from rsvp.training.data import AnnotatedImage, ImageSource
from rsvp.training.run_folder import MEASURED, RunFolder, RunState
from rsvp.training.samples import INSIDE, MIN_SIDE, OUTSIDE, TrainingProposal, draw_box
from rsvp.types import Image, Proposal

STYLES = ("clean", "jittered", "bands", "shared")
AMBIGUOUS = STYLES[1:]


class ValidationCase(NamedTuple):
    """A proposal; `style` is that of its box, or ``absent`` for a text that names nothing in it."""

    style: str
    proposal: TrainingProposal


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The output of a segmenter for each validation case, in their order."""

    styles: tuple[str, ...]
    ious: NDArray[np.float64] = field(repr=False)  # NaN for the style ``absent``
    presence: NDArray[np.float64] = field(repr=False)  # 0 to 1; NaN if the segmenter has none

    def ious_of(self, *styles: str) -> NDArray[np.float64]:
        return self.ious[np.isin(self.styles, styles)]

    def metrics(self) -> dict[str, float]:
        """The figures of every `Metric`; NaN where there is no case."""
        found = {style: _mean(self.ious_of(style)) for style in STYLES}
        ambiguous = [found[style] for style in AMBIGUOUS if style in self.styles]
        styles = np.array(self.styles, dtype=str)
        auc = presence_auc(self.presence[styles == "clean"], self.presence[styles == "absent"])
        return {**found, "ambiguous": _mean(np.array(ambiguous)), "presence_auc": auc}

    def supports(self, metric: str) -> bool:
        """Whether there are cases for a metric."""
        styles = set(self.styles)
        if metric == "presence_auc":
            return {"clean", "absent"} <= styles
        return bool(styles & set(AMBIGUOUS if metric == "ambiguous" else (metric,)))


class ValidationSet:
    """Validation cases on images that are not trained on, the same ones at every iteration.

    Args:
        limit: the first so many images that are not broken are used.
        seed: of the boxes.
    """

    def __init__(self, source: ImageSource, limit: int, seed: int = 0) -> None:
        self._source, self._limit, self._seed = source, limit, seed
        self.broken: dict[int, str] = {}  # the skipped images, each with its cause

    def __iter__(self) -> Iterator[tuple[AnnotatedImage, list[ValidationCase]]]:
        """Raises BadInput if every image is broken."""
        used = 0
        for index in range(len(self._source)):
            if used == self._limit:
                return
            rng = np.random.default_rng([self._seed, index])
            try:
                image = self._source[index]
                cases = list(validation_cases(image, rng))
            except Exception as error:  # whatever is wrong with a file, it is reported
                self.broken[index] = f"validation image {index}: {' '.join(str(error).split())}"
                continue
            used += 1
            yield image, cases
        if not used:
            first = next(iter(self.broken.values()), "there is none")
            raise BadInput(f"no validation image can be used; the first: {first}")

    def evaluate(self, segmenter: Segmenter) -> ValidationResult:
        styles: list[str] = []
        ious: list[float] = []
        presence: list[float] = []
        for image, cases in self:
            (encoding,) = segmenter.encode([Image(image.rgb, sha256="")])
            found = segmenter.masks(encoding, [Proposal(p.text, p.box) for _, p in cases])
            styles += [style for style, _ in cases]
            targets = [proposal.target for _, proposal in cases]
            ious += [
                math.nan if true is None else mask_iou(mask, true.mask)
                for mask, true in zip(found.masks, targets, strict=True)
            ]
            missing = [math.nan] * len(cases)
            presence += missing if found.presence is None else map(float, found.presence)
        return ValidationResult(tuple(styles), np.array(ious), np.array(presence))


def validation_cases(image: AnnotatedImage, rng: np.random.Generator) -> Iterator[ValidationCase]:
    """A random object with every style of box, and its exact box with another object's name."""
    usable = [a for a in image.annotations if min(a.box.width, a.box.height) >= MIN_SIDE]
    if not usable:
        return
    chosen = usable[int(rng.integers(len(usable)))]
    name, others = chosen.texts[0], image.with_other_names(chosen)
    same_name = [a for a in image.annotations if a is not chosen and a.texts[0] == name]
    for style in STYLES:
        if style == "shared" and not others:
            continue
        box = draw_box(style, chosen, image, rng)
        if style != "clean" and any(a.fraction_inside(box) >= INSIDE for a in same_name):
            continue  # neither box nor text says which of the two is meant
        yield ValidationCase(style, TrainingProposal(box, name, chosen))
    inside = [a for a in image.annotations if a.fraction_inside(chosen.box) > OUTSIDE]
    present = {a.texts[0] for a in inside}
    names = [other.texts[0] for other in others if other.texts[0] not in present]
    if names:
        text = names[int(rng.integers(len(names)))]
        yield ValidationCase("absent", TrainingProposal(chosen.box, text, None))


def presence_auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Probability that a positive scores above a negative, ties half; NaN without either."""
    if not len(positive) or not len(negative) or np.isnan([*positive, *negative]).any():
        return math.nan
    ordered = np.sort(negative)
    ranks = [np.searchsorted(ordered, positive, side) for side in ("left", "right")]
    return float(np.mean(ranks)) / len(negative)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


@dataclass
class Validator:
    """Validates the network in training beside its SAM 2, and saves the best weights."""

    components: Components
    data: ValidationSet
    metric: Metric
    folder: RunFolder
    accelerator: Any

    def __post_init__(self) -> None:
        self.figures = self.folder.last_measured()  # ``base_`` ones are SAM 2's
        self._base: dict[str, float] = {}

    def measure_sam2(self, report: Callable[[str], None]) -> None:
        """Validate SAM 2 alone, before the training; BadInput if the images do not allow that."""
        if self.accelerator.is_main_process:
            result = self._evaluate(Sam2Segmenter.from_network, self.components.net.sam2)
            for cause in self.data.broken.values():
                report(f"skipped {cause}")
            if not result.supports(self.metric):
                raise BadInput(
                    f"the validation images do not allow {self.metric}: choose another --metric, "
                    "more --eval-pictures or other --eval-data"
                )
            self._base = _finite(result.metrics())
        self.accelerator.wait_for_everyone()

    def validate(self, state: RunState, report: Callable[[str], None]) -> None:
        """Validate the VLSM, log the metrics, and save the weights if they are the best so far."""
        if self.accelerator.is_main_process:
            parts = self.components
            metrics = self._evaluate(VlsmSegmenter.from_vlsm, parts.net, parts.text).metrics()
            self.figures = {**metrics, **{f"base_{k}": v for k, v in self._base.items()}}
            self.folder.append(MEASURED, {"step": state.step, **self.figures})
            scalars = {f"held_out/{k}": v for k, v in _finite(self.figures).items()}
            self.accelerator.log(scalars, step=state.step)
            if metrics[self.metric] > state.best:  # never for NaN
                state.best = metrics[self.metric]
                self.save_weights("best", state.step)
            shown = [
                f"{k} {v:.3f}" + (f" ({v - self._base[k]:+.3f})" if k in self._base else "")
                for k, v in _finite(metrics).items()
            ]
            report(f"step {state.step}: {', '.join(shown)}")
        self.accelerator.wait_for_everyone()

    def save_weights(self, name: str, step: int) -> None:
        """Write the VLSM's folder, with the last metrics in its `config.json`."""
        if not self.accelerator.is_main_process:
            return
        parts, held_out = self.components, _finite(self.figures)
        note = {"step": step, "held_out": {k: round(v, 4) for k, v in held_out.items()}}
        out = self.folder.folder / name
        save_pretrained(out, parts.net, parts.sam2, parts.text, training=note)

    def _evaluate(self, wrap: Callable[..., Segmenter], *models: Any) -> ValidationResult:
        """Evaluate a segmenter made of `models`, and return to train mode."""
        where = {"device": self.accelerator.device, "dtype": "float32"}
        result = self.data.evaluate(wrap(*models, self.components.preprocessing, **where))
        self.components.net.train()
        return result


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}
