"""The path to an answer as VRT-Bench reads it: a text with one `[SEG]` for each mask, in order.

The masks of the boxes that the reasoning steps name are the objects of the path; the targets are
the answer.

Source: H. Yuan et al., Visual Reasoning Tracer (2025), https://arxiv.org/abs/2512.05091.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsvp.evaluation.metrics.vrt import SEG
from rsvp.result import Result
from rsvp.types import Box, Target

_RESERVED = re.compile(r"\[SEG\]|</?(?:think|answer)>")  # removed from the model's own text


def step_boxes(result: Result) -> tuple[Box, ...]:
    """The boxes of all steps, each once."""
    return tuple(dict.fromkeys(box for step in result.reasoning.steps for box in step.boxes))


def path_targets(segmented: Result | None, result: Result | None) -> tuple[Target, ...]:
    """The targets that the segmenter made of the steps' boxes, in the steps' order."""
    if segmented is None or result is None:
        return ()
    by_box = {target.box: target for target in segmented.targets}
    return tuple(by_box[box] for box in step_boxes(result) if box in by_box)


def as_text(result: Result, path: Sequence[Target]) -> str:
    """``<think>…</think><answer>…</answer>`` with a mark for each mask, the path's first."""
    unmarked = {target.box for target in path}
    steps = []
    for step in result.reasoning.steps:
        named = [box for box in dict.fromkeys(step.boxes) if box in unmarked]
        unmarked -= set(named)
        steps.append(" ".join([_RESERVED.sub("", step.text), *[SEG] * len(named)]))
    answer = ", ".join(f"{_RESERVED.sub('', target.label)} {SEG}" for target in result.targets)
    return f"<think>{' '.join(steps)}</think><answer>{answer}</answer>"
