"""`result.html`: a result as one page that replays the reasoning, step by step, on the image.

`result.html.jinja` lays out the page; this module computes what it shows. Styles, script and
picture are in the file, and its content security policy forbids every request and every script but
its own. All text is escaped, and control characters become blanks.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from rsvp.drawing.contrast import inks
from rsvp.drawing.palette import Colour, is_light
from rsvp.images import shrink
from rsvp.masks import mask_to_box
from rsvp.parsing.mentions import pieces
from rsvp.trace import PathObject, TracedQuestion
from rsvp.types import AnsweredQuestion, BoolMask, Box, Segmentation, Target
from rsvp.writers.common import jpeg_uri, shrink_mask
from rsvp.writers.contours import MAX_JOINED, find_contours

SIDE = 1280  # of the picture's longer side, pixels
MASK_SIDE = 640  # of the outlines'; on the page they are as large as the picture
QUALITY = 86
NO_TARGET = "no target in this image"


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step on the page.

    Attributes:
        parts: its text in pieces, each with the object that it names; see `mentions.pieces`.
        numbers: of the objects that are shown with it.
        boxes: of what it names without a mask, (x, y, width, height) in the drawing's unit.
    """

    parts: tuple[tuple[str, PathObject | None], ...]
    numbers: tuple[int, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    yield "result.html", to_html(result).encode("utf-8", "backslashreplace")


def to_html(result: Segmentation) -> str:
    """The page."""
    image = result.image
    scale = min(1.0, MASK_SIDE / max(image.width, image.height))
    size = (max(1, round(image.height * scale)), max(1, round(image.width * scale)))
    steps, answer = _steps(result, scale)
    drawn = inks(image.rgb, (target.mask for target in result.targets))
    script = _file("result.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment("rsvp.writers")
        .get_template("result.html.jinja")
        .render(
            question=result.query,
            picture=jpeg_uri(shrink(image.rgb, SIDE), QUALITY),
            width=size[1],
            height=size[0],
            objects=[
                _drawn(n, target, ink.colour, size)
                for n, (target, ink) in enumerate(zip(result.targets, drawn, strict=True), start=1)
            ],
            steps=steps,
            answer=answer,
            reason=result.reasoning.reason,
            warnings=result.warnings,
            models=[m for m in (result.models.mllm, result.models.strategy) if m]
            + [result.models.segmenter],
            usage=result.usage,
            seconds=result.timings.get("total"),
            style=Markup(_file("figure.css") + _file("result.css")),
            script=Markup(script),
            script_digest=digest,
        )
    )


@functools.cache
def environment(package: str) -> jinja2.Environment:
    """The templates of a package; what they show is escaped and printable."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: object) -> object:
    """A text without control characters, lines kept."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else " " for c in value)


@functools.cache
def _file(name: str) -> str:
    return resources.files("rsvp.writers").joinpath(name).read_text(encoding="utf-8")


def _steps(result: Segmentation, scale: float) -> tuple[list[ShownStep], ShownStep]:
    """The steps and the answer."""
    if isinstance(result, TracedQuestion):
        steps = [_path_step(step.text, step.objects) for step in result.path]
        said = result.unanswered or result.answer
        return steps, _path_step(said, result.answer_objects)
    steps = [
        ShownStep(((step.text, None),), boxes=tuple(_scaled(box, scale) for box in step.boxes))
        for step in result.reasoning.steps
    ]
    named = [PathObject(t.label or "target", n, t) for n, t in enumerate(result.targets, start=1)]
    said = result.answer if isinstance(result, AnsweredQuestion) else ""
    said = said or ("" if named else result.unanswered or NO_TARGET)
    return steps, _path_step(said, named)


def _path_step(text: str, objects: Sequence[PathObject]) -> ShownStep:
    numbers = dict.fromkeys(one.number for one in objects if one.number is not None)
    return ShownStep(tuple(pieces(text, objects)), tuple(numbers))


def _scaled(box: Box, scale: float) -> tuple[float, float, float, float]:
    x, y, width, height = (round(v * scale, 1) for v in (box.x0, box.y0, box.width, box.height))
    return x, y, width, height


def _drawn(number: int, target: Target, colour: Colour, size: tuple[int, int]) -> dict[str, object]:
    """An object as the drawing needs it: its outline, and where its number stands."""
    full = target.mask
    mask = shrink_mask(full, size, least=1)
    outline = mask_to_box(mask)
    scale = size[1] / full.shape[1]
    box = outline.xyxy if outline else tuple(v * scale for v in target.box.xyxy)
    return {
        "number": number,
        "label": target.label,
        "score": target.score,
        "colour": "#{:02x}{:02x}{:02x}".format(*colour),
        "ink": "#000" if is_light(colour) else "#fff",
        "path": _path_data(mask),
        "x": round((box[0] + box[2]) / 2, 1),
        "y": round((box[1] + box[3]) / 2, 1),
    }


def _path_data(mask: BoolMask) -> str:
    """The outline as an SVG path for the rule even-odd."""
    loops = []
    for contour in find_contours(mask)[:MAX_JOINED]:
        corners = (contour + 0.5).tolist()
        loops.append("M" + "L".join(f"{x:g} {y:g}" for x, y in corners) + "Z")
    return "".join(loops)
