"""The server's application with scripted models, and pictures as clients send them."""

from __future__ import annotations

import base64

import pytest
from scripted import Recorder, answer, picture, pipeline

for module in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(module)  # the extra `serve`

from starlette.testclient import TestClient  # noqa: E402

from rsvp.serving.app import make_app  # noqa: E402
from rsvp.serving.limits import ServeLimits  # noqa: E402
from rsvp.writers.common import png  # noqa: E402

TOKEN = "s3cret-token"
LOCAL = "http://127.0.0.1"
PNG = png(picture())  # 200 x 100
IMAGE = base64.b64encode(PNG).decode()
CUP = answer([100, 200, 500, 800], steps=["a cup stands there"])


def make_client(*lines, limits=None, base_url=LOCAL, segmenter=None, **options) -> TestClient:
    """A client of a new application; `client.pipeline` is what it serves."""
    pipe = pipeline(*(lines or (CUP,)), segmenter=segmenter or Recorder())
    app = make_app(pipe, limits or ServeLimits(), **options)
    client = TestClient(app, base_url=base_url, raise_server_exceptions=False)
    client.pipeline = pipe
    return client


def untimed(document: dict) -> dict:
    """A result without what differs from run to run."""
    return {key: value for key, value in document.items() if key != "timings"}
