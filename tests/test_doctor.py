"""`rsvp doctor` on detectors and optional packages; the rest is in cli/test_other_commands.py."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsvp import doctor
from rsvp.cli.main import main
from rsvp.doctor import Finding

SOUND = {
    "torch": {"version": "2.13.0+cpu", "build": None, "gpu": None},
    "detectors": {},
    "packages": {
        "sam2-package": {"installed": True, "install": "pip install SAM"},
        "groundingdino-py": {"installed": True, "install": "pip install DINO"},
    },
}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """`examined(**probe)`: run the doctor where importing the libraries went like that."""

    def examine(**probe: Any) -> dict[str, Finding]:
        monkeypatch.setattr(doctor, "_probe", lambda: {**SOUND, **probe})
        return {finding.name: finding for finding in doctor.examine()}

    return examine


def package(name: str, **found: Any) -> dict[str, Any]:
    packages: dict[str, Any] = dict(SOUND["packages"])
    return {"packages": {**packages, name: {**packages[name], **found}}}


def test_all_that_is_there_can_run(examined) -> None:
    found = examined()
    for name in ("grounding-dino", "sam2-package", "groundingdino-py"):
        assert found[name].status == "ok"
        assert "can run" in found[name].detail
        assert found[name].fix == ""


def test_weights_of_a_detector_are_told(examined, monkeypatch) -> None:
    assert "hf download IDEA-Research/" in examined()["grounding-dino"].detail
    monkeypatch.setattr(doctor.machine, "in_hub_cache", lambda model: "grounding-dino" in model)
    assert "on this machine" in examined()["grounding-dino"].detail


@pytest.mark.parametrize("name", ["sam2-package", "groundingdino-py"])
def test_an_optional_package_may_be_missing_and_its_command_is_told(examined, name: str) -> None:
    finding = examined(**package(name, installed=False))[name]
    assert finding.status == "ok"
    assert "not installed" in finding.detail
    assert SOUND["packages"][name]["install"] in finding.detail


@pytest.mark.parametrize("name", ["sam2-package", "groundingdino-py"])
def test_a_package_that_does_not_import_has_its_remedy(examined, name: str, capsys) -> None:
    finding = examined(**package(name, error="ModelUnavailable: no BertModelWarper"))[name]
    assert finding.status == "note"
    assert "no BertModelWarper" in finding.detail
    assert finding.fix == SOUND["packages"][name]["install"]
    capsys.readouterr()
    assert main(["doctor"]) in (0, 4)  # by what else is here; the package alone breaks nothing
    assert f"fix it: {finding.fix}" in capsys.readouterr().out


def test_a_transformers_without_the_detectors_has_its_remedy(examined) -> None:
    finding = examined(detectors={"error": "ImportError: no MMGroundingDino"})["grounding-dino"]
    assert (finding.status, finding.fix) == ("note", "pip install -U 'transformers>=5'")


def test_where_torch_does_not_import_nothing_is_said_of_what_builds_on_it(examined) -> None:
    found = examined(detectors=None, packages={}, torch=None, torch_error="OSError")
    assert not {"grounding-dino", "sam2-package", "groundingdino-py"} & found.keys()
    assert found["torch"].status == "broken"


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`probed(**packages)`: the real probe, with packages of these sources in front of the path."""

    def probe(**packages: str) -> dict[str, Any]:
        for name, source in packages.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(source)
        path = [str(tmp_path), *filter(None, sys.path)]
        monkeypatch.setenv("PYTHONPATH", ":".join(path))
        doctor._probe.cache_clear()
        return dict(doctor._probe())

    yield probe
    doctor._probe.cache_clear()


def test_the_probe_imports_what_is_here_and_survives_what_does_not(probed) -> None:
    found = probed(
        sam2="raise RuntimeError('of the wrong year')",
        torchvision="raise RuntimeError('operator torchvision::nms does not exist')",
    )
    json.dumps(found)
    assert "nms does not exist" in found["torchvision_error"]
    assert found["detectors"] == {}  # hidden from transformers, torchvision does no harm
    broken, sound = found["packages"]["sam2-package"], found["packages"]["groundingdino-py"]
    assert broken["installed"] is True
    assert broken["error"]
    assert sound["installed"] is (importlib.util.find_spec("groundingdino") is not None)
    assert "error" not in sound
    assert sound["install"] == "pip install --no-deps groundingdino-py==0.4.0"
