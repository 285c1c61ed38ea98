"""Training examples of the tasks beside segmentation: looking again, reasoning paths, verifying."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from recipes.embedded.examples import Example, Rng
from recipes.embedded.looking import qa_example
from recipes.embedded.paths import trace_example
from recipes.embedded.verifying import verify_example
from rsvp.embedded.traces import Describe, plain_name
from rsvp.types import RgbArray

TASKS: Mapping[str, Callable[..., Example]] = {
    "qa": qa_example,
    "trace": trace_example,
    "verify": verify_example,
}


def task_example(
    task: str, rng: Rng, photos: Sequence[RgbArray] = (), describe: Describe = plain_name
) -> Example:
    """A picture of a task, "qa", "trace" or "verify", with several turns.

    Args:
        photos: (H, W, 3) uint8 arrays, used as backgrounds now and then.
        describe: how things are called in the questions; the queries of "verify" have their own
            wording.
    """
    if task == "verify":
        return verify_example(rng, photos)
    return TASKS[task](rng, photos, describe)


def task_prompts(n: int, seed: int) -> list[str]:
    """The prompts of n pictures of each task, to train the tokenizer on."""
    rng = np.random.default_rng(seed)
    return [
        turn.prompt for task in TASKS for _ in range(n) for turn in task_example(task, rng).turns
    ]
