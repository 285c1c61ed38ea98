"""A client of the server's application."""

from __future__ import annotations

import pytest


@pytest.fixture
def client():
    from served import make_client

    with make_client() as running:
        yield running
