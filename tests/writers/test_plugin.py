"""An export format from an installed package: one function and one entry point."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pil

from rsvp import registry, writers
from rsvp.cli.main import main
from rsvp.errors import BadInput

MODULE = '''\
"""Boxes as CSV."""

from collections.abc import Iterator
from pathlib import Path

from rsvp.types import Segmentation


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    rows = [",".join([t.label, *map(str, t.box.xyxy)]) for t in result.targets]
    yield "boxes.csv", ("\\n".join(["label,x0,y0,x1,y1", *rows]) + "\\n").encode()
'''
ENTRY_POINTS = "[rsvp.backends]\nwriter.csv = rsvp_csv:write\nwriter.broken = rsvp_csv:missing\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `rsvp_csv`, as pip installs it."""
    site = tmp_path / "site"
    (site / "rsvp_csv-0.1.dist-info").mkdir(parents=True)
    (site / "rsvp_csv-0.1.dist-info" / "METADATA").write_text("Name: rsvp-csv\nVersion: 0.1\n")
    (site / "rsvp_csv-0.1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "rsvp_csv.py").write_text(MODULE)
    monkeypatch.syspath_prepend(site)


def test_every_built_in_format_is_in_the_registry() -> None:
    for name in registry.BUILT_IN["writer"]:
        assert writers.check_formats([name, name]) == (name,)


@pytest.mark.usefixtures("installed")
def test_the_command_line_writes_the_format_of_a_plug_in(tmp_path: Path) -> None:
    image, out = tmp_path / "photo.png", tmp_path / "out"
    Pil.new("RGB", (40, 30)).save(image)
    words = ["segment", "--image", str(image), "--query", "cup", "--box", "3,4,20,30"]
    assert main([*words, "--segmenter", "box", "--out", str(out), "--format", "csv,json"]) == 0
    assert (out / "boxes.csv").read_text() == "label,x0,y0,x1,y1\ncup,3.0,4.0,20.0,30.0\n"
    assert (out / "result.json").is_file()


@pytest.mark.usefixtures("installed")
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown writer 'cvs', did you mean 'csv'\?.* yolo, .*csv"):
        writers.check_formats(["cvs"])
    with pytest.raises(BadInput, match=r"formats are json, .*, broken, csv, found none"):
        writers.check_formats([])
