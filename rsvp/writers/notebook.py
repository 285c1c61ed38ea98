"""How a result shows itself in a notebook: the overlay, and in words what `rsvp segment` prints."""

from __future__ import annotations

from html import escape

from rsvp.errors import printable
from rsvp.images import shrink
from rsvp.trace import TracedQuestion
from rsvp.types import AnsweredQuestion, Segmentation
from rsvp.writers.common import jpeg_uri, label_of
from rsvp.writers.pictures import overlay_of

SIDE = 640  # of the picture's longer side, pixels: a notebook is saved with its outputs
QUALITY = 86


def cell(result: Segmentation) -> str:
    """A piece of HTML without scripts or requests; all text is escaped."""
    picture = jpeg_uri(shrink(overlay_of(result), SIDE), QUALITY)
    found = [f"{label_of(target)} (score {target.score:.2f})" for target in result.targets]
    head = "; ".join(found) or "no target in this image"
    if isinstance(result, AnsweredQuestion | TracedQuestion):
        head = f"answer: {result.answer}"
    head = result.unanswered or head
    steps = "".join(f"<li>{_text(step.text)}</li>" for step in result.reasoning.steps)
    parts = [
        f"<p><em>{_text(result.query)}</em></p>" if result.query else "",
        f"<p><strong>{_text(head)}</strong></p>",
        f'<img alt="overlay" src="{picture}">',
        f"<ol>{steps}</ol>" if steps else "",
        f"<p>because: {_text(result.reason)}</p>" if result.reason else "",
        *(f"<p>warning: {_text(warning)}</p>" for warning in result.warnings),
    ]
    return f"<div>{''.join(parts)}</div>"


def _text(text: str) -> str:
    return escape(printable(text))
