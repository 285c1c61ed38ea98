"""The table of ambiguous boxes, by the command, on a few scenes."""

from __future__ import annotations

import json
from pathlib import Path

import demo_truth
import pytest

from eval import ambiguity
from rsvp.training.validation import AMBIGUOUS

needs_weights = pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)


@needs_weights
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "scenes:4242,3", "--limit", "3"]
    assert ambiguity.main([*options, "--pictures", str(tmp_path / "P"), "--draw", "1"]) == 0
    out = capsys.readouterr().out
    assert len(list((tmp_path / "P").glob("*.png"))) == 1
    assert ambiguity.main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["by_style"]
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == list(found)
    for name, row in found.items():
        assert row["n"] == (sum(found[s]["n"] for s in AMBIGUOUS) if name == "ambiguous" else 3)
        gain = row["segmenter"]["mean"] - row["base"]["mean"]
        assert row["difference"]["mean"] == pytest.approx(gain)


def test_a_limit_of_no_pictures_is_refused(capsys) -> None:
    assert ambiguity.main(["--data", "scenes:4242,3", "--limit", "0"]) == 2
    assert capsys.readouterr().err == "error: the limit is at least 1 picture, found 0\n"
