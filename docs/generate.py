"""The generated pages of docs/: help, tables of models, questions to try, JSON schemas.

python docs/generate.py            write them
python docs/generate.py --check    exit with 1 when one is out of date
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from rsvp import families, presets, registry
from rsvp.cli.main import app, main
from rsvp.embedded import vocabulary

DOCS = Path(__file__).parent
MARK = "Written by `python docs/generate.py`; edit"

# Name of the schema's file -> pydantic model.
MODELS: Mapping[str, str] = {
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

QUESTIONS = f"""\
# Questions for the embedded preset

<!-- {MARK} rsvp/embedded/world/. -->

The reasoner in the package is a small model. It reads rendered scenes, not photographs, and knows
the things below by their names, groups, synonyms, looks and uses, in ordinary wording: requests,
politeness, capitals and one-letter typing errors are read. It compares positions, sizes and
colours, counts, and says when a thing is not there. Where a query rests on a word that it never
learned, it names the word instead of guessing. It still errs: eval/README.md says how often, on
questions that it was not trained on.

## Thirty questions to try

They are about the shipped picture, and a test asks them:

```bash
rsvp segment --image demo --query "which animal barks?" --out out
```

![Bread, a knife, a banana, a dog, a small and a large cup](../rsvp/embedded/demo.png)

%s
## What it knows

`rsvp models embedded` prints this list. `python -m rsvp.embedded.scenes --n 20 --seed 1 --out S`
renders pictures of these things with questions and true masks.

%s"""


def help_page() -> str:
    """The help of every command, the same on every terminal."""
    commands = [[], *([command.name] for command in app.registered_commands if command.name)]
    sections = [
        f"## {' '.join(['rsvp', *words])}\n\n```text\n{_help_of(words)}\n```\n"
        for words in commands
    ]
    return "\n".join(
        [f"# Command line\n\n<!-- {MARK} the commands, not this page. -->\n", *sections]
    )


def _help_of(words: Sequence[str]) -> str:
    columns = {"COLUMNS": "102"}  # help leaves two of them free
    with patch.dict(os.environ, columns), contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*words, "--help"])
    return printed.getvalue().strip()


def questions_page() -> str:
    """What the embedded reasoner knows, and questions to try."""
    examples = [
        (question, ", ".join(things) or "nothing: it is not there")
        for question, things in vocabulary.examples().items()
    ]
    names = [(group, ", ".join(things)) for group, things in vocabulary.names().items()]
    tables = _table([("question", "finds"), *examples]), _table([("group", "things"), *names])
    return QUESTIONS % tables


def models_page() -> str:
    """models.md, whose text is its own, with the tables of presets and families written anew."""
    file = DOCS / "models.md"
    text = file.read_text(encoding="utf-8")
    for rows in (_preset_rows(), _family_rows()):
        table = _table([re.sub(r"([|<])", r"\\\1", cell) for cell in row] for row in rows)
        first = re.escape(table.partition(" |")[0])
        text, count = re.subn(rf"^{first} \|.*\n(?:\|.*\n)*", lambda _: table, text, flags=re.M)  # noqa: B023
        if count != 1:
            raise ValueError(f"{file} has {count} tables that begin with {table[:20]!r}")
    return text


def _preset_rows() -> Iterator[Sequence[str]]:
    yield "preset", "models", "download", "GPU", "without a GPU", "license", "source"
    for preset in presets.PRESETS:
        known = [(m, presets.CHECKPOINTS[m]) for m in preset.hub_models()]
        yield (
            f"`{preset.name}`",
            f"`{preset.mllm or 'openai:$' + presets.API_MODEL}` + `{preset.segmenter}`",
            f"{preset.download_gb:.1f} GB" if known else "none",
            f"{preset.gpu_gb:g} GB",
            f"{preset.ram_gb:g} GB",
            ", ".join(dict.fromkeys(checkpoint.license for _, checkpoint in known)),
            "; ".join(checkpoint.source for _, checkpoint in known),
        )


def _family_rows() -> Iterator[Sequence[str]]:
    yield (
        "family", "`model_type`", "frame", "key", "api asks for", "size limit", "thinking",
        "run here", "source",
    )  # fmt: skip
    for row in families.FAMILIES:
        area = f", {row.max_pixels / 1e6:.2f} megapixels" if row.max_pixels else ""
        multiple = f", multiples of {row.multiple}" if row.multiple > 1 else ""
        yield (
            row.name,
            ", ".join(f"`{name}`" for name in row.model_types),
            f"`{row.frame}`",
            f"`{row.box_key}`" if row.strategy == "boxes" else "",
            row.strategy,
            f"{row.max_side} px{area}{multiple}",
            row.thinking,
            ", ".join(row.run) or "nothing",
            row.source or "none found",
        )


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON schemas of what rsvp writes and of the backends' options, by name."""
    for name, target in MODELS.items():
        module, _, model = target.partition(":")
        found = getattr(importlib.import_module(module), model)
        yield name, found.model_json_schema(mode="serialization")
    for kind in KINDS:
        # Only rsvp's own: a plug-in's options are not part of these pages.
        own = [n for n, target in registry.BUILT_IN[kind].items() if target.startswith("rsvp.")]
        options = {n: registry.options_model(kind, n).model_json_schema() for n in own}
        yield f"{kind}-options", {"title": f"{kind} options", "properties": options}


def pages() -> Iterator[tuple[str, str]]:
    """Every generated file: its path in docs/, and its text."""
    makers: Mapping[str, Callable[[], str]] = {
        "help.md": help_page, "models.md": models_page, "questions.md": questions_page,
    }  # fmt: skip
    for name, make in makers.items():
        yield name, make()
    for name, schema in schemas():
        text = json.dumps({"$schema": DIALECT, **schema}, indent=2) + "\n"
        yield f"schemas/{name}.schema.json", text


def run(check: bool, folder: Path = DOCS) -> int:
    """Write the files, or say which are out of date; returns the exit code."""
    old = {}
    for name, text in pages():
        file = folder / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            old[file] = text
    for file, text in old.items():
        if check:
            print(f"{file} is out of date: python docs/generate.py", file=sys.stderr)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        raise SystemExit("python docs/generate.py [--check]")
    raise SystemExit(run("--check" in sys.argv[1:]))
