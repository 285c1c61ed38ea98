"""The published JSON schemas are those of the models."""

from __future__ import annotations

import json
from pathlib import Path

from rsvp.cli import schemas

ROOT = Path(__file__).parents[2]


def test_the_published_schemas_are_up_to_date() -> None:
    assert schemas.run(["--check", str(ROOT / "docs" / "schemas")]) == 0


def test_a_schema_that_is_missing_or_old_is_named(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "schemas"
    assert schemas.run(["--check", str(folder)]) == 1
    assert schemas.run([str(folder)]) == 0
    assert schemas.run(["--check", str(folder)]) == 0
    path = folder / "result.schema.json"
    assert json.loads(path.read_text())["title"] == "ResultDocument"
    path.write_text("{}")
    assert schemas.run(["--check", str(folder)]) == 1
    assert f"{path} is out of date" in capsys.readouterr().err


def test_other_arguments_are_a_usage_error(capsys) -> None:
    assert schemas.run([]) == schemas.run(["a", "b"]) == 2
    assert "--check" in capsys.readouterr().err
