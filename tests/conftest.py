"""What holds for every test: one thread a worker, no model hub, no key of whoever runs them."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Before anything imports torch: workers that each take every core only wait for one another.
os.environ.update(
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
)
for name in [name for name in os.environ if name.startswith(("OPENAI_", "RSVP_"))]:
    del os.environ[name]
os.environ["RSVP_CONFIG"] = os.devnull  # nor the defaults of whoever runs them

# A busy machine is no failure, and CI must not fail by chance: there, the same examples each time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
