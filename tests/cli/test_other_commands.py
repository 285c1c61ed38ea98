"""models, doctor, eval and the generated help."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from docs import generate
from rsvp import doctor, families, presets
from rsvp.cli.main import main
from rsvp.cli.options import without_secrets

# ------------------------------------------------------------ models, doctor, eval, help


def test_models_lists_every_preset(capsys) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for preset in presets.PRESETS:
        assert re.search(rf"^{preset.name}$", out, re.MULTILINE)
    assert out.count("  handles   ") == out.count("  memory    ") == len(presets.PRESETS)
    assert "hf download Qwen/Qwen3.5-9B (19.3 GB)" in out


def test_models_as_json(capsys) -> None:
    assert main(["models", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["presets"]
    assert [e["name"] for e in entries] == presets.names()
    for entry in entries:
        assert entry["runs_here"] is (entry["missing"] == [])


def test_models_lists_what_the_embedded_preset_knows(capsys) -> None:
    assert main(["models", "embedded"]) == 0
    out = capsys.readouterr().out
    assert "kitchen tool: kitchen knife, spoon" in out
    assert "which animal barks?" in out
    assert "gpu16" not in out
    assert main(["models", "embedded", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["presets"]
    assert "banana" in entry["knows"]["fruit"]
    assert len(entry["questions"]) == 30


def test_models_of_an_unknown_preset_names_the_known_ones(capsys) -> None:
    assert main(["models", "nosuch"]) == 2
    assert "embedded, laptop" in capsys.readouterr().err
    assert main(["models", "embedded", "--options"]) == 2
    assert "leave out the preset" in capsys.readouterr().err


def test_models_lists_the_options_of_the_backends(capsys) -> None:
    assert main(["models", "--options"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^transformers$", out, re.MULTILINE)
    assert re.search(r"^  max_tokens=4096 +the longest reply, in tokens", out, re.MULTILINE)
    for name in ("dtype", "device", "load_in_4bit", "temperature", "trust_remote_code"):
        assert re.search(rf"^  {name}=", out, re.MULTILINE)
    assert "api_key" not in out
    assert main(["models", "--options", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["openai"]["timeout"]["about"]


def test_models_names_the_api_presets_strategy(capsys, monkeypatch) -> None:
    for model, strategy in ((None, "grid"), ("gpt-4o", "grid"), ("gemini-3-pro", "boxes")):
        if model is not None:
            monkeypatch.setenv("RSVP_API_MODEL", model)
        assert main(["models", "--json"]) == 0
        (api,) = (e for e in json.loads(capsys.readouterr().out)["presets"] if e["name"] == "api")
        assert api["strategy"] == strategy


CUDA = {"version": "2.13.0", "build": "12.8", "gpu": None}
HEALTHY = {
    "torch": {"version": "2.13.0+cpu", "build": None, "gpu": None},
    "torchvision_error": None,
}


@pytest.fixture
def examined(monkeypatch, tmp_path):
    """`examined(probe, gpu_gb=0, weights=True)`: run the doctor on a machine like that."""

    def examine(probe, *, gpu_gb=0.0, weights=True):
        monkeypatch.setattr(doctor, "_probe", lambda: {**HEALTHY, **probe})
        monkeypatch.setattr(doctor.machine, "gpu_memory_bytes", lambda: int(gpu_gb * 10**9))
        monkeypatch.setattr(doctor.machine, "memory_bytes", lambda: 16 * 10**9)
        monkeypatch.setattr(doctor.machine, "holds_weights", lambda _: weights)
        return {finding.name: finding for finding in doctor.examine()}

    return examine


def test_a_healthy_machine(examined, capsys) -> None:
    found = examined({})
    assert {f.status for f in found.values()} == {"ok"}
    assert main(["doctor"]) == 0
    assert "fix it" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "finds"),
    [
        (({"torchvision_error": "nms"}, 0), ("torchvision", "note", "pip uninstall torchvision")),
        (({"torch_error": "OSError", "torch": None}, 0), ("torch", "broken", "/whl/cpu")),
        (({"transformers_error": "x"}, 0), ("transformers", "broken", "transformers")),
        (({"error": "crashed"}, 0), ("imports", "broken", "torch")),
        (({}, 80), ("gpu", "note", "pip install --force-reinstall torch")),
        (({"torch": CUDA}, 0), ("gpu", "note", "/whl/cpu")),
        (({"torch": CUDA}, 80), ("gpu", "note", "driver")),
        (({"torch": {**CUDA, "gpu": "H100"}}, 80), ("gpu", "ok", "")),
    ],
)
def test_each_fault_has_its_fix(examined, fault, finds, capsys) -> None:
    (probe, gpu_gb), (name, status, fix) = fault, finds
    finding = examined(probe, gpu_gb=gpu_gb)[name]
    assert finding.status == status
    assert fix in finding.fix
    assert bool(finding.fix) is (status != "ok")
    assert main(["doctor", "--json"]) == (4 if status == "broken" else 0)
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is (status != "broken")
    assert finding.to_dict() in printed["checks"]


def test_missing_weights_are_broken(examined) -> None:
    found = examined({}, weights=False)
    assert found["reasoner"].status == found["segmenter"].status == "broken"


@pytest.mark.parametrize("damage", [None, "short", "header", "config", "lfs"])
def test_damaged_weights_are_told_without_loading_them(
    examined, monkeypatch, here: Path, damage: str | None
) -> None:
    from safetensors.numpy import save_file

    (here / "config.json").write_text("{}" if damage != "config" else '{"model_type": "flo')
    weights = here / "model.safetensors"
    save_file({"a": np.zeros((250, 1000), np.float32), "b": np.ones(3, np.int8)}, weights)
    whole = weights.read_bytes()
    bytes_of = {
        "short": whole[:-1],
        "header": whole[:20],
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    }
    weights.write_bytes(bytes_of.get(damage, whole))
    monkeypatch.setattr(doctor.registry, "embedded_folder", lambda _: here)
    found = examined({})["reasoner"]
    if damage is None:
        assert (found.status, found.detail) == ("ok", f"embedded weights, 1.0 MB, at {here}")
    else:
        name = "config.json" if damage == "config" else "model.safetensors"
        assert found.status == "broken"
        assert name in found.detail
        assert found.fix == presets.REINSTALL


def test_an_old_transformers_is_broken(examined, monkeypatch) -> None:
    real = doctor.importlib.metadata.version
    old = lambda name: "4.57.1" if name == "transformers" else real(name)  # noqa: E731
    monkeypatch.setattr(doctor.importlib.metadata, "version", old)
    finding = examined({})["transformers"]
    assert (finding.status, finding.fix) == ("broken", "pip install 'transformers>=5'")


def test_keys_are_never_shown(examined, monkeypatch, capsys) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    examined({})
    main(["doctor"])
    out, err = capsys.readouterr()
    assert "sk-very-secret" not in out + err
    assert re.search(r"OPENAI_API_KEY\s+set", out)


def test_the_doctor_survives_a_torch_that_crashes(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_PROBE", "import os; os._exit(139)")
    doctor._probe.cache_clear()
    try:
        assert "crashed" in doctor._probe()["error"]
    finally:
        doctor._probe.cache_clear()


def test_eval_scores_rendered_scenes(capsys, here: Path) -> None:
    from rsvp.embedded import scenes

    made = ["--n", "4", "--seed", "7", "--out", "S", "--size", "128"]
    assert scenes.main(made) == 0
    words = ["eval", "scenes", "--data", "S", "--out", "R", "--mllm", "scripted:none"]
    capsys.readouterr()
    assert main([*words, "--segmenter", "box", "--json", "--limit", "3"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["n"] == 3
    assert {"failed", "giou", "ciou", "by_kind"} <= found.keys()
    assert "gIoU" in err
    assert main([*words, "--segmenter", "box"]) == 2  # R is not empty
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("http://me:secret@host:8000/v1?key=secret", "http://host:8000/v1"),
        ("https://secret@host", "https://host"),
        ("http://host/v1", "http://host/v1"),
        ("what?", "what?"),
    ],
)
def test_records_hold_urls_without_secrets(given: str, recorded: str) -> None:
    assert without_secrets({"base_url": given, "size": "3"}) == {"base_url": recorded, "size": "3"}


def test_the_help_page_holds_every_command() -> None:
    page = generate.help_page()
    for command in ("rsvp", "rsvp segment", "rsvp eval", "rsvp models", "rsvp doctor"):
        assert f"## {command}\n" in page
    assert "--query TEXT" in page


def test_the_models_page_holds_every_family_and_preset() -> None:
    page = generate.models_page()
    for row in families.FAMILIES:
        assert f"| {row.name} |" in page
        assert row.source.split(";")[0].replace("<", "\\<") in page
    for preset in presets.PRESETS:
        assert f"| `{preset.name}` |" in page
    widths = {line.count(" | ") for line in page.splitlines() if line.startswith("| `qwen")}
    assert len(widths) <= 1
