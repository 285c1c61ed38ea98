"""The page of a run: whole in itself, safe to open, and about the right samples."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rectangles import A, B, FakePipeline, filled, write_scenes

from rsvp.datasets import Sample
from rsvp.datasets.scenes import SceneDataset
from rsvp.errors import BadInput, UnparsableReply
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.records import Record, read
from rsvp.evaluation.report import page as report_html
from rsvp.evaluation.report import pictures
from rsvp.evaluation.report.pictures import COLOURS, Examples
from rsvp.evaluation.runner import evaluate
from rsvp.masks import encode_rle

EVIL = "<script>alert('x')</script> \" onerror=\"x \x1b[2J"
ANSWERS = {
    "query 0": [A],
    "query 1": [A],
    "query 2": [],
    "query 3": UnparsableReply(EVIL, raw=EVIL),
    "query 4": [],
    "query 5": [A],
}


@pytest.fixture
def run(tmp_path):
    data = write_scenes(tmp_path / "data", 6)
    evaluate("scenes", data, FakePipeline(ANSWERS), tmp_path / "out", progress=False)
    return tmp_path


@pytest.fixture
def html(run):
    return (run / "out" / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Which tags and attributes a page has, and that every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.attributes, self.open, self.names = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing(html):
    tags = Tags(html)
    assert tags.open == []
    assert not tags.names & {"script", "link", "iframe", "object", "form", "a", "base"}
    sources = [value for name, value in tags.attributes if name in ("src", "href", "srcset")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|@import|url\(", html)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]


def test_what_models_and_files_say_is_text(html):
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in html
    assert "\x1b" not in html


def test_every_number_of_the_summary_is_there(run, html):
    summary = json.loads((run / "out" / "summary.json").read_text())
    for group in (summary, summary["unseen"], *summary["by_kind"].values()):
        assert f"{group['giou']['mean']:.3f}" in html
        assert f"[{group['giou']['low']:.3f}, {group['giou']['high']:.3f}]" in html
    assert f"{summary['box_recall']['mean']:.3f}" in html
    assert "UnparsableReply" in html
    assert "fake:reasoner" in html  # how it was run


def test_a_run_whose_pictures_have_gone_still_has_its_page(run):
    dataset = SceneDataset(run / "data")
    for file in (run / "data").glob("*.png"):
        file.unlink()
    out = run / "out"
    summary = json.loads((out / "summary.json").read_text())
    html = report_html.page(EvalConfig.read(out), summary, read(out / "records.jsonl"), dataset)
    assert "no picture: sample 000/0: no such image file" in html


def record(number, iou, union=10, failure=None):
    return Record.model_construct(id=str(number), iou=iou, union=union, failure=failure)


def test_the_best_the_worst_and_the_failed_are_chosen():
    examples = Examples(2)
    for one in (
        record(0, 1.0, union=0),  # rightly nothing: there is nothing to see
        record(1, 0.9),
        record(2, 0.0, union=5),
        record(3, 0.95),
        record(4, 0.0, union=500),
        record(5, 0.0, failure={"error": "E", "message": ""}),
        record(6, None, union=0),  # left out by the protocol
    ):
        examples.add(one)
    assert [r.id for r in examples.best] == ["3", "1"]
    assert [r.id for r in examples.worst] == ["4", "2"]
    assert [r.id for r in examples.failed] == ["5"]


def test_pixels_are_painted_by_what_became_of_them():
    grey = np.full((24, 32, 3), 128, dtype=np.uint8)
    ignore = np.zeros((24, 32), dtype=np.bool_)
    ignore[20:, :4] = True
    sample = Sample("a", b"", "q", "k", filled(A) | filled(B), ignore=ignore)
    predicted = filled(A)
    predicted[20:, 10:20] = True
    view = pictures.painted(grey, sample, predicted)
    # On contours the colours are pure.
    assert tuple(view[2, 2]) == COLOURS["hit"]
    assert tuple(view[4, 14]) == COLOURS["missed"]
    assert tuple(view[20, 12]) == COLOURS["surplus"]
    assert tuple(view[20, 1]) == COLOURS["ignored"]
    assert tuple(view[0, 31]) == (128, 128, 128)
    assert view[6, 6, 1] > 128  # inside, the picture shows through
    assert view[6, 6, 1] < COLOURS["hit"][1]


def test_a_mask_of_another_size_is_refused(tmp_path):
    sample = SceneDataset(write_scenes(tmp_path / "data", 1))[0]
    with pytest.raises(BadInput, match="000/0: the mask is of size"):
        pictures.data_uri(sample, [encode_rle(np.zeros((3, 3), np.bool_))])


def test_the_histogram_counts_every_sample_once(html):
    """IoU 0 (two samples and a failed one), 0.25, and 1 twice: the last bin holds 1."""
    titles = re.findall("<title>(IoU .*?)</title>", html)
    assert titles == [
        "IoU 0.00 to 0.05: 3 samples, 1 failed",
        "IoU 0.25 to 0.30: 1 samples",
        "IoU 0.95 to 1.00: 2 samples",
    ]
    bars = re.findall(r'<rect class="(failed|answered)" .*? y="(\S+)" .*? height="(\S+)"', html)
    (_, y, height), (_, upper_y, upper_height) = bars[:2]
    assert float(y) + float(height) == pytest.approx(212, abs=0.1)
    assert float(upper_y) + float(upper_height) == pytest.approx(float(y), abs=0.1)
    assert float(upper_height) == pytest.approx(2 * float(height), abs=0.2)  # rounded to 0.1
    assert float(upper_y) == pytest.approx(22, abs=0.1)  # the highest bin fills the plot


def strip(low, mean, high):
    macros = report_html.templates().get_template("charts.html.jinja").module
    return str(macros.interval({"low": low, "mean": mean, "high": high}))


def test_an_interval_is_drawn_to_scale():
    assert 'x="30.0" y="3" width="60.0"' in strip(0.25, 0.5, 0.75)
    assert 'cx="60.0"' in strip(25, 50, 75)
    assert 'width="1.5"' in strip(0.5, 0.5, 0.5)
