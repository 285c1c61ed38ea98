"""`result.html`: one file, everything escaped, and in a browser nothing goes wrong."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from scripted import answer, picture, pipeline

from rsvp import writers
from rsvp.types import Segmentation
from rsvp.writers.html import to_html

EVIL = [
    "<script>alert(1)</script>", "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>', "<svg onload=alert(4)>", "javascript:alert(5)",
    "{{ 7*7 }}", "{% raw %}", "${alert(6)}",
    "<!--", "]]>", "</style><style>body{display:none}", "&lt;b&gt;", "' onmouseover='alert(7)",
    "\u202egnp.exe", "كأس على اليسار", "כוס \u2067x", "a\0b\x1b[31m", "\ud800", "😀" * 50,
    "<iframe src=//example.com>", "<base href=//example.com>", "url(//example.com/x)",
    "<link rel=stylesheet href=//example.com>", "\u2028\u2029", "x" * 100_000,
]  # fmt: skip


def hostile(number: int) -> str:
    return f"{EVIL[number % len(EVIL)]} {number}"


def path(count: int, per_step: int = 4) -> str:
    """Labels and texts that are code, right to left, or very long."""
    rng = np.random.default_rng(0)
    things = []
    for number in range(count):
        x, y = (int(v) for v in rng.integers(0, 800, 2))
        place = {} if number % 9 == 8 else {"box": [x, y, x + 150, y + 150]}
        things.append({"id": number + 1, "label": hostile(number), **place})
    steps = [
        {
            "text": f"{hostile(start)} is left of {hostile(start + 1)}",
            "objects": things[start : start + per_step],
        }
        for start in range(0, count, per_step)
    ]  # fmt: skip
    return json.dumps({"path": steps, "answer": hostile(1), "answer_objects": things[1:2]})


def trace(count: int = 200):
    return pipeline(path(count)).trace(picture(), hostile(0))


class Tags(HTMLParser):
    """The tags and attributes of a page, without what is in `<script>` and `<style>`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def plain() -> Segmentation:
    steps = [{"text": hostile(0), "boxes": [[0, 0, 100, 100]]}]
    return pipeline(answer((0, 0, 500, 500), steps=steps)).segment(picture(), hostile(3))


@pytest.mark.parametrize("make", [trace, plain], ids=["trace", "segment"])
def test_a_page_has_no_tag_and_no_address_but_its_own(make) -> None:
    page = to_html(make())
    tags = Tags(page).found
    assert {tag for tag, _ in tags} <= {
        "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "figure",
        "svg", "defs", "path", "mask", "rect", "use", "image", "g", "circle", "text", "nav",
        "button", "output", "section", "ol", "ul", "li", "div", "bdi", "b", "span", "p", "details",
        "summary", "script",
    }  # fmt: skip
    assert [tag for tag, _ in tags].count("script") == 1
    for _, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        assert re.fullmatch(
            r"(#o\d+|data:image/jpeg;base64,[\w+/=]+)?", attributes.get("href") or ""
        )
        assert "src" not in attributes
    policy = next(a["content"] for _, a in tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert not {c for c in page if not c.isprintable()} - {"\n"}


def test_a_result_without_targets_says_so() -> None:
    page = to_html(pipeline('{"targets": [], "reason": "no cup"}').segment(picture(), "cup"))
    assert "no target in this image" in page
    assert "no cup" in page


def test_a_page_of_a_large_image_stays_small(tmp_path: Path) -> None:
    smooth = np.zeros((3000, 4000, 3), np.uint8)
    box = {"label": "a", "box": [100, 100, 900, 900]}
    text = json.dumps(
        {"path": [{"text": "a", "objects": [box]}], "answer": "a", "answer_objects": [box]}
    )
    (file,) = writers.write(pipeline(text).trace(smooth, "a?"), tmp_path, ["html"])
    assert file.stat().st_size < 60_000


# ------------------------------------------------------------ in a browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
WIDTHS = (360, 768, 1280)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


def opened(browser: Browser, result: Segmentation, folder: Path, width: int) -> None:
    (file,) = writers.write(result, folder, ["html"])
    browser.errors.clear()
    browser.requests.clear()
    browser.open(file, width)


LIT = "[...document.querySelectorAll('.object.{}')].map((one) => one.dataset.number).join()"
PLACE = "document.getElementById('place').textContent"


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_texts_do_nothing(browser: Browser, tmp_path: Path, width: int) -> None:
    opened(browser, trace(), tmp_path, width)
    assert browser.run("document.querySelectorAll('.step').length") == 51
    assert browser.run("document.querySelectorAll('.object').length") == 178
    assert browser.run("document.querySelectorAll('script, iframe, img, base, link').length") == 1
    for _ in range(52):
        browser.press("ArrowRight")
    assert browser.run(PLACE) == "51 of 51"
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("getComputedStyle(document.body).display") == "block"
    assert (browser.errors, browser.requests) == ([], [])
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder, f"hostile-{width}.png").write_bytes(browser.screenshot())


DOG = {"label": "dog", "box": [100, 200, 300, 500]}
CUP = {"label": "cup", "box": [500, 300, 700, 600]}
STEPS = [
    {"text": "The dog is there.", "objects": [DOG]},
    {"text": "Right of it: the cup.", "objects": [CUP]},
]
SIMPLE = json.dumps({"path": STEPS, "answer": "the cup", "answer_objects": [CUP]})


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_steps_are_replayed_by_keys_buttons_and_clicks(browser, tmp_path: Path, width: int) -> None:
    opened(browser, pipeline(SIMPLE).trace(picture(), "which?"), tmp_path, width)
    assert (browser.run(PLACE), browser.run(LIT.format("on"))) == ("all objects", "")
    shown = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Home", "End"):
        browser.press(key)
        shown.append(browser.run(LIT.format("on")))
    assert shown == ["1", "2", "2", "2", "1", "2"]
    assert browser.run("document.querySelectorAll('[aria-current]').length") == 1
    browser.run("document.getElementById('back').click()")
    assert browser.run(PLACE) == "2 of 3"
    browser.run("document.querySelectorAll('.step')[0].click()")
    assert browser.run("document.body.className") == "stepping"
    browser.run("document.getAnimations().forEach((one) => one.finish())")
    assert browser.run("getComputedStyle(document.querySelector('.object.on')).opacity") == "1"
    # The veil has a hole for this object alone: one of another would hide it where they overlap.
    holes = "[...document.querySelectorAll('.hole')].map((one) => getComputedStyle(one).display)"
    assert browser.run(f"{holes}.join()") == "inline,none"
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder, f"simple-{width}.png").write_bytes(browser.screenshot())
    assert (browser.errors, browser.requests) == ([], [])


@needs_browser
def test_the_same_object_lights_in_text_and_picture(browser, tmp_path: Path) -> None:
    opened(browser, pipeline(SIMPLE).trace(picture(), "which?"), tmp_path, 1280)

    def center(selector: str) -> list[float]:
        rect = f"document.querySelector('{selector}').getBoundingClientRect()"
        return browser.run(
            f"(() => {{ const r = {rect}; return [r.x + r.width/2, r.y + r.height/2] }})()"
        )

    browser.move(*center('.label[data-number="2"]'))
    assert browser.run(LIT.format("lit")) == "2"
    browser.move(*center('.object[data-number="1"] > use'))
    lit = "[...document.querySelectorAll('.label.lit')].map((one) => one.dataset.number).join()"
    assert (browser.run(LIT.format("lit")), browser.run(lit)) == ("1", "1")
    browser.run(
        "document.querySelector('.label[data-number=\"2\"]').focus()"
    )  # by keyboard or touch
    assert "2" in browser.run(LIT.format("lit"))


@needs_browser
def test_it_plays_by_itself_to_the_end(browser, tmp_path: Path) -> None:
    opened(browser, pipeline(SIMPLE).trace(picture(), "which?"), tmp_path, 768)
    browser.press(" ")
    while browser.run(PLACE) != "3 of 3":
        pass
    assert browser.run("document.getElementById('play').textContent") == "▶"
