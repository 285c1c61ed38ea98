"""Executes a notebook without Jupyter, and writes what its cells give: `… docs/quickstart.ipynb`.

Format: https://nbformat.readthedocs.io/en/latest/format_description.html. A value that shows itself
as HTML is kept as that alone, so that the file stays small.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def execute(document: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, run in order in one namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _outputs("".join(cell["source"]), names, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}  # noqa: PLW2901
        cells.append(cell)
    return {**document, "cells": cells}


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a cell prints, and its last line's value."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"<cell {count}>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = _lines(printed.getvalue())
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        html = getattr(value, "_repr_html_", None)
        data = {"text/html": _lines(html())} if html else {}
        data["text/plain"] = [f"<{type(value).__name__}>"] if html else _lines(repr(value))
        outputs.append(
            {
                "output_type": "execute_result",
                "execution_count": count,
                "data": data,
                "metadata": {},
            }
        )
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def dumps(document: Mapping[str, Any]) -> str:
    """As Jupyter writes it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(dumps(execute(json.loads(file.read_text("utf-8")))), encoding="utf-8")
