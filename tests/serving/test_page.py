"""The page of `rsvp demo`: in a browser, on a real server, and its examples."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import demo_truth
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from scripted import Recorder, picture, pipeline
from served import CUP, TOKEN, make_client
from test_api import ANSWER, TRACE

from rsvp.pipeline import Pipeline
from rsvp.serving import pages
from rsvp.serving.app import make_app
from rsvp.serving.limits import ServeLimits

ROOT = Path(__file__).parents[2]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
needs_weights = pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
EVIL = "<img src=x onerror=console.log(1)><script>console.log(2)</script>"

# What the examples are right about: labels, the answer, or nothing.
TRUTH = {
    "what would you cut the bread with?": ["kitchen knife"],
    "all the cups": ["teacup without handle"] * 2,
    "which animal is below the bread?": "dog",
    "how many cups are there?": "2",
    "what gives light?": ["candle"],
    "both apples": ["red apple"] * 2,
    "which fruit is right of the doughnut?": "red apple",
    "the bicycle": [],
    "which insect makes honey?": ["honeybee"],
    "all the vegetables": ["cucumber", "hot pepper"],
    "which animal is below the honeybee?": "elephant",
    "what makes music?": ["guitar"],
    "everything red": ["guitar", "mushroom"],
    "which thing is below the banana?": "duck",
}


@pytest.fixture(scope="module")
def embedded() -> Pipeline:
    return Pipeline.from_preset("embedded")


@needs_weights
def test_the_examples_are_right(embedded: Pipeline) -> None:
    found = {}
    for number, questions in enumerate(pages.EXAMPLES.values()):
        image = pages.example_png(number)
        for task, text in questions:
            if task == "answer":
                found[text] = embedded.answer(image, text).answer
                continue
            read = embedded.reason(image, text, trace=task == "trace").reasoning
            found[text] = read.answer or sorted(one.label for one in read.proposals)
    assert found == TRUTH


def test_the_page_needs_no_token_and_runs_no_script_but_its_own() -> None:
    with make_client(token=TOKEN) as client:
        pages_ = [client.get(path) for path in ("/", "/page.css", "/page.js")]
        assert client.get("/v1/pipeline").status_code == 401
        assert client.get("/examples/0.png").status_code == 401
    assert [one.status_code for one in pages_] == [200] * 3
    policy = pages_[0].headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "style=" not in pages_[0].text


@pytest.mark.parametrize("number", ["4", "-1", "x", "..%2f0"])
def test_there_are_no_other_examples(client, number: str) -> None:
    assert client.get(f"/examples/{number}.png").status_code in (404, 422)


# ------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@contextlib.contextmanager
def shown(browser: Browser, pipe: Pipeline, width: int = 1280, **options) -> Iterator[str]:
    """The page of a real server; at its end nothing went wrong, and nothing else was asked for."""
    import uvicorn

    bound = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(make_app(pipe, **options), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    browser.errors.clear()
    browser.requests.clear()
    try:
        browser.open(f"{url}/", width)
        yield url
    finally:
        browser.open("about:blank", width)
        server.should_exit = True
        thread.join(20)
        bound.close()
    assert not [one for one in browser.requests if not one.startswith(f"{url}/")]
    assert browser.errors == []


def choose(browser: Browser, file: Path) -> None:
    """Choose a file as a user does."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)
    browser.wait("!document.getElementById('picture').hidden")


def ask(browser: Browser, text: str = "", task: str = "segment") -> None:
    """Ask, and wait for the answer."""
    browser.run(f"document.querySelector('[name=task][value={task}]').click()")
    browser.run(f"document.getElementById('question').value = {json.dumps(text)}")
    browser.run("document.getElementById('ask').click()")
    browser.wait("document.getElementById('ask').textContent === 'Ask'")


def said(browser: Browser, name: str) -> str:
    return browser.run(f"document.getElementById('{name}').innerText")


def drag(browser: Browser, tool: str, box: tuple[float, ...]) -> None:
    """Draw a box, in parts of the picture."""
    browser.run(f"document.querySelector('[data-tool={tool}]').click()")
    frame = browser.run("document.getElementById('drawing').getBoundingClientRect().toJSON()")
    corners = [
        (frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
        for x, y in (box[:2], box[2:])
    ]
    browser.move(*corners[0], "mousePressed")
    browser.move(*corners[1])
    browser.move(*corners[1], "mouseReleased")


def masked(browser: Browser, number: int, height: int, width: int, step: int) -> np.ndarray:
    """Which of every `step`-th pixels lie inside the drawn outline of an object."""
    inside = browser.run(
        f"""(() => {{ const one = document.getElementById('o{number}'), found = [];
        for (let y = 0; y < {height}; y += {step}) for (let x = 0; x < {width}; x += {step})
            found.push(one.isPointInFill(new DOMPoint(x + .5, y + .5)));
        return found; }})()"""
    )
    return np.array(inside).reshape(-(-height // step), -1)


@needs_browser
@needs_weights
def test_an_example_is_asked_and_its_mask_is_shown(browser, embedded, tmp_path) -> None:
    with shown(browser, embedded):
        browser.wait("document.querySelectorAll('#examples img').length === 4")
        browser.run("document.querySelector('#examples button').click()")
        browser.wait("document.querySelectorAll('#suggestions button').length === 4")
        browser.run("document.querySelector('#suggestions button').click()")
        browser.wait("document.querySelectorAll('#steps .label').length === 1")
        truth = embedded.segment("demo", demo_truth.QUERY).mask
        assert (masked(browser, 1, 480, 480, 7) == truth[::7, ::7]).all()
        # The step lightens its mask: the rest of the picture gets darker.
        corner = "document.querySelector('.veil'), '').opacity"
        assert browser.run(f"getComputedStyle({corner}") == "0"
        browser.run("document.querySelectorAll('.step')[1].focus()")
        browser.wait(f"getComputedStyle({corner} === '0.55'")
        assert browser.run("document.querySelector('.object.on .tag').textContent") == "1"
        save(browser, tmp_path, "get-mask")
        assert (np.asarray(opened(tmp_path / "mask.png"))[..., 0] == 255 * truth).all()


def save(browser: Browser, folder: Path, button: str) -> None:
    """Click on a download, and wait for its file."""
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.run(f"document.getElementById('{button}').click()")
    while not [one for one in folder.iterdir() if one.suffix in (".png", ".json")]:
        browser.wait("new Promise((done) => setTimeout(() => done(true), 20))")


def opened(file: Path):
    from PIL import Image

    return Image.open(file)


@needs_browser
@needs_weights
def test_a_photograph_is_refused_plainly_and_its_box_segmented(browser, embedded) -> None:
    with shown(browser, embedded, 375):
        choose(browser, ROOT / "docs/photo.jpg")
        ask(browser, "the rocket")
        assert "This model cannot read this image." in said(browser, "notice")
        assert "Not in this image" not in said(browser, "panel")
        assert browser.run("document.getElementById('about').open")
        drag(browser, "box", (0.4, 0.2, 0.6, 0.9))
        ask(browser)
        assert said(browser, "status") == "Done: 1 mask."
        assert browser.run("document.getElementById('notice').hidden")
        assert browser.run("document.documentElement.scrollWidth") <= 375


@needs_browser
@pytest.mark.parametrize(
    ("task", "line", "where", "text"),
    [
        ("answer", ANSWER, "answer", "red"),
        ("trace", TRACE, "answer", "the cup"),
        ("trace", TRACE, "steps", "A cup1."),
        ("segment", '{"targets": [], "reason": "no cup"}', "answer", "Not in this image"),
        ("segment", "no JSON", "notice", "That did not work."),
    ],
)
def test_every_kind_of_answer(browser, png, task, line, where, text) -> None:  # noqa: PLR0917
    with shown(browser, pipeline(line)):
        choose(browser, png)
        ask(browser, "what?", task)
        assert text in said(browser, where)


@needs_browser
def test_hints_go_to_the_model_or_the_segmenter(browser, png) -> None:
    pipe = pipeline(CUP)
    with shown(browser, pipe):
        choose(browser, png)
        drag(browser, "within", (0, 0, 0.5, 0.5))
        ask(browser, "the cup")
        assert len(pipe.mllm.asked) == 1
        browser.run("document.getElementById('drawing').focus()")
        browser.run("document.querySelector('[data-tool=point]').click()")
        for key in ("ArrowRight", "Enter"):
            browser.press(key)
        ask(browser, "the cup")
        assert len(pipe.mllm.asked) == 1
        ((point,),) = [one.points for one in pipe.segmenter.prompted[-1]]
        assert (point.x, point.y) == (104, 50)


@needs_browser
def test_texts_of_a_model_are_text(browser, png) -> None:
    target = {"label": EVIL, "box": [0, 0, 500, 500]}
    steps = [{"text": f"{EVIL} is there", "boxes": [[0, 0, 500, 500]]}]
    reply = json.dumps({"steps": steps, "targets": [target], "reason": EVIL})
    with shown(browser, pipeline(reply)):
        choose(browser, png)
        ask(browser, EVIL)
        assert EVIL in said(browser, "targets")
        assert EVIL in said(browser, "steps")
        assert browser.run("document.querySelectorAll('script, #panel img').length") == 1


@needs_browser
def test_the_page_asks_for_the_token(browser, png) -> None:
    with shown(browser, pipeline(CUP), token=TOKEN):
        browser.wait("!document.getElementById('sign-in').hidden")
        for token, visible in (("wrong", True), (TOKEN, False)):
            browser.run(f"document.getElementById('token').value = {json.dumps(token)}")
            browser.run("document.querySelector('#sign-in button').click()")
            browser.wait(f"document.getElementById('notice').hidden === {json.dumps(not visible)}")
            browser.wait(f"document.getElementById('sign-in').hidden === {json.dumps(not visible)}")
        choose(browser, png)
        ask(browser, "the cup")
        assert said(browser, "status") == "Done: 1 mask."
        browser.errors.clear()  # the browser logs every 401


@pytest.fixture
def png(tmp_path: Path) -> Path:
    from rsvp.writers.common import png

    file = tmp_path / "a.png"
    file.write_bytes(png(picture()))
    return file


@needs_browser
def test_another_preset_is_loaded_with_the_next_question(browser, png) -> None:
    known = {"first": lambda: pipeline(CUP), "boxes": boxes_alone}
    with shown(browser, known["first"](), limits=ServeLimits(running=1), presets=known):
        browser.wait("!document.getElementById('preset').hidden")
        choose(browser, png)
        browser.run(
            "const one = document.getElementById('preset'); one.value = 'boxes';"
            "one.dispatchEvent(new Event('change', { bubbles: true }))"
        )
        drag(browser, "box", (0.2, 0.2, 0.6, 0.6))
        ask(browser)
        browser.wait("document.getElementById('models').textContent.startsWith('no MLLM')")
        assert browser.run("document.getElementById('strategy').disabled")
        assert browser.run("document.getElementById('preset').value") == "boxes"


def boxes_alone() -> Pipeline:
    return Pipeline(None, None, Recorder())
