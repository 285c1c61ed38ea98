"""The options that commands share, and how a command begins."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from rsvp import presets
from rsvp.cli import console
from rsvp.errors import BadInput, printable

Preset = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Which models to use; `rsvp models` lists the presets, auto takes the best one that "
        "can run here now.",
    ),
]
Mllm = Annotated[
    str | None,
    typer.Option(
        "--mllm",
        metavar="SPEC",
        help="Another MLLM: openai:MODEL, transformers:ID-OR-FOLDER or replay:FILE.",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How the MLLM says where: boxes, grid, grid:ROWSxCOLUMNS, points, points:box, marks "
        "(the segmenter's own masks) or marks:DETECTOR, e.g. marks:sam3:ID-OR-FOLDER or "
        "marks:grounding-dino:ID-OR-FOLDER.",
    ),
]
Segmenter = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Another segmenter: sam2:ID-OR-FOLDER-OR-FILE.pt, sam3:, edgetam: or sam-hq: with "
        "ID-OR-FOLDER, vlsm:FOLDER, or box (no network). `docs/models.md` compares them.",
    ),
]
NoCot = Annotated[
    bool, typer.Option("--no-cot", help="Ask for the targets alone, without a chain of thought.")
]
Frame = Annotated[
    str | None,
    typer.Option(
        metavar="FRAME",
        help="How the MLLM writes coordinates, where rsvp guesses wrong: pixels, resized-pixels, "
        "0-1000, 0-1000-yxyx, 0-1024-yxyx, 0-1 or percent.",
    ),
]
TargetExists = Annotated[
    bool | None,
    typer.Option(
        "--target-exists/--target-may-be-absent",
        help="Tell the MLLM that every query's target is in its image, and ask once more where it "
        "finds none.",
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Whose rules, where projects differ; for reasonseg: lisa (the default), seg-zero, "
        "visionreasoner or reasonseg-x.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which split, where DIR holds several, e.g. testA."),
]
Language = Annotated[
    str,
    typer.Option(
        metavar="CODE",
        help="Of the query, for the embedded reasoner: en, de, es or zh. Other MLLMs read any "
        "language.",
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An option of the MLLM's backend, e.g. max_tokens=4096; segmenter.KEY and "
        "strategy.KEY are the others'. May be given several times.",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="How much one answer may cost: calls=N, tokens=N and seconds=X, all of the MLLM.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr what is going on.")]


def parse_options(texts: Sequence[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping; BadInput where one is of another form."""
    options: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise BadInput(f"--option is KEY=VALUE, found {text!r}")
        options[key.strip()] = value.strip()
    return options


def choose_preset(name: str) -> presets.Preset:
    """The preset called `name`; which one stands for ``auto``, and why, goes to stderr."""
    if name != presets.AUTO:
        return presets.get(name)
    chosen, why = presets.choose()
    console.print_err(f"preset {chosen.name}: {console.plain(why)}")
    return chosen


def without_secrets(options: Mapping[str, str]) -> dict[str, str]:
    """Options as a record may hold them: URLs without user, password and query."""
    from rsvp.mllm.endpoint import shown_url

    return {key: shown_url(text) if "://" in text else text for key, text in options.items()}


class _Formatter(logging.Formatter):
    """Logged lines with control characters as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def begin(*, verbose: bool = False, debug: bool = False) -> None:
    """Set up what goes to stderr, before any model library is imported.

    Libraries that warn of what is no concern of the user's are silent unless asked not to be.
    """
    # Spinning OpenMP threads make small models up to 11 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    level = logging.INFO if verbose or debug else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.getLogger("rsvp").setLevel(level)
    if verbose or debug:
        return
    warnings.simplefilter("ignore")
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }.items():
        os.environ.setdefault(name, value)
