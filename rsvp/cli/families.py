"""The tables of the families of models and of the presets in a page of Markdown.

python -m rsvp.cli.families docs/models.md             write it
python -m rsvp.cli.families --check docs/models.md     exit with 1 when it is out of date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rsvp import families, presets
from rsvp.cli import help as help_page

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def page() -> str:
    """The page of this checkout with these two tables written anew; its text is its own."""
    text = PAGE.read_text(encoding="utf-8")
    for rows in (_preset_rows(), _family_rows()):
        table = _table(rows)
        first = re.escape(table.partition(" |")[0])
        text, count = re.subn(rf"^{first} \|.*\n(?:\|.*\n)*", lambda _: table, text, flags=re.M)  # noqa: B023
        if count != 1:
            raise ValueError(f"{PAGE} has {count} tables that begin with {table[:20]!r}")
    return text


def _preset_rows() -> Iterator[Sequence[str]]:
    yield "preset", "models", "download", "GPU", "without a GPU", "license", "source"
    for preset in presets.PRESETS:
        known = [(m, presets.CHECKPOINTS[m]) for m in preset.hub_models()]
        yield (
            f"`{preset.name}`",
            f"{_code(preset.mllm or 'openai:$' + presets.API_MODEL)} + {_code(preset.segmenter)}",
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
        yield (
            row.name,
            ", ".join(map(_code, row.model_types)),
            _code(row.frame),
            _code(row.box_key) if row.strategy == "boxes" else "",
            row.strategy,
            _size(row),
            row.thinking,
            ", ".join(row.run) or "nothing",
            row.source or "none found",
        )


def _size(row: families.ModelFamily) -> str:
    area = f", {row.max_pixels / 1e6:.2f} megapixels" if row.max_pixels else ""
    multiple = f", multiples of {row.multiple}" if row.multiple > 1 else ""
    return f"{row.max_side} px{area}{multiple}"


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *body = ([re.sub(r"([|<])", r"\\\1", cell) for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    raise SystemExit(help_page.run(sys.argv[1:], page, "rsvp.cli.families"))
