"""The JSON schemas of what rsvp writes and of the backends' options.

python -m rsvp.cli.schemas docs/schemas             write them
python -m rsvp.cli.schemas --check docs/schemas     exit with 1 when one is out of date
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rsvp import registry
from rsvp.cli.help import write_or_check

# Name of the file -> pydantic model.
MODELS: dict[str, str] = {
    "result": "rsvp.writers.document:ResultDocument",
    "answer": "rsvp.writers.document:AnswerDocument",
    "batch-record": "rsvp.batch.work:BatchRecord",
    "batch-line": "rsvp.batch.items:BatchLine",
    "batch-run": "rsvp.batch.runner:BatchConfig",
    "trace": "rsvp.writers.document:TraceDocument",
    "record": "rsvp.evaluation.records:Record",
    "run": "rsvp.evaluation.config:EvalConfig",
    "answer-record": "rsvp.evaluation.records:AnswerRecord",
    "answer-summary": "rsvp.evaluation.answers:AnswerSummary",
    "summary": "rsvp.evaluation.summary:Summary",
}
KINDS: tuple[Literal["mllm", "strategy", "segmenter", "detector"], ...] = (
    "mllm", "strategy", "segmenter", "detector",
)  # fmt: skip
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> Iterator[tuple[str, str]]:
    """Every schema's name and text."""
    for name, target in MODELS.items():
        module, _, model = target.partition(":")
        found = getattr(importlib.import_module(module), model)
        yield name, _text(found.model_json_schema(mode="serialization"))
    for kind in KINDS:
        # Only rsvp's own: a plug-in's options are not part of these pages.
        own = [n for n, target in registry.BUILT_IN[kind].items() if target.startswith("rsvp.")]
        options = {n: registry.options_model(kind, n).model_json_schema() for n in own}
        yield f"{kind}-options", _text({"title": f"{kind} options", "properties": options})


def run(arguments: Sequence[str]) -> int:
    """The script; returns the exit code."""

    def files(folder: Path) -> dict[Path, str]:
        return {folder / f"{name}.schema.json": text for name, text in schemas()}

    return write_or_check(arguments, files, "rsvp.cli.schemas [--check] FOLDER")


def _text(schema: dict[str, Any]) -> str:
    return json.dumps({"$schema": DIALECT, **schema}, indent=2) + "\n"


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
