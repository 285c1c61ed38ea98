"""docs/quickstart.ipynb: it runs from end to end, and shows what it is committed with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import demo_truth
import notebook_runner
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"
AGAIN = "out of date: python tests/notebook_runner.py docs/quickstart.ipynb"


def shown(document) -> list[list[str]]:
    """What each code cell shows, without pictures and without the digits of numbers."""
    texts = [
        ["".join(o.get("text") or next(iter(o["data"].values()))) for o in cell["outputs"]]
        for cell in document["cells"]
        if cell["cell_type"] == "code"
    ]
    plain = r'base64,[^"]+|\d+(\.\d+)?'
    return [[re.sub(plain, "…", text) for text in outputs] for outputs in texts]


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_it_is_small_and_as_jupyter_writes_it(committed) -> None:
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook_runner.dumps(committed)
    assert NOTEBOOK.stat().st_size < 200_000
    ids = [cell["id"] for cell in committed["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
def test_every_cell_runs_and_shows_what_is_committed(committed, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    executed = notebook_runner.execute(committed)
    assert shown(executed) == shown(committed), AGAIN
    html = [text for outputs in shown(executed) for text in outputs if "<img" in text]
    assert len(html) == 3
    assert ["no answer: " in text for text in html] == [False, True, False]
    assert not [*tmp_path.iterdir()]
