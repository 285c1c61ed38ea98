"""Names of classes, for formats that need one for everything."""

from __future__ import annotations

from rsvp.types import Segmentation, Target


def label_of(target: Target) -> str:
    """The target's label, or a word for one that has none."""
    return target.label or "target"


def labels_of(result: Segmentation) -> list[str]:
    """Each label once, in the order of the targets."""
    return list(dict.fromkeys(label_of(target) for target in result.targets))
