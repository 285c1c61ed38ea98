"""The JSON schemas of what rsvp writes and of what it takes as options.

python -m rsvp.cli.schemas docs/schemas             write them
python -m rsvp.cli.schemas --check docs/schemas     exit with 1 when one is out of date
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

# Name of the file -> pydantic model.
MODELS: dict[str, str] = {"result": "rsvp.writers.document:ResultDocument"}

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> str:
    """The text of `NAME.schema.json`."""
    module, _, model = MODELS[name].partition(":")
    found = getattr(importlib.import_module(module), model).model_json_schema()
    return json.dumps({"$schema": DIALECT, **found}, indent=2) + "\n"


def run(arguments: Sequence[str]) -> int:
    """The script; returns the exit code."""
    check, paths = "--check" in arguments, [a for a in arguments if a != "--check"]
    if len(paths) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    files = {Path(paths[0], f"{name}.schema.json"): schema(name) for name in MODELS}
    if not check:
        Path(paths[0]).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        return 0
    old = [p for p, text in files.items() if not p.is_file() or p.read_text("utf-8") != text]
    for path in old:
        print(f"{path} is out of date: python -m rsvp.cli.schemas {paths[0]}", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
