"""Names to classes: one table and one entry-point group; the model families are in `families`.

Nothing is imported until it is asked for, so help and error messages never load a model library.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rsvp import families
from rsvp.errors import BadInput, ModelUnavailable, first_line

if TYPE_CHECKING:
    from pydantic import BaseModel

Kind = Literal[
    "mllm", "strategy", "segmenter", "detector", "data", "writer", "benchmark", "command"
]  # fmt: skip

EMBEDDED = ("reasoner", "segmenter", "vlsm")
ENTRY_POINT_GROUP = "rsvp.backends"
_SECRETS = {"api_key"}

MAX_SIDE = families.MAX_SIDE
ModelFamily = families.ModelFamily
family = families.family

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
        "sam3": "rsvp.segmenters.sam2:Sam3Segmenter",
        "sam-hq": "rsvp.segmenters.sam_hq:SamHqSegmenter",
        "edgetam": "rsvp.segmenters.sam2:EdgeTamSegmenter",
        "vlsm": "rsvp.segmenters.vlsm:VlsmSegmenter",
        "box": "rsvp.segmenters.box:BoxSegmenter",
    },
    "detector": {
        "grounding-dino": "rsvp.detectors.grounding_dino:GroundingDinoDetector",
        "automatic": "rsvp.segmenters.automatic:AutomaticDetector",
        "sam3": "rsvp.segmenters.concepts:Sam3Detector",
        "sam3-lite": "rsvp.segmenters.concepts:Sam3LiteDetector",
        "groundingdino-py": "rsvp.detectors.groundingdino_py:GroundingDinoPyDetector",
    },
    "data": {
        "scenes": "rsvp.embedded.pictures:SceneImages",
        "coco": "rsvp.training.data:coco",
        "refcoco": "rsvp.training.data:refcoco",
        "reasonseg": "rsvp.training.data:reasonseg",
        "jsonl": "rsvp.training.data:jsonl",
    },
    "writer": {
        "json": "rsvp.writers.document:write",
        "overlay": "rsvp.writers.pictures:write_overlay",
        "png": "rsvp.writers.pictures:write_masks",
        "prompt": "rsvp.writers.pictures:write_prompt",
        "looks": "rsvp.writers.pictures:write_looks",
        "index": "rsvp.writers.pictures:write_index",
        "coco": "rsvp.writers.coco:write",
        "labelme": "rsvp.writers.labelme:write",
        "yolo": "rsvp.writers.yolo:write",
        "coco-rle": "rsvp.writers.coco:write_rle",
        "html": "rsvp.writers.html:write",
        "vrt": "rsvp.writers.vrt:write",
    },
    "benchmark": {
        "scenes": "rsvp.evaluation.benchmarks.masks:Scenes",
        "scenes-qa": "rsvp.evaluation.benchmarks.vqa:SceneQuestions",
        "scenes-trace": "rsvp.evaluation.benchmarks.vrt:TraceScenes",
        "reasonseg": "rsvp.evaluation.benchmarks.masks:ReasonSeg",
        "refcoco": "rsvp.evaluation.benchmarks.masks:RefCoco",
        "refcoco+": "rsvp.evaluation.benchmarks.masks:RefCoco",
        "refcocog": "rsvp.evaluation.benchmarks.masks:RefCocog",
        "grefcoco": "rsvp.evaluation.benchmarks.masks:GRefCoco",
        "seginw": "rsvp.evaluation.benchmarks.seginw:Seginw",
        "vrt": "rsvp.evaluation.benchmarks.vrt:Vrt",
        "vstar": "rsvp.evaluation.benchmarks.vqa:VStar",
        "hrbench": "rsvp.evaluation.benchmarks.vqa:HrBench",
        "visulogic": "rsvp.evaluation.benchmarks.vqa:VisuLogic",
        "pope": "rsvp.evaluation.benchmarks.vqa:Pope",
        "mmvp": "rsvp.evaluation.benchmarks.vqa:Mmvp",
        "hallusionbench": "rsvp.evaluation.benchmarks.vqa:HallusionBench",
        "mmbench": "rsvp.evaluation.benchmarks.vqa:MmBench",
        "jsonl": "rsvp.evaluation.benchmarks.masks:Jsonl",
        "coco": "rsvp.evaluation.benchmarks.masks:Coco",
    },
    "command": {
        "segment": "rsvp.cli.segment:segment",
        "batch": "rsvp.cli.batch:batch",
        "answer": "rsvp.cli.answer:answer",
        "trace": "rsvp.cli.trace:trace",
        "serve": "rsvp.cli.serve:serve",
        "demo": "rsvp.cli.serve:demo",
        "train": "rsvp.cli.train:train",
        "eval": "rsvp.cli.evaluate:evaluate",
        "score": "rsvp.cli.score:score",
        "compare": "rsvp.cli.compare:compare",
        "export": "rsvp.cli.export:export",
        "models": "rsvp.cli.models:models",
        "prompts": "rsvp.cli.prompts:prompts",
        "doctor": "rsvp.cli.doctor:doctor",
    },
}


@dataclass(frozen=True, slots=True)
class Spec:
    """``name:argument`` taken apart; `argument` is None where there was no colon."""

    name: str
    argument: str | None = None

    def __str__(self) -> str:
        return self.name if self.argument is None else f"{self.name}:{self.argument}"


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


def check_name(kind: Kind, name: str) -> None:
    """BadInput, with the known names, where there is no such backend; nothing is imported."""
    known = names(kind)
    if name not in known:
        raise BadInput(unknown(kind, name, known))


def load(kind: Kind, name: str) -> Callable[..., Any]:
    """The class that a name stands for. Built-in names win over plug-ins of the same name.

    Raises:
        BadInput: no such name; the message lists the known ones.
        ModelUnavailable: its module cannot be imported.
    """
    target = _table(kind).get(name) or _plugins(kind).get(name)
    if target is None:
        raise BadInput(unknown(kind, name, names(kind)))
    module_name, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # a plug-in's module may raise anything
        why = first_line(error)
        raise ModelUnavailable(f"{kind} {name} ({target}) cannot be loaded: {why}") from error
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


def options_model(kind: Kind, name: str) -> type[BaseModel]:
    """A backend's options as a pydantic model: the keyword-only parameters of its constructor.

    Parameters whose types cannot be written as text, such as objects, are no options; nor are keys,
    which belong into the environment and not into a command line or a record.

    Raises:
        BadInput: see `load`.
        ModelUnavailable: likewise, or the constructor's parameters cannot be read.
    """
    from pydantic import ConfigDict, create_model

    factory = load(kind, name)
    title = f"{name} options"
    config = ConfigDict(extra="forbid", allow_inf_nan=False, title=title)
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters.values()
        fields: dict[str, Any] = {
            p.name: (annotation, p.default)
            for p in parameters
            if p.kind is p.KEYWORD_ONLY
            and p.name not in _SECRETS
            and (annotation := _plain_type(p.annotation)) is not None
        }
        return create_model(title, __config__=config, **fields)
    except Exception as error:  # a plug-in's annotations and names may be anything
        why = f"the options of {kind} {name} cannot be read: {first_line(error)}"
        raise ModelUnavailable(why) from error


def parse_options(kind: Kind, name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options given as text, e.g. ``{"max_tokens": "4096"}``, with the types the backend takes.

    Raises:
        BadInput: an unknown option, or a value of another type; the message lists the options.
    """
    if not texts:
        return {}
    from pydantic import ValidationError

    model = options_model(kind, name)
    try:
        checked = model.model_validate(dict(texts))
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0])
        if option not in model.model_fields:
            what = f"option of {kind} {name}:"
            raise BadInput(unknown(what, option, list(model.model_fields))) from None
        raise BadInput(f"{kind} {name}, option {option!r}: {first['msg']}") from None
    return {option: getattr(checked, option) for option in texts}


def _plain_type(annotation: Any) -> Any:
    """The members of an annotation that can be written as text; None where there are none."""
    if typing.get_origin(annotation) is Annotated:
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [m for m in map(_plain_type, typing.get_args(annotation)) if m is not None]
        return typing.Union[tuple(members)] if set(members) - {types.NoneType} else None  # noqa: UP007
    plain = annotation in (str, int, float, bool, types.NoneType)
    return annotation if plain or typing.get_origin(annotation) is Literal else None


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
        raise BadInput(unknown("kind", kind, list(BUILT_IN)))
    return BUILT_IN[kind]


def _plugins(kind: str) -> dict[str, str]:
    """Entry points ``KIND.NAME = "package:Class"`` of installed packages, as name -> target."""
    found = metadata.entry_points(group=ENTRY_POINT_GROUP)
    prefix = f"{kind}."
    return {e.name.removeprefix(prefix): e.value for e in found if e.name.startswith(prefix)}


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """The message about an unknown name, with the nearest known one and all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(known) or 'none'}"
