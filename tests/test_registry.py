"""Names, specs, families, and a third-party plug-in installed for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from rsvp import registry
from rsvp.errors import BadInput, ModelUnavailable

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "plugin"


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("openai:gpt-5.1", "openai", "gpt-5.1"),
        ("grid", "grid", None),
        ("transformers:C:\\models\\qwen", "transformers", "C:\\models\\qwen"),
        ("openai:qwen2.5vl:7b", "openai", "qwen2.5vl:7b"),
        (" sam2:embedded ", "sam2", "embedded"),
    ],
)
def test_a_spec_splits_at_its_first_colon(text: str, name: str, argument: str | None) -> None:
    assert registry.parse_spec(text) == registry.Spec(name, argument)
    assert str(registry.parse_spec(text)) == text.strip()


@pytest.mark.parametrize("text", ["", "  ", ":gpt-5.1", "openai:"])
def test_half_a_spec_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="NAME:ARGUMENT"):
        registry.parse_spec(text)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(BadInput) as error:
        registry.load("mllm", "openia")
    assert "did you mean 'openai'?" in str(error.value)
    assert "transformers" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadInput, match="segmenter"):
        registry.names("segmentor")  # type: ignore[arg-type]


class Optional:
    """A backend with options of every kind."""

    def __init__(
        self,
        argument: str = "",
        *,
        size: int = 3,
        share: float | None = None,
        mode: Literal["fast", "good"] = "good",
        quiet: bool = False,
        device: str | Path | None = None,
        record: Path | None = None,
    ) -> None:
        self.given = (argument, size, share, mode, quiet, device, record)


@pytest.fixture
def optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "optional", "test_registry:Optional")


@pytest.mark.usefixtures("optional")
def test_options_are_the_keyword_parameters_that_text_can_say() -> None:
    schema = registry.options_model("mllm", "optional").model_json_schema()
    assert list(schema["properties"]) == ["size", "share", "mode", "quiet", "device"]
    texts = {"size": "8", "share": "0.5", "mode": "fast", "quiet": "true", "device": "cpu"}
    assert registry.parse_options("mllm", "optional", texts) == {
        "size": 8, "share": 0.5, "mode": "fast", "quiet": True, "device": "cpu"
    }  # fmt: skip


@pytest.mark.usefixtures("optional")
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"size": "large"}, "option 'size': .* valid integer"),
        ({"mode": "slow"}, "option 'mode': .* 'fast' or 'good'"),
        ({"share": "nan"}, "option 'share': .* finite number"),
        ({"share": "inf"}, "option 'share': .* finite number"),
        ({"sise": "3"}, "unknown .* 'sise', did you mean 'size'. Known: size, share, mode, quiet"),
        ({"record": "x"}, "unknown option of mllm optional: 'record'"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        registry.parse_options("mllm", "optional", texts)
    assert "\n" not in str(error.value)


class Unreadable:
    """A backend whose annotation names nothing that exists when it runs."""

    def __init__(self, *, size: NoSuchType = 3) -> None:  # type: ignore[name-defined]  # noqa: F821
        self.size = size


def test_options_that_cannot_be_read_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "odd", "test_registry:Unreadable")
    with pytest.raises(ModelUnavailable, match=r"options of mllm odd cannot be read: .*NoSuch"):
        registry.parse_options("mllm", "odd", {"size": "3"})


def test_the_embedded_folders_lie_in_the_package() -> None:
    folder = registry.embedded_folder("reasoner")
    assert folder.parts[-4:] == ("rsvp", "embedded", "weights", "reasoner")
    with pytest.raises(BadInput, match="segmenter"):
        registry.embedded_folder("detector")


def test_make_passes_the_argument_first_and_refuses_what_the_class_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["strategy"], "demo", "collections:UserString")
    assert registry.make("strategy", "demo:9x9") == "9x9"
    assert registry.make("strategy", "demo", seq="4x4") == "4x4"
    with pytest.raises(BadInput, match=r"strategy 'demo:9x9' cannot be made: .*colour"):
        registry.make("strategy", "demo:9x9", colour="red")


@pytest.mark.parametrize("target", ["no_such_module_here:Thing", "collections:NoSuchThing"])
def test_a_backend_that_cannot_be_imported_says_so(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "broken", target)
    with pytest.raises(ModelUnavailable, match="mllm broken"):
        registry.load("mllm", "broken")


@pytest.mark.parametrize(
    "code", ["raise ValueError('bad\\nday')", "import sys; sys.exit(7)", "def ("]
)
def test_a_module_that_fails_at_its_import_is_one_line(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.BUILT_IN["mllm"], "failing", "failing_module:Thing")
    with pytest.raises(ModelUnavailable, match="cannot be loaded") as error:
        registry.load("mllm", "failing")
    assert "\n" not in str(error.value)


def test_the_plug_in_of_the_docs_installs_and_answers(tmp_path: Path) -> None:
    """pip installs it as a user would; a fresh Python then finds it by name alone."""
    source, site = tmp_path / "plugin", tmp_path / "site"
    shutil.copytree(PLUGIN, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *offline, "--target", str(site), str(source)], check=True)
    code = (
        "import sys; from rsvp import registry; from rsvp.mllm import MLLM\n"
        "assert 'echo' in registry.names('mllm')\n"
        "echo = registry.make('mllm', 'echo:loud')\n"
        "assert isinstance(echo, MLLM)\n"
        "from rsvp.types import Message\n"
        "print(echo.reply([Message('user', ('where is the cat?',))]).text)\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run(  # noqa: PLW1510 - stdout is what is checked, stderr the message
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "WHERE IS THE CAT?", done.stderr


def test_the_plug_in_fits_a_page() -> None:
    lines = [p.read_text(encoding="utf-8").splitlines() for p in PLUGIN.iterdir() if p.is_file()]
    assert sum(map(len, lines)) < 40
