"""Training examples of the tasks beside segmentation: looking again, reasoning paths, verifying."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from recipes.embedded.examples import (
    NATURAL_WORDING,
    Example,
    Rng,
    TaskOptions,
    sample_wording,
)
from recipes.embedded.looking import qa_example
from recipes.embedded.paths import trace_example
from recipes.embedded.verifying import verify_example
from rsvp.embedded.traces import plain_name
from rsvp.embedded.vocabulary import Category
from rsvp.lexicon import Lexicon
from rsvp.types import RgbArray

TASKS: Mapping[str, Callable[..., Example]] = {
    "qa": qa_example,
    "trace": trace_example,
    "verify": verify_example,
}


def task_example(
    task: str, rng: Rng, photos: Sequence[RgbArray] = (), lexicon: Lexicon | None = None
) -> Example:
    """A picture of a task, "qa", "trace" or "verify", with several turns.

    Args:
        photos: (H, W, 3) uint8 arrays, used as backgrounds now and then.
        lexicon: what the questions are read with; with it they call things as people do.
    """
    if lexicon is None:
        return TASKS[task](rng, TaskOptions(photos))

    def read(text: str) -> str:
        return lexicon.read(text).text or text

    wording = sample_wording(rng, lexicon)
    describe = natural_name if wording else plain_name
    return TASKS[task](rng, TaskOptions(photos, describe, read, wording))


def natural_name(category: Category, rng: Rng) -> str:
    return NATURAL_WORDING.say(category.name, rng)


def task_prompts(n: int, seed: int) -> list[str]:
    """The prompts of n pictures of each task, to train the tokenizer on."""
    rng = np.random.default_rng(seed)
    return [
        turn.prompt for task in TASKS for _ in range(n) for turn in task_example(task, rng).turns
    ]
