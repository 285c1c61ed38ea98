"""The ablation on a few scenes, by the command; the embedded preset's own parts."""

from __future__ import annotations

from pathlib import Path

import demo_truth
import pytest

from eval import ablation
from rsvp.embedded import scenes

pytestmark = pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)


def test_the_table_has_a_line_per_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tmp_path / "S")
    made = ["--n", "2", "--seed", "31337", "--out", data, "--size", "160", "--kinds", "name"]
    assert scenes.main(made) == 0
    assert ablation.main(["--data", data, "--out", str(tmp_path / "A")]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["gIoU", "cIoU", "gIoU", "-", "full"]
    rows = ablation.rows("sam2:embedded")
    assert [line[:27].strip() for line in lines] == [row.name for row in rows]
    assert all(line.count("[") == (2 if line.startswith("full") else 3) for line in lines)


def test_a_preset_without_a_vlsm_is_refused(tmp_path: Path, capsys) -> None:
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "A"), "--preset", "local"]
    assert ablation.main(options) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
