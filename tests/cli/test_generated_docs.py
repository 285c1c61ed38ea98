"""The generated pages and JSON schemas of docs/ are those of the commands and the models."""

from __future__ import annotations

import json
from pathlib import Path

from docs import generate


def test_the_published_pages_are_up_to_date(capsys) -> None:
    assert generate.run(check=True) == 0, capsys.readouterr().err


def test_a_file_that_is_missing_or_old_is_named(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(generate, "KINDS", ())
    assert generate.run(check=True, folder=tmp_path) == 1
    assert not (tmp_path / "schemas").exists()
    assert generate.run(check=False, folder=tmp_path) == 0
    assert generate.run(check=True, folder=tmp_path) == 0
    path = tmp_path / "schemas" / "result.schema.json"
    assert json.loads(path.read_text())["title"] == "ResultDocument"
    path.write_text("{}")
    capsys.readouterr()
    assert generate.run(check=True, folder=tmp_path) == 1
    assert capsys.readouterr().err == f"{path} is out of date: python docs/generate.py\n"
