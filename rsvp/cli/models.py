"""`rsvp models`: the presets, what they need, and whether they can run here now."""

from __future__ import annotations

import inspect
import os
import re
from typing import Annotated, Any

import typer

from rsvp import presets, registry
from rsvp.cli import console
from rsvp.cli.options import AsJson, flag
from rsvp.errors import BadInput


def models(
    name: Annotated[str | None, typer.Argument(metavar="PRESET", help="This preset alone.")] = None,
    as_json: AsJson = False,
    options: Annotated[
        bool, flag("--options", "List what --option takes for each MLLM backend.")
    ] = False,
) -> None:
    """List the presets and whether each can run here.

    With download size, memory, what it handles, and exactly what is missing. `rsvp models embedded`
    also lists the things that it knows and questions to try.
    """
    if options and name is not None:
        raise BadInput("--options lists every backend's: leave out the preset")
    if options:
        found = {name: _options(name) for name in registry.names("mllm")}
        if as_json:
            console.as_json({"options": found})
        else:
            console.print_out("\n\n".join(map(_option_lines, found, found.values())))
        return
    chosen = presets.PRESETS if name is None else [presets.get(name)]
    entries = [_entry(preset) for preset in chosen]
    if name == "embedded":
        from rsvp.embedded import vocabulary  # --help loads no numpy

        entries[0] |= {"knows": vocabulary.names(), "questions": list(vocabulary.examples())}
    if as_json:
        console.as_json({"presets": entries})
        return
    for number, entry in enumerate(entries):
        if number:
            console.print_out()
        _print(entry)


def _entry(preset: presets.Preset) -> dict[str, Any]:
    missing = presets.missing(preset)
    mllm = os.environ.get(presets.API_MODEL, "").strip() if preset.mllm is None else preset.mllm
    return {
        "name": preset.name,
        "mllm": preset.mllm,
        "strategy": preset.strategy_for(mllm),
        "segmenter": preset.segmenter,
        "download_gb": round(preset.download_gb, 2),
        "memory_gb": presets.memory_gb(preset),
        "gpu_memory_gb": preset.gpu_gb,
        "handles": preset.handles,
        "runs_here": not missing,
        "missing": missing,
    }


def _print(entry: dict[str, Any]) -> None:
    mllm = entry["mllm"] or f"openai:${presets.API_MODEL}"
    console.print_out(entry["name"])
    console.print_out(f"  models    {mllm} + {entry['segmenter']}, strategy {entry['strategy']}")
    console.print_out(
        f"  download  {entry['download_gb'] or 'none'}{' GB' * bool(entry['download_gb'])}"
    )
    console.print_out(
        f"  memory    {entry['memory_gb']:g} GB, or a GPU with {entry['gpu_memory_gb']:g} GB"
    )
    console.print_out(f"  handles   {entry['handles']}")
    if entry["runs_here"]:
        console.print_out("  here      ready")
    for number, missing in enumerate(entry["missing"]):
        console.print_out(f"  {'          ' if number else 'here      '}not yet: {missing}")
    for group, names in entry.get("knows", {}).items():
        console.print_out(f"  {group}: {', '.join(names)}")
    if questions := entry.get("questions"):
        console.print_out('questions to try, each with: rsvp segment --image demo --query "…"')
        console.print_out("\n".join(f"  {question}" for question in questions))


def _options(name: str) -> dict[str, dict[str, Any]]:
    """A backend's options: default and what its docstring says of each."""
    text = inspect.getdoc(registry.load("mllm", name)) or ""
    described = {
        key: " ".join(words.split())
        for names, words in re.findall(r"^    ([\w, ]+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
        for key in names.split(", ")
    }
    fields = registry.options_model("mllm", name).model_fields
    return {
        key: {"default": field.get_default(), "about": described.get(key, "")}
        for key, field in fields.items()
    }


def _option_lines(name: str, options: dict[str, dict[str, Any]]) -> str:
    lines = [f"{name}: {'' if options else 'no options'}".rstrip(": ")]
    lines += [
        f"  {key}={'' if o['default'] is None else str(o['default']):<8}  {o['about']}".rstrip()
        for key, o in options.items()
    ]
    return "\n".join(lines)
