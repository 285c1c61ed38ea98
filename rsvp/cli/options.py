"""The options that commands share, and how a command begins.

A parameter of a command whose type is a dataclass stands for the options that are its fields; see
`grouped`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from rsvp import presets
from rsvp.cli import console
from rsvp.errors import BadInput, RsvpWarning, printable

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

_MAX_STDIN = 1 << 30  # bytes


def opt(metavar: str | None, help_text: str, *names: str, **more: Any) -> Any:
    """An option of a command, see `typer.Option`; without `names` it has its parameter's."""
    return typer.Option(*names, metavar=metavar, help=help_text, **more)


def flag(name: str, help_text: str, *more: str) -> Any:
    """An option without a value."""
    return opt(None, help_text, name, *more)


def opt_field(default: Any, metavar: str | None, help_text: str, *names: str, **more: Any) -> Any:
    """A field of a dataclass that stands for an option of a command, see `grouped` and `opt`."""
    return field(default=default, metadata={"option": opt(metavar, help_text, *names, **more)})


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """A command of a function some of whose parameters are dataclasses.

    In the place of such a parameter the command has an option for each field, of the same name and
    default; the function gets the dataclass made of their values.
    """
    types, groups = get_type_hints(function, include_extras=True), dict[str, Any]()
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(function).parameters.values():
        kind = types[one.name]
        if not is_dataclass(kind):
            parameters.append(one.replace(annotation=kind))
            continue
        groups[one.name] = kind
        own = get_type_hints(kind, include_extras=True)
        for part in fields(kind):
            default = one.empty if part.default is MISSING else part.default
            annotation = own[part.name]
            if "option" in part.metadata:
                annotation = Annotated[annotation, part.metadata["option"]]
            parameters.append(
                inspect.Parameter(part.name, one.kind, default=default, annotation=annotation)
            )

    @functools.wraps(function)
    def command(**values: Any) -> None:
        made = {
            name: kind(**{part.name: values.pop(part.name) for part in fields(kind)})
            for name, kind in groups.items()
        }
        function(**values, **made)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


Protocol = Annotated[
    str | None,
    opt(
        "NAME",
        "Whose rules, where projects differ; for reasonseg: lisa (the default), seg-zero, "
        "visionreasoner or reasonseg-x.",
    ),
]
Split = Annotated[str | None, opt("NAME", "Which split, where DIR holds several, e.g. testA.")]
_ZOOM = opt(
    "MODE",
    "How a closer look is shown: none (no looks), box (the enlarged part of the image), "
    "mask (in it only what was asked for; mask:white, mask:grey, mask:mean and mask:blur name "
    "the background) or sparse (only the patches of it, in their places; local Qwen-VL and GLM-V).",
)
_LOOKS = opt("N", "How many closer looks the MLLM may ask for.", min=0)
Zoom = Annotated[str, _ZOOM]
Looks = Annotated[int, _LOOKS]
EvalZoom = Annotated[str | None, _ZOOM]
EvalLooks = Annotated[int | None, _LOOKS]
AsJson = Annotated[bool, flag("--json", "Print one JSON object on stdout.")]
Debug = Annotated[bool, flag("--debug", "Show the traceback of an error.")]
Verbose = Annotated[bool, flag("--verbose", "Tell on stderr what is going on.", "-v")]
Quiet = Annotated[bool, flag("--quiet", "Print errors only, and the object of --json.", "-q")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What makes the pipeline that a command asks."""

    preset: str = opt_field(
        presets.DEFAULT,
        "NAME",
        "Which models to use; `rsvp models` lists the presets, auto takes the best one that "
        "can run here now.",
        envvar="RSVP_PRESET",
        autocompletion=lambda: [*presets.names(), presets.AUTO],
    )
    mllm: str | None = opt_field(
        None,
        "SPEC",
        "Another MLLM: openai:MODEL, transformers:ID-OR-FOLDER or replay:FILE.",
        envvar="RSVP_MLLM",
    )
    strategy: str | None = opt_field(
        None,
        "NAME",
        "How the MLLM says where: boxes, grid, grid:ROWSxCOLUMNS, points, points:box, marks "
        "(the segmenter's own masks) or marks:DETECTOR, e.g. marks:sam3:ID-OR-FOLDER or "
        "marks:grounding-dino:ID-OR-FOLDER.",
        envvar="RSVP_STRATEGY",
    )
    segmenter: str | None = opt_field(
        None,
        "SPEC",
        "Another segmenter: sam2:ID-OR-FOLDER-OR-FILE.pt, sam3:, edgetam: or sam-hq: with "
        "ID-OR-FOLDER, vlsm:FOLDER, or box (no network). `docs/models.md` compares them.",
        envvar="RSVP_SEGMENTER",
    )
    frame: str | None = opt_field(
        None,
        "FRAME",
        "How the MLLM writes coordinates, where rsvp guesses wrong: pixels, resized-pixels, "
        "0-1000, 0-1000-yxyx, 0-1024-yxyx, 0-1 or percent.",
        envvar="RSVP_FRAME",
    )
    language: str = opt_field(
        "en",
        "CODE",
        "Of the query, for the embedded reasoner: en, de, es or zh. Other MLLMs read any language.",
    )
    option: list[str] | None = opt_field(
        None,
        "KEY=VALUE",
        "An option of the MLLM's backend, e.g. max_tokens=4096; segmenter.KEY and "
        "strategy.KEY are the others'. May be given several times.",
    )
    budget: str | None = opt_field(
        None,
        "KEY=VALUE,...",
        "How much one answer may cost: calls=N, tokens=N, seconds=X, all of the MLLM, and "
        "usd=X, with price_in=X and price_out=X, the dollars for a million tokens. Once it is "
        "spent the best result so far counts.",
        envvar="RSVP_BUDGET",
    )
    verify: int = opt_field(
        0,
        "N",
        "Rounds in which the MLLM looks at the masks and accepts, corrects or rejects each.",
        min=0,
    )

    def pipeline_maker(
        self, run_budget: str | None = None, **settings: Any
    ) -> tuple[presets.Preset, Callable[..., Pipeline]]:
        """The preset, and what makes its pipeline, once all that needs no model was checked.

        Args:
            run_budget: of the whole run.
            settings: of `Pipeline.from_preset`, beside those of the options or in their place.
        """
        from rsvp.dialogue import Limits
        from rsvp.pipeline import Pipeline

        made = {
            "mllm": self.mllm,
            "strategy": self.strategy,
            "segmenter": self.segmenter,
            "frame": self.frame,
            "limits": Limits.parse(self.budget),
            "run_limits": Limits.parse(run_budget),
            "language": self.language,
            "options": parse_options(self.option),
            **self._asking(),
        }
        preset = choose_preset(self.preset)
        return preset, functools.partial(Pipeline.from_preset, preset, **{**made, **settings})

    def _asking(self) -> dict[str, Any]:
        """The settings of the pipeline that the MLLM is asked by."""
        return checking(self.verify)


@dataclass(frozen=True, kw_only=True)
class PipelineOptions(ModelOptions):
    """What makes the pipeline, where the command line says all that is asked of it."""

    verify_all: bool = opt_field(
        False,
        None,
        "With --verify: ask about clear cases too, which the segmenter's scores would decide.",
        "--verify-all",
    )
    target_exists: bool | None = opt_field(
        None,
        None,
        "Tell the MLLM that every query's target is in its image, and ask once more where it "
        "finds none.",
        "--target-exists/--target-may-be-absent",
    )
    record: str | None = opt_field(
        None,
        "FILE",
        "Append the MLLM's replies to FILE, for --mllm replay:FILE to repeat them offline.",
    )

    def _asking(self) -> dict[str, Any]:
        return {
            "target_exists": bool(self.target_exists),
            **checking(self.verify, self.verify_all),
        }

    def recorded(self, preset: presets.Preset) -> dict[str, Any]:
        """The settings that a run's `config.json` holds, without secrets."""
        options = without_secrets(parse_options(self.option))
        return {"preset": preset.name, **({"options": options} if options else {})}


@dataclass(frozen=True, kw_only=True)
class ReasoningOptions(PipelineOptions):
    """What makes the pipeline, where the MLLM is asked for the targets of a query."""

    no_cot: bool = opt_field(
        False, None, "Ask for the targets alone, without a chain of thought.", "--no-cot"
    )
    samples: str = opt_field(
        "1",
        "K[:T]",
        "Ask K times at the temperature T (0.7) and take the targets that most replies agree "
        "on; their share is the score.",
    )

    def _asking(self) -> dict[str, Any]:
        sampling = checking(self.verify, self.verify_all, self.samples)
        return {**super()._asking(), "cot": not self.no_cot, **sampling}


def single(name: str, values: Sequence[str]) -> str:
    """The value of an option that a command takes once; BadInput where it was given again."""
    if len(values) > 1:
        raise BadInput(f"{name} was given {len(values)} times: a call takes one")
    return values[0]


def listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


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


def checking(verify: int, verify_all: bool = False, samples: str = "1") -> dict[str, Any]:
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
