"""`rsvp demo` exchanges the models of the server for those of another preset."""

from __future__ import annotations

import gc
import weakref

import pytest
from scripted import Recorder, pipeline
from served import CUP, IMAGE, LOCAL, TestClient, make_app

from rsvp import presets
from rsvp.cli import options, serve
from rsvp.errors import ModelUnavailable
from rsvp.pipeline import Pipeline
from rsvp.serving.limits import ServeLimits

alive = weakref.WeakSet[Pipeline]()


def make(*lines: str) -> Pipeline:
    """A pipeline, made when no other one is in memory."""
    gc.collect()
    assert not alive
    made = pipeline(*lines, segmenter=Recorder())
    alive.add(made)
    return made


def boxes() -> Pipeline:
    """The preset that the others are exchanged for: no MLLM, boxes only."""
    gc.collect()
    assert not alive
    made = Pipeline(None, None, Recorder())
    alive.add(made)
    return made


def fail() -> Pipeline:
    """A preset whose weights are gone."""
    raise ModelUnavailable("the weights are gone")


@pytest.fixture
def client():
    alive.clear()
    known = {"first": lambda: make(CUP, CUP), "boxes": boxes, "broken": fail}
    app = make_app(make(CUP, CUP), ServeLimits(running=1), presets=known)
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as running:
        yield running


def ask(client, **more):
    return client.post("/v1/segment", json={"image": IMAGE, **more})


def served(client) -> tuple[str, bool]:
    found = client.get("/v1/pipeline").json()
    return found["preset"], bool(found["strategies"])


def test_exchange_and_back(client) -> None:
    assert ask(client, preset="boxes", boxes=[[10, 10, 50, 50]]).status_code == 200
    assert served(client) == ("boxes", False)
    assert ask(client, preset="first", query="the cup").json()["targets"]
    assert served(client) == ("first", True)


def test_a_failed_load_leaves_the_former_preset(client) -> None:
    failed = ask(client, preset="broken", query="the cup")
    assert failed.status_code >= 500
    assert failed.json()["error"]["message"] == "the weights are gone"
    assert served(client) == ("first", True)
    assert ask(client, query="the cup").json()["targets"]


def test_a_preset_that_is_not_offered(client) -> None:
    refused = ask(client, preset="gpu80", query="the cup")
    assert refused.status_code == 422
    assert "first, boxes, broken" in refused.json()["error"]["message"]
    assert served(client) == ("first", True)


@pytest.mark.parametrize(
    ("given", "first"), [({}, "embedded"), ({"segmenter": "box"}, "as started")]
)
def test_what_the_page_offers(monkeypatch, given, first) -> None:
    ready = ("embedded", "laptop")
    monkeypatch.setattr(presets, "missing", lambda one: [] if one.name in ready else ["weights"])
    models = options.PipelineOptions(**given)
    offered = serve._offered(models, *models.pipeline_maker())
    assert [*offered] == [*dict.fromkeys([first, *ready])]
