from __future__ import annotations

import pytest

from recipes.embedded import reasoner
from recipes.embedded.tokenizer import make_tokenizer


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Three steps of the reasoner, stopped by --steps after the second and resumed."""
    out = tmp_path_factory.mktemp("reasoner")
    make_tokenizer(out / "tokenizer", 60)
    settings = {"perception_steps": 1, "batch": 2, "turns": 1, "log_every": 1}
    reasoner.train(out, reasoner.ReasonerConfig(steps=2, **settings))
    reasoner.train(out, reasoner.ReasonerConfig(steps=3, **settings))
    return out
