"""The JSON schemas of replies, within what strict servers accept.

Strict means: every property required, none beyond them, and no `prefixItems` or bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def record(properties: Mapping[str, Schema]) -> Schema:
    """An object with exactly these properties, written in this order."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def reply(step: Mapping[str, Schema], target: Mapping[str, Schema], *, cot: bool) -> Schema:
    """A whole reply: the steps (with `cot`), then the targets, then the reason.

    Args:
        step: how a step names its regions, beside its text.
        target: how a target names its region, beside its label.
    """
    steps = {"steps": array(record({"text": STRING, **step}))} if cot else {}
    targets = array(record({"label": STRING, **target}))
    return record({**steps, "targets": targets, "reason": STRING})
