"""The families of models and the presets as one page of Markdown.

python -m rsvp.cli.families docs/models.md             write it
python -m rsvp.cli.families --check docs/models.md     exit with 1 when it is out of date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from rsvp import families, presets
from rsvp.cli import help as help_page

_INTRODUCTION = """\
# Models

<!-- Written by `python -m rsvp.cli.families docs/models.md`; edit the tables, not this page. -->

## Presets

Sizes are those of the weights in 10^9 bytes. Of these checkpoints only `embedded` was run for this
project. `--preset auto` takes the best one that can run without a
download: a model that `RSVP_API_MODEL` names, with its key; else the largest one that was
downloaded and fits into memory; else `embedded`.

Without a GPU, MLLMs run in float32 and need the memory of the table. On a CPU with instructions for
bfloat16 (`avx512_bf16` or `amx_bf16` in Linux's /proc/cpuinfo), large MLLMs that were published in
bfloat16 run in that, in the memory of the GPU's column; docs/speed.md has a run of `laptop`.

The segmenter is SAM 2.1; any of the next table takes its place with `--segmenter`.
"""

_SEGMENTERS = """\
## Segmenters

All take boxes and points, give automatic masks (`marks`), and were compared with their own classes
on random weights only: no real checkpoint was run but the embedded ones. `python -m
eval.segmenters` measures their time at full size. HQ-SAM's mask decoder has another layout, so that
the VLSM cannot build on it. Concepts, `marks:sam3:ID` and `marks:sam3-lite:ID`, are the other half
of SAM 3: every instance of noun phrases, with masks. The MLLM names the phrases in a turn before,
and `--like X0,Y0,X1,Y1` draws a box around an example of what to find more of.
"""

_FAMILIES = """\
## Families

How the models of a family write coordinates, from public text. A family is found by the
`model_type` of config.json where there is one (a folder, or a hub id that was downloaded), else by
the model's name. `--frame` and `--strategy` override a row. Of models that are in no row, the
frame is assumed to be 0-1000, and a warning says so. `api asks for` is what the `api` preset does:
boxes or points of families that were trained to write them, bands of a grid of all others.

Frames: `pixels` of the image as sent; `resized-pixels`, those of the image after the model's own
resizing; `0-1000`, `0-1000-yxyx` (y before x), `0-1024-yxyx`, `0-1` and `percent` of the image.
Images are sent with at most the longest side of the table, and where there is one, its area; the
model's own resizing keeps sides that are the multiples of the table.

`run here` names what tests/families runs: a class with tiny random weights in a folder as it is
published, or a server's dialect; never a real checkpoint. `OWNER/NAME#N` is an issue on GitHub.
Where no public text says how a family writes boxes (model cards, issues and provider documentation
were searched), the frame is assumed too.
"""

_SEGMENTER_ROWS = (
    ("segmenter", "take it", "weights", "license", "`rsvp train`", "source"),
    (
        "`sam2:facebook/sam2.1-hiera-large`, `-tiny`", "by default", "0.90 GB, 0.16 GB",
        "Apache-2.0", "yes", "huggingface.co/facebook/sam2.1-hiera-large",
    ),
    (
        "`sam3:facebook/sam3`", "for concepts and masks from one checkpoint; on a GPU",
        "gated: ask for access on its page, then `hf auth login`",
        "SAM License: its own terms, some uses are forbidden", "yes",
        "huggingface.co/docs/transformers/model_doc/sam3_tracker",
    ),
    (
        "`sam-hq:syscv-community/sam-hq-vit-base`", "for thin and intricate outlines", "0.38 GB",
        "Apache-2.0 (github.com/SysCV/sam-hq)", "no",
        "huggingface.co/syscv-community/sam-hq-vit-base/tree/main",
    ),
    (
        "`edgetam:yonigozlan/EdgeTAM-hf`", "on small machines; needs the extra `vision`",
        "0.06 GB", "Apache-2.0", "yes", "huggingface.co/docs/transformers/model_doc/edgetam",
    ),
)  # fmt: skip


def page() -> str:
    """The page."""
    blocks = (
        *(_INTRODUCTION, _table(_preset_rows())),
        *(_SEGMENTERS, _table(_SEGMENTER_ROWS)),
        *(_FAMILIES, _table(_family_rows())),
    )
    return "\n".join(blocks)


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
