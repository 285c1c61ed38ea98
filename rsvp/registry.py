"""Names to classes: one literal table, one entry-point group, and what each model family speaks.

Nothing is imported until it is asked for, so help and error messages never load a model library.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rsvp.errors import BadInput, ModelUnavailable

Kind = Literal[
    "mllm", "strategy", "segmenter", "detector", "data", "writer", "benchmark", "command"
]  # fmt: skip

EMBEDDED = ("reasoner", "segmenter", "vlsm")
ENTRY_POINT_GROUP = "rsvp.backends"

BUILT_IN: dict[str, dict[str, str]] = {
    "mllm": {
        "openai": "rsvp.mllm.openai:OpenAIMLLM",
        "transformers": "rsvp.mllm.transformers:TransformersMLLM",
        "replay": "rsvp.mllm.replay:ReplayMLLM",
    },
    "strategy": {
        "boxes": "rsvp.strategies.boxes:BoxesStrategy",
        "grid": "rsvp.strategies.grid:GridStrategy",
        "points": "rsvp.strategies.points:PointsStrategy",
        "marks": "rsvp.strategies.marks:MarksStrategy",
    },
    "segmenter": {
        "sam2": "rsvp.segmenters.sam2:Sam2Segmenter",
        "sam2-package": "rsvp.segmenters.sam2_package:Sam2PackageSegmenter",
        "vlsm": "rsvp.segmenters.vlsm:VlsmSegmenter",
        "box": "rsvp.segmenters.box:BoxSegmenter",
    },
    "detector": {
        "grounding-dino": "rsvp.detectors.grounding_dino:GroundingDinoDetector",
        "automatic": "rsvp.segmenters.automatic:AutomaticDetector",
        "groundingdino-py": "rsvp.detectors.groundingdino_py:GroundingDinoPyDetector",
    },
    "data": {
        "scenes": "rsvp.embedded.pictures:ScenePictures",
        "coco": "rsvp.training.pictures:coco",
        "refcoco": "rsvp.training.pictures:refcoco",
        "reasonseg": "rsvp.training.pictures:reasonseg",
        "jsonl": "rsvp.training.pictures:jsonl",
    },
    "writer": {},
    "benchmark": {
        "scenes": "rsvp.evaluation.benchmarks.scenes:Scenes",
        "reasonseg": "rsvp.evaluation.benchmarks.reasonseg:ReasonSeg",
        "refcoco": "rsvp.evaluation.benchmarks.refcoco:RefCoco",
        "refcoco+": "rsvp.evaluation.benchmarks.refcoco:RefCoco",
        "refcocog": "rsvp.evaluation.benchmarks.refcoco:RefCocog",
        "grefcoco": "rsvp.evaluation.benchmarks.refcoco:GRefCoco",
        "seginw": "rsvp.evaluation.benchmarks.seginw:Seginw",
        "vrt": "rsvp.evaluation.benchmarks.vrt:Vrt",
        "vstar": "rsvp.evaluation.benchmarks.vqa:VStar",
        "hrbench": "rsvp.evaluation.benchmarks.vqa:HrBench",
        "pope": "rsvp.evaluation.benchmarks.vqa:Pope",
        "mmvp": "rsvp.evaluation.benchmarks.vqa:Mmvp",
        "hallusionbench": "rsvp.evaluation.benchmarks.vqa:HallusionBench",
        "mmbench": "rsvp.evaluation.benchmarks.vqa:MmBench",
    },
    "command": {},
}


@dataclass(frozen=True, slots=True)
class Spec:
    """``name:argument`` taken apart; `argument` is None where there was no colon."""

    name: str
    argument: str | None = None

    def __str__(self) -> str:
        return self.name if self.argument is None else f"{self.name}:{self.argument}"


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family write and read.

    Attributes:
        frame: the coordinate frame of their boxes, a `rsvp.frames.FrameKind`.
        profile: the folder of `prompts/` that is worded for them.
    """

    frame: str
    profile: str


_FULL_DEFAULT = Family("0-1000", "full")

# The first pattern found anywhere in the model's name or folder, case ignored, decides. `.` after a
# digit stands for the hub's "2.5", Ollama's "2.5vl" and the config's "2_5".
_FAMILIES: tuple[tuple[str, Family], ...] = (
    (r"^(rsvp[-_])?embedded$|embedded[/\\]weights[/\\]reasoner", Family("percent", "compact")),
    (r"qwen[-_]?3(.\d)?[-_]?vl|intern[-_]?vl", Family("0-1000", "full")),
    (r"qwen[-_]?2(.5)?[-_]?vl", Family("resized-pixels", "full")),
    (r"gemini|gemma", Family("0-1000-yxyx", "full")),
    (r"molmo", Family("percent", "full")),
    (r"gpt|claude|(^|/)o\d", Family("0-1000", "full")),
)


def family(model: str) -> Family:
    """The family of a model name or folder; unknown models get 0-1000 xyxy and full prompts."""
    for pattern, found in _FAMILIES:
        if re.search(pattern, model.rstrip("/\\"), re.IGNORECASE):
            return found
    return _FULL_DEFAULT


def parse_spec(text: str) -> Spec:
    """Take ``openai:gpt-5.1`` apart at its first colon.

    Raises:
        BadInput: no name, or a colon with nothing behind it.
    """
    name, colon, argument = text.strip().partition(":")
    if not name or (colon and not argument):
        raise BadInput(f"a spec is NAME or NAME:ARGUMENT, e.g. openai:gpt-5.1, found {text!r}")
    return Spec(name, argument if colon else None)


def names(kind: Kind) -> list[str]:
    """Every known name of a kind: the built-in ones, then installed plug-ins, sorted."""
    built_in = _table(kind)
    return [*built_in, *sorted(set(_plugins(kind)) - set(built_in))]


def load(kind: Kind, name: str) -> Callable[..., Any]:
    """The class that a name stands for. Built-in names win over plug-ins of the same name.

    Raises:
        BadInput: no such name; the message lists the known ones.
        ModelUnavailable: its module cannot be imported.
    """
    target = _table(kind).get(name) or _plugins(kind).get(name)
    if target is None:
        raise BadInput(_unknown(kind, name, names(kind)))
    module_name, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelUnavailable(f"{kind} {name} ({target}) cannot be loaded: {error}") from error
    if not callable(found):
        raise ModelUnavailable(f"{kind} {name}: {target} is not a class or a function")
    return found  # type: ignore[no-any-return]


def make(kind: Kind, spec: str | Spec, **options: Any) -> Any:
    """Build a backend: ``Class(argument, **options)``, or ``Class(**options)`` without a colon.

    Raises:
        BadInput: unknown name, or an argument or option that the class does not take.
        ModelUnavailable: its module, weights or key are missing.
    """
    spec = parse_spec(spec) if isinstance(spec, str) else spec
    factory = load(kind, spec.name)
    positional = () if spec.argument is None else (spec.argument,)
    try:
        inspect.signature(factory).bind(*positional, **options)
    except TypeError as error:
        raise BadInput(f"{kind} {str(spec)!r} cannot be made: {error}") from error
    return factory(*positional, **options)


def embedded_folder(kind: str) -> Path:
    """Where packaged weights lie; the folder may be missing.

    Args:
        kind: ``reasoner``, ``segmenter`` or ``vlsm``.
    """
    if kind not in EMBEDDED:
        raise BadInput(f"the embedded weights are {', '.join(EMBEDDED)}, found {kind!r}")
    return Path(__file__).parent / "embedded" / "weights" / kind


def _table(kind: str) -> dict[str, str]:
    if kind not in BUILT_IN:
        raise BadInput(_unknown("kind", kind, list(BUILT_IN)))
    return BUILT_IN[kind]


def _plugins(kind: str) -> dict[str, str]:
    """Entry points ``KIND.NAME = "package:Class"`` of installed packages, as name -> target."""
    found = metadata.entry_points(group=ENTRY_POINT_GROUP)
    prefix = f"{kind}."
    return {e.name.removeprefix(prefix): e.value for e in found if e.name.startswith(prefix)}


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(known) or 'none'}"
