"""Defaults from the environment and from a file: who wins, what is refused, what doctor shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_cli import ASK, BOX, cup

from rsvp.cli import settings
from rsvp.cli.main import main


@pytest.fixture
def config(here: Path, monkeypatch: pytest.MonkeyPatch):
    """`config(text)`: the user's file holds this."""

    def write(text: str) -> Path:
        file = here / "config.toml"
        file.write_text(text)
        monkeypatch.setenv(settings.FILE, str(file))
        return file

    return write


def test_the_environment_names_the_models(monkeypatch, capsys) -> None:
    monkeypatch.setenv("RSVP_MLLM", "scripted:cup")
    monkeypatch.setenv("RSVP_SEGMENTER", "box")
    monkeypatch.setenv("RSVP_STRATEGY", "grid:3x4")
    monkeypatch.setenv("RSVP_PRESET", "laptop")
    words = ["segment", "--image", "a.png", "--query", "cup", "--json", "--strategy", "boxes"]
    assert main(words) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert (models["mllm"], models["segmenter"]) == ("scripted:cup", "box")
    assert models["strategy"] == "boxes"  # the command line wins


def test_a_wrong_preset_of_the_environment_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setenv("RSVP_PRESET", "embeded")
    assert main(ASK) == 2
    assert "did you mean 'embedded'" in capsys.readouterr().err


def test_the_file_holds_for_every_command_and_for_one(config, monkeypatch, capsys) -> None:
    config('mllm = "scripted:cup"\nsegmenter = "box"\n[segment]\nformat = "json"\nout = "there"\n')
    words = ["segment", "--image", "a.png", "--query", "cup"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["mllm"] == "scripted:cup"
    assert [path.name for path in Path("there").iterdir()] == ["result.json"]
    monkeypatch.setenv("RSVP_MLLM", "scripted:none")  # wins over the file
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["mllm"] == "scripted:none"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('presett = "local"', "presett is no option of a command"),
        ('[segment]\npresett = "local"', "[segment] presett is no option"),
        ("[segmnt]\nout = 'x'", "[segmnt] out is no option"),
        ("preset =", "broken TOML"),
    ],
)
def test_a_wrong_file_is_one_line(config, capsys, text: str, said: str) -> None:
    file = config(text)
    assert main(["models"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {file}: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_file_that_is_named_and_missing_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setenv(settings.FILE, "no.toml")
    assert main(["models"]) == 2
    assert "no such file: no.toml" in capsys.readouterr().err


def test_a_user_without_a_file_needs_none(here: Path, monkeypatch) -> None:
    monkeypatch.delenv(settings.FILE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "nowhere"))
    monkeypatch.setenv("HOME", str(here))
    assert settings.read() == {}
    assert main([*BOX, "--box", "1,1,9,9", "-q"]) == 0


def test_doctor_shows_what_is_set(config, monkeypatch, capsys) -> None:
    from rsvp import doctor

    monkeypatch.setattr(doctor, "_probe", dict)
    file = config('[segment]\nformat = "coco"\n')
    monkeypatch.setenv("RSVP_PRESET", "local")
    monkeypatch.setenv("RSVP_MLM", "openai:secret")
    main(["doctor", "--json"])
    found = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert found["RSVP_PRESET"]["detail"] == "local"
    assert found["segment.format"]["detail"] == f"coco in {file}"
    assert found["RSVP_MLM"]["status"] == "note"
    assert "no setting of rsvp; there are RSVP_PRESET, RSVP_MLLM" in found["RSVP_MLM"]["detail"]
    assert "secret" not in json.dumps(found)


def test_boxes_need_no_mllm_whatever_the_defaults(config, capsys) -> None:
    config('mllm = "scripted:down"\n')
    assert main([*BOX, "--box", "1,1,9,9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["mllm"] is None
    assert main(cup()) == 0
