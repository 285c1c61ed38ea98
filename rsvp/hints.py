"""A user's hint, shown to the MLLM: drawn on the picture, and explained in words."""

from __future__ import annotations

from collections.abc import Collection

from rsvp import prompting
from rsvp.drawing.hint import draw_hint
from rsvp.request import Hint, Request
from rsvp.types import RgbArray


def hint_prompts(hint: Hint, profile: str) -> tuple[str, ...]:
    """The names of the prompts that explain the hint, in this profile.

    A profile without such prompts is of a model that was not trained on them: it is shown nothing,
    and the hint is only applied to what it answers.
    """
    given = {"within": hint.within, "exclude": hint.exclude, "like": hint.like}
    return prompting.existing(profile, *(f"hint.{name}" for name in given if given[name]))


def hinted(rgb: RgbArray, request: Request, prompts: Collection[str]) -> RgbArray:
    """An (h, w, 3) uint8 view with the hint drawn on it, where prompts explain it."""
    hint, image = request.hint, request.image
    if not prompts:
        return rgb
    return draw_hint(rgb, hint.within, hint.exclude, hint.like, (image.height, image.width))
