"""`result.json`: the whole result, masks as COCO run lengths."""

from __future__ import annotations

from typing import Any

from rsvp.masks import encode_rle
from rsvp.types import Box, Segmentation, Target

SCHEMA_VERSION = 1


def to_dict(result: Segmentation) -> dict[str, Any]:
    """The result as `result.json` holds it: plain values, pixels of the upright image, seconds."""
    image, models = result.image, result.models
    return {
        "schema_version": SCHEMA_VERSION,
        "image": {
            "path": image.path,
            "width": image.width,
            "height": image.height,
            "sha256": image.sha256,
        },
        "query": result.query,
        "no_target": result.no_target,
        "reason": result.reasoning.reason,
        "steps": [
            {"text": step.text, "boxes": [_numbers(box) for box in step.boxes]}
            for step in result.reasoning.steps
        ],
        "targets": [
            {
                "label": target.label,
                "box": _numbers(target.box),
                "score": round(target.score, 4),
                **_presence(target),
                "mask": encode_rle(target.mask),
            }
            for target in result.targets
        ],
        "rounds": result.rounds,
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
            "calls": result.usage.calls,
        },
        "timings": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
        "models": {
            "mllm": models.mllm,
            "strategy": models.strategy,
            "segmenter": models.segmenter,
            "prompt_sha256": models.prompt_sha256,
        },
        "warnings": list(result.warnings),
    }


def _presence(target: Target) -> dict[str, float]:
    """Only where the segmenter reads labels."""
    return {} if target.presence is None else {"presence": round(target.presence, 4)}


def _numbers(box: Box) -> list[float]:
    return [round(value, 2) for value in box.xyxy]
