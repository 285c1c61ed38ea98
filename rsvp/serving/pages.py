"""The web page of `rsvp demo`: its files, its examples, and what it must know of the server."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.responses import Response

from rsvp import presets
from rsvp.batch.tasks import AnswerTask, SegmentTask, Task
from rsvp.embedded.scenes import render
from rsvp.errors import RsvpError
from rsvp.images import DEMO, load_image
from rsvp.serving.limits import PAGE, RequestRefused
from rsvp.serving.service import Server
from rsvp.writers.common import png

TASKS: tuple[Task, ...] = (SegmentTask(), AnswerTask(), SegmentTask(trace=True))
# What the page may load: its own files, from this server alone; no script of a text, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_SIZE = 480  # pixels of an example's side

# Pictures that the embedded preset reads, and questions that it answers right: a test asks them.
# The shipped picture, then scenes by the seed that they are rendered from.
EXAMPLES: dict[int | None, tuple[tuple[str, str], ...]] = {
    None: (
        ("segment", "what would you cut the bread with?"),
        ("segment", "all the cups"),
        ("trace", "which animal is below the bread?"),
        ("answer", "how many cups are there?"),
    ),
    1920: (
        ("segment", "what gives light?"),
        ("segment", "both apples"),
        ("trace", "which fruit is right of the doughnut?"),
        ("segment", "the bicycle"),
    ),
    1915: (
        ("segment", "which insect makes honey?"),
        ("segment", "all the vegetables"),
        ("trace", "which animal is below the honeybee?"),
    ),
    1904: (
        ("segment", "what makes music?"),
        ("segment", "everything red"),
        ("trace", "which thing is below the banana?"),
    ),
}


def add_routes(app: FastAPI, server: Server) -> None:
    """Add the page at `/`, its files, its examples, and `/v1/pipeline`."""

    def pipeline() -> dict[str, Any]:
        """The models, and what a request may choose: tasks and strategies."""
        return describe(server)

    def example(number: int) -> Response:
        """A picture to try."""
        if not 0 <= number < len(EXAMPLES):
            raise RequestRefused(404, f"there are {len(EXAMPLES)} examples, found {number}")
        return Response(example_png(number), media_type="image/png")

    app.add_api_route("/v1/pipeline", pipeline)
    app.add_api_route("/examples/{number}.png", example, include_in_schema=False)
    for path, name in PAGE.items():
        app.add_api_route(path, functools.partial(_file, name), include_in_schema=False)


def describe(server: Server) -> dict[str, Any]:
    """What the page must know of the server."""
    served, strategy = server.pipeline, server.pipeline.strategy
    mllm = served.mllm.name if served.mllm else None
    examples = EXAMPLES if mllm == "transformers:embedded" else {}
    return {
        "models": {"mllm": mllm, "segmenter": served.segmenter.name},
        "tasks": [task.name for task in TASKS if _can(server, task)],
        "strategy": strategy.name if strategy and mllm else None,
        "strategies": list(server.strategies),
        "preset": server.preset,
        "offered": list(server.presets),
        "presets": [
            {"name": preset.name, "handles": preset.handles, "runs": preset.mllm == mllm}
            for preset in presets.PRESETS
        ],
        "examples": [
            {"image": f"/examples/{number}.png", "questions": questions}
            for number, questions in enumerate(examples.values())
        ],
    }


def _can(server: Server, task: Task) -> bool:
    try:
        task.check(server.pipeline)
    except RsvpError:
        return False
    return True


@functools.cache
def example_png(number: int) -> bytes:
    """An example as PNG."""
    seed = [*EXAMPLES][number]
    if seed is None:
        return png(load_image(DEMO).rgb)
    return png(render(np.random.default_rng(seed), size=_SIZE).rgb)


@functools.cache
def _file(name: str) -> Response:
    """A file of the page; it shares the styles of `result.html`."""
    text = resources.files("rsvp.serving").joinpath("page", name).read_text(encoding="utf-8")
    if name == "page.css":
        shared = resources.files("rsvp.writers").joinpath("figure.css")
        text = shared.read_text(encoding="utf-8") + text
    headers = {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return Response(text, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
