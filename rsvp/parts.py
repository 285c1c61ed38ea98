"""The parts of a pipeline, made of a preset's specs, of other specs, or of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsvp import presets, registry
from rsvp.errors import BadInput
from rsvp.mllm import MLLM, connect_to
from rsvp.segmenters import Segmenter
from rsvp.strategies import Strategy

PartKind = Literal["mllm", "strategy", "segmenter"]


@dataclass(frozen=True, slots=True)
class Parts:
    """An MLLM, its strategy with the name that results give it, and how to make the segmenter."""

    mllm: MLLM | None
    strategy: Strategy | None
    strategy_name: str | None
    make_segmenter: Callable[[], Segmenter]


def make_parts(
    preset: presets.Preset,
    *,
    mllm: str | MLLM | None,
    strategy: str | Strategy | None,
    segmenter: str | Segmenter | None,
    options: Mapping[str, str],
    record: str | Path | None,
    connect: bool,
) -> Parts:
    """Make all parts but the segmenter, which takes long to load; see `Pipeline.from_preset`.

    The MLLM comes first, for its module prepares the threads before torch is loaded.
    """
    segmenter = segmenter or preset.segmenter
    mllm = preset.mllm_spec() if mllm is None else mllm
    strategy = strategy or preset.strategy
    given = _options_by_part(options)
    if isinstance(segmenter, str):
        registry.check_name("segmenter", registry.parse_spec(segmenter).name)
    made = None if strategy is None else _make("strategy", strategy, given["strategy"])
    model = _make("mllm", mllm, given["mllm"])
    if connect:
        connect_to(model)
    if made is None:
        strategy = preset.strategy_for(getattr(model, "model", ""))
        made = _make("strategy", strategy, given["strategy"])
    if record is not None:
        if model is None:
            raise BadInput("there is nothing to record: with boxes and points no MLLM is asked")
        model = registry.make("mllm", f"replay:{record}", record=model)
    name = strategy if isinstance(strategy, str) else None
    return Parts(model, made, name, lambda: _make("segmenter", segmenter, given["segmenter"]))


def _options_by_part(options: Mapping[str, str]) -> dict[PartKind, dict[str, str]]:
    """``segmenter.device=cuda`` is the segmenter's, ``max_tokens=100`` the MLLM's."""
    parts: dict[PartKind, dict[str, str]] = {"mllm": {}, "strategy": {}, "segmenter": {}}
    for name, value in options.items():
        part, dot, option = name.partition(".")
        if dot and part not in parts:
            raise BadInput(f"option {name!r}: the parts are {', '.join(parts)}")
        parts[part if dot else "mllm"][option if dot else name] = value  # type: ignore[index]
    return parts


def _make(kind: PartKind, spec: object, options: Mapping[str, str]) -> Any:
    no_mllm = kind == "mllm" and spec == presets.NO_MLLM
    if no_mllm or not isinstance(spec, str):
        if options:
            what = "no MLLM is asked" if no_mllm else f"the {kind} is an object already"
            raise BadInput(f"{what}, so it takes no options, found {', '.join(options)}")
        return None if no_mllm else spec
    parsed = registry.parse_spec(spec)
    return registry.make(kind, parsed, **registry.parse_options(kind, parsed.name, options))
