"""What the tests of the server share; without the extra `serve` they are skipped."""

from __future__ import annotations

import pytest

for module in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(module)


@pytest.fixture
def client():
    from served import make_client

    with make_client() as running:
        yield running
