"""After the stages: hints applied to proposals and targets, masks made into targets, warnings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rsvp.masks import clip_mask, mask_to_box
from rsvp.reasoning import ReasoningOutput
from rsvp.registry import ModelFamily
from rsvp.request import Hint
from rsvp.segmenters.embedding_cache import TimedMasks
from rsvp.types import Box, Image, PackedMask, Point, Proposal, Reasoning, Target

UNSURE = "the reasoner was unsure of this image"  # how the warning about it begins
LOW_PRESENCE = 0.02  # below it a segmenter that reads labels doubts the label
# Lone points with a lower score gave a mean IoU of 0.42 on rendered scenes and 0.14 on photographs,
# those above 0.77 and 0.72 (the embedded segmenter); SAM's own mask generator drops masks below it.
LOW_POINT_SCORE = 0.88
MIN_INSIDE = 0.3  # of a proposal's box; with less inside the hint's box it means something else


def restrict_proposals(hint: Hint, proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
    """The proposals inside the hint's box, clipped to it; points outside become negative."""
    within = hint.within
    if within is None:
        return tuple(proposals)
    clipped = (_clip_proposal(proposal, within) for proposal in proposals)
    return tuple(proposal for proposal in clipped if proposal is not None)


def to_targets(image: Image, proposals: Sequence[Proposal], found: TimedMasks) -> Iterator[Target]:
    """One target a proposal, with its mask; scores outside 0 to 1 are clipped, NaN becomes 0."""
    for index, proposal in enumerate(proposals):
        mask, score = found.masks[index], float(found.scores[index])
        yield Target(
            label=proposal.label,
            box=proposal.box
            or mask_to_box(mask.unpack())
            or _box_of_points(proposal.points, image),
            score=min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0,
            packed=mask,
            presence=(
                float(found.presence[index])
                if found.presence is not None and proposal.label.strip()
                else None
            ),
            raw=proposal.raw,
        )


def apply_hint(hint: Hint, targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets that no point excludes, their masks clipped to the hint's box."""
    kept: list[Target] = []
    for target in targets:
        packed = target.packed if hint.within is None else _clip(target.packed, hint.within)
        if target.packed.area and not packed.area:
            continue
        mask = packed.unpack() if hint.exclude else None
        if mask is None or not any(mask[int(p.y), int(p.x)] for p in hint.exclude):
            kept.append(replace(target, packed=packed))
    return tuple(kept)


def target_warnings(
    reasoning: Reasoning, targets: Sequence[Target], *, named_by_mllm: bool
) -> Iterator[str]:
    """Warnings about empty masks, doubtful labels that the MLLM chose, and lone points.

    Args:
        reasoning: of a path, the proposals of these targets alone.
    """
    called = list(_called(reasoning, len(targets)))
    for name, target in zip(called, targets, strict=True):
        if not target.packed.area:
            yield f"{name[0]}the segmenter found no pixels for {name[1]} ({target.label})"
    for name, target in zip(called, targets, strict=True):
        if named_by_mllm and target.presence is not None and target.presence < LOW_PRESENCE:
            yield (
                f"{name[0]}the segmenter doubts that {name[1]} is {target.label} "
                f"(presence {target.presence:.2f})"
            )
    lone = {
        (proposal.label, proposal.raw)
        for proposal in reasoning.proposals
        if proposal.box is None and sum(point.positive for point in proposal.points) == 1
    }
    for name, target in zip(called, targets, strict=True):
        if target.score < LOW_POINT_SCORE and (target.label, target.raw) in lone:
            yield (
                f"{''.join(name)} has one point and a low score ({target.score:.2f}): its mask may "
                "be only a part, or more than is meant; a box around it or a second point helps"
            )


def _called(reasoning: Reasoning, count: int) -> Iterator[tuple[str, str]]:
    """How a warning about each target begins, and what it calls it.

    Objects of a reasoning path have numbers from 1, and the step that names them first.
    """
    if reasoning.answer is None:
        yield from (("", f"target {number}") for number in range(count))
        return
    first: dict[int | None, str] = {}
    for number, step in enumerate(reasoning.steps, start=1):
        for one in step.objects:
            first.setdefault(one.number, f"step {number}")
    for number in range(1, count + 1):
        yield f"{first.get(number, 'the answer')}: ", f"object {number}"


def reply_warnings(output: ReasoningOutput, family: ModelFamily) -> Iterator[str]:
    """Warnings about what stage 1 replied, the first one about what makes it doubtful."""
    if words := output.reasoning.unknown_words:
        yield f"the reasoner does not know {', '.join(map(repr, words))}, and was not asked"
    elif output.familiarity is not None and output.familiarity < 0:
        yield f"{UNSURE}: it is unlike those that the model was trained on"
    elif family.doubts(output.confidence):
        yield (
            f"{UNSURE} (mean token probability {output.confidence:.2f}, usually above "
            f"{family.min_confidence:.2f}): the embedded preset knows rendered scenes, not "
            "photographs"
        )
    elif not output.reasoning.understood:
        yield f"{UNSURE}: {output.reasoning.reason or 'it cannot read images of this sort'}"
    yield from output.reasoning.warnings
    if output.finish_reason == "length":
        yield "the reply was cut short at the token limit: targets may be missing"


def hint_warning(proposals: Sequence[Proposal], targets: Sequence[Target]) -> Iterator[str]:
    """A warning where the MLLM named targets that the hint does not allow."""
    removed = len(proposals) - len(targets)
    if removed > 0:
        yield f"{removed} of {len(proposals)} targets that the MLLM named went against the hint"


def _clip_proposal(proposal: Proposal, within: Box) -> Proposal | None:
    points = tuple(
        point if _contains(within, point) else replace(point, positive=False)
        for point in proposal.points
    )
    if proposal.box is None:
        on_target = any(point.positive for point in points)
        return replace(proposal, points=points) if on_target else None
    box = proposal.box.intersection(within)
    if box is None or box.area < MIN_INSIDE * proposal.box.area:
        return None
    mask = None if proposal.mask is None else _clip(proposal.mask, within)
    if mask is not None and not mask.area:
        return None
    return replace(proposal, box=box, points=points, mask=mask)


def _clip(mask: PackedMask, within: Box) -> PackedMask:
    return PackedMask.pack(clip_mask(mask.unpack(), within))


def _contains(box: Box, point: Point) -> bool:
    return box.x0 <= point.x < box.x1 and box.y0 <= point.y < box.y1


def _box_of_points(points: Sequence[Point], image: Image) -> Box:
    """A box of at least one pixel around the points, for a target whose mask is empty."""
    xs, ys = [p.x for p in points], [p.y for p in points]
    x0, y0 = math.floor(min(xs)), math.floor(min(ys))
    x1, y1 = min(math.floor(max(xs)) + 1, image.width), min(math.floor(max(ys)) + 1, image.height)
    return Box(min(x0, x1 - 1), min(y0, y1 - 1), x1, y1)
