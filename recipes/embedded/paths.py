"""Training examples of reasoning paths: questions of one to three hops, by every strategy."""

from __future__ import annotations

from collections.abc import Mapping

from recipes.embedded.examples import (
    PLAIN,
    Example,
    Rng,
    TaskOptions,
    Turn,
    assemble,
    sample_strategy,
)
from recipes.embedded.marks import mark_scene
from recipes.embedded.model import SIZE
from recipes.embedded.replies import GRID
from recipes.embedded.task_replies import trace_pieces
from rsvp.drawing import grid_prompt
from rsvp.embedded.scenes import Scene
from rsvp.embedded.traces import render_trace
from rsvp.prompting import render as render_prompt

TRACE_SHARES: Mapping[str, float] = {"boxes": 0.4, "grid": 0.2, "points": 0.15, "marks": 0.25}
QUESTIONS = 5  # of a scene, at most


def trace_example(
    rng: Rng,
    options: TaskOptions = PLAIN,
    shares: Mapping[str, float] = TRACE_SHARES,
) -> Example:
    """A scene with the visual prompt of a random strategy, questions and their true paths."""
    strategy = sample_strategy(shares, rng)
    turns: list[Turn] = []
    while not turns:
        scene = render_trace(rng, size=SIZE, count=QUESTIONS, **options.rendering())
        rgb, marked, numbers = scene.rgb, None, None
        if strategy == "marks":
            marked = mark_scene(Scene(rgb, scene.objects, ()), rng)
            rgb, numbers = marked.rgb, marked.numbers
        elif strategy == "grid":
            rgb = grid_prompt(rgb, GRID)
        turns = [
            Turn(
                render_prompt(f"compact/trace.{strategy}", query=options.read(q.text)),
                trace_pieces(q, scene.objects, strategy, numbers),
                q.answer_objects,
                tuple(step.object for step in q.path),
                strategy in ("boxes", "points"),
            )
            for q in scene.questions
            if numbers is None or all(i in numbers for i in q.answer_objects)
        ]
    return assemble(rgb, scene.objects, turns, marked)
