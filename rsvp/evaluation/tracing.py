"""The path to an answer as VRT-Bench reads it: a text with one `[SEG]` for each mask, in order.

The boxes that the reasoner's steps name, cut out by the segmenter, are the objects of its path; its
targets are the answer.

Source: H. Yuan et al., Visual Reasoning Tracer (2025), https://arxiv.org/abs/2512.05091.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsvp.result import Result
from rsvp.types import Box, Target

_MARK = "[SEG]"
_RESERVED = re.compile(r"\[SEG\]|</?(?:think|answer)>")  # what a model must not say by itself


def step_boxes(result: Result) -> tuple[Box, ...]:
    """The boxes of all steps, each once."""
    return tuple(dict.fromkeys(box for step in result.reasoning.steps for box in step.boxes))


def path_targets(cut: Result | None, result: Result | None) -> tuple[Target, ...]:
    """What the segmenter cut out of the steps' boxes, in the steps' order."""
    if cut is None or result is None:
        return ()
    by_box = {target.box: target for target in cut.targets}
    return tuple(by_box[box] for box in step_boxes(result) if box in by_box)


def as_text(result: Result, path: Sequence[Target]) -> str:
    """``<think>…</think><answer>…</answer>``, the path's masks marked first, then the targets'."""
    waiting = {target.box for target in path}
    thoughts = []
    for step in result.reasoning.steps:
        named = [box for box in dict.fromkeys(step.boxes) if box in waiting]
        waiting -= set(named)
        thoughts.append(" ".join([_plain(step.text), *[_MARK] * len(named)]))
    answer = ", ".join(f"{_plain(target.label)} {_MARK}" for target in result.targets)
    return f"<think>{' '.join(thoughts)}</think><answer>{answer}</answer>"


def _plain(text: str) -> str:
    return _RESERVED.sub("", text)
