"""The options that commands share, and how a command begins."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from rsvp import presets
from rsvp.cli import console
from rsvp.errors import BadInput, RsvpWarning, printable

_MAX_STDIN = 1 << 30  # bytes

Preset = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar="RSVP_PRESET",
        autocompletion=lambda: [*presets.names(), presets.AUTO],
        help="Which models to use; `rsvp models` lists the presets, auto takes the best one that "
        "can run here now.",
    ),
]
Mllm = Annotated[
    str | None,
    typer.Option(
        "--mllm",
        metavar="SPEC",
        envvar="RSVP_MLLM",
        help="Another MLLM: openai:MODEL, transformers:ID-OR-FOLDER or replay:FILE.",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="RSVP_STRATEGY",
        help="How the MLLM says where: boxes, grid, grid:ROWSxCOLUMNS, points, points:box, marks "
        "(the segmenter's own masks) or marks:DETECTOR, e.g. marks:sam3:ID-OR-FOLDER or "
        "marks:grounding-dino:ID-OR-FOLDER.",
    ),
]
Segmenter = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        envvar="RSVP_SEGMENTER",
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
        envvar="RSVP_FRAME",
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
        envvar="RSVP_BUDGET",
        help="How much one answer may cost: calls=N, tokens=N, seconds=X, all of the MLLM, and "
        "usd=X, with price_in=X and price_out=X, the dollars for a million tokens. Once it is "
        "spent the best result so far counts.",
    ),
]
RunBudget = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="The same for the whole run, which ends there; --resume goes on.",
    ),
]
Verify = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Rounds in which the MLLM looks at the masks and accepts, corrects or rejects each.",
    ),
]
VerifyAll = Annotated[
    bool,
    typer.Option(
        "--verify-all",
        help="With --verify: ask about clear cases too, which the segmenter's scores would decide.",
    ),
]
Samples = Annotated[
    str,
    typer.Option(
        metavar="K[:T]",
        help="Ask K times at the temperature T (0.7) and take the targets that most replies agree "
        "on; their share is the score.",
    ),
]
Box = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X0,Y0,X1,Y1",
        help="A target's box in pixels; no MLLM is asked. May be given several times.",
    ),
]
Point = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X,Y",
        help="A pixel of the target (X,Y,0: not of it); no MLLM is asked. All points together "
        "mean one target.",
    ),
]
Within = Annotated[
    str | None,
    typer.Option(
        metavar="X0,Y0,X1,Y1",
        help="A hint for the MLLM, which is asked all the same: only what lies in this box counts.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X,Y",
        help="A hint for the MLLM: the thing at this pixel is not meant. May be given several "
        "times.",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Where the files go. Without it: rsvp-out, or nowhere with --json.",
    ),
]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="LIST",
        help="Which files: json, overlay, png (masks), html (a page that replays the reasoning), "
        "prompt (what the MLLM saw), looks (closer looks of an answer), index (one mask of "
        "numbers), vrt (as VRT-Bench reads it), coco (polygons), coco-rle, labelme, yolo, or a "
        "plug-in's.",
    ),
]
_ZOOM = typer.Option(
    "--zoom",
    metavar="MODE",
    help="How a closer look is shown: none (no looks), box (the enlarged part of the image), "
    "mask (in it only what was asked for; mask:white, mask:grey, mask:mean and mask:blur name "
    "the background) or sparse (only the patches of it, in their places; local Qwen-VL and GLM-V).",
)
_LOOKS = typer.Option(
    "--looks", metavar="N", min=0, help="How many closer looks the MLLM may ask for."
)
Zoom = Annotated[str, _ZOOM]
Looks = Annotated[int, _LOOKS]
EvalZoom = Annotated[str | None, _ZOOM]
EvalLooks = Annotated[int | None, _LOOKS]
Record = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Append the MLLM's replies to FILE, for --mllm replay:FILE to repeat them offline.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr what is going on.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only, and the object of --json.")
]


def single(name: str, values: Sequence[str]) -> str:
    """The value of an option that a command takes once; BadInput where it was given again."""
    if len(values) > 1:
        raise BadInput(f"{name} was given {len(values)} times: a call takes one")
    return values[0]


def read_stdin() -> bytes:
    """The bytes of standard input; BadInput where there are too many to be an image's."""
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN:
        raise BadInput(f"standard input holds more than {_MAX_STDIN:,} bytes: no image is so large")
    return data


def parse_options(texts: Sequence[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping; BadInput where one is of another form."""
    options: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise BadInput(f"--option is KEY=VALUE, found {text!r}")
        options[key.strip()] = value.strip()
    return options


def checking(verify: int, verify_all: bool, samples: str = "1") -> dict[str, Any]:
    """The arguments of a pipeline about verification and sampling; BadInput where unreadable."""
    from rsvp.verify import VerifyOptions

    count, colon, temperature = samples.partition(":")
    try:
        found: dict[str, Any] = {"samples": int(count)}
        if colon:
            found["temperature"] = float(temperature)
    except ValueError:
        raise BadInput(f"--samples is K or K:TEMPERATURE, found {samples!r}") from None
    options = VerifyOptions(verify, clear=None) if verify_all else VerifyOptions(verify)
    return {"verify": options, **found}


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


def begin(*, verbose: bool = False, debug: bool = False, quiet: bool = False) -> None:
    """Set up what is printed, before any model library is imported.

    Libraries that warn of what is no concern of the user's are silent unless asked not to be.
    """
    # Spinning OpenMP threads make small models up to 11 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console.set_quiet(quiet)
    usual = logging.ERROR if quiet else logging.WARNING
    level = logging.INFO if verbose or debug else usual
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.getLogger("rsvp").setLevel(level)
    warnings.simplefilter("ignore", RsvpWarning)  # the command prints the warnings of a result
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
