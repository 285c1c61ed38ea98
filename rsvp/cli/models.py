"""`rsvp models`: the presets, what they need, and whether they can run here now."""

from __future__ import annotations

import os
from typing import Any

from rsvp import presets
from rsvp.cli import console
from rsvp.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the presets and whether each can run here.

    With download size, memory, what it handles, and exactly what is missing.
    """
    entries = [_entry(preset) for preset in presets.PRESETS]
    if as_json:
        console.as_json({"presets": entries})
        return
    for number, entry in enumerate(entries):
        if number:
            console.print_out()
        _print(entry)


def _entry(preset: presets.Preset) -> dict[str, Any]:
    missing = presets.missing(preset)
    return {
        "name": preset.name,
        "mllm": preset.mllm,
        "strategy": preset.strategy_for(_api_model() if preset.mllm is None else preset.mllm),
        "segmenter": preset.segmenter,
        "download_gb": round(preset.download_gb, 2),
        "memory_gb": preset.ram_gb,
        "gpu_memory_gb": preset.gpu_gb,
        "handles": preset.handles,
        "runs_here": not missing,
        "missing": missing,
    }


def _api_model() -> str:
    return os.environ.get(presets.API_MODEL, "").strip()


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
