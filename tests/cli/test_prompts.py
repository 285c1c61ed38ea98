"""`rsvp prompts` lists the prompts and shows them as a model gets them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rsvp import prompting
from rsvp.cli.main import main


def test_it_lists_every_prompt(capsys) -> None:
    assert main(["prompts"]) == 0
    assert capsys.readouterr().out.splitlines() == prompting.names()


def test_listing_loads_no_model_library_and_no_numpy() -> None:
    code = (
        "import sys; from rsvp.cli.main import main; assert main(['prompts']) == 0\n"
        "print(*{'numpy', 'torch', 'PIL'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_it_shows_a_prompt_in_a_frame(capsys) -> None:
    assert main(["prompts", "full/boxes.cot", "--frame", "0-1-yxyx"]) == 2
    assert main(["prompts", "full/boxes.cot", "--frame", "pixels"]) == 0
    text = capsys.readouterr().out
    assert "1024 pixels wide and 768 pixels high" in text
    assert "\n<query>\n" in text
    assert "<<" not in text
    assert "$" not in text


def test_several_prompts_have_headings(capsys) -> None:
    assert main(["prompts", "full/system", "compact/grid.cot"]) == 0
    text = capsys.readouterr().out
    system = prompting.render("full/system")
    assert (
        text == f"## full/system\n\n{system}\n\n## compact/grid.cot\n\nThink, then bands: <query>\n"
    )


def test_json_has_the_digest_that_results_are_made_of(capsys) -> None:
    assert main(["prompts", "compact/boxes.cot", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["prompts"]
    assert entry["sha256"] == prompting.load("compact/boxes.cot").sha256
    assert entry["text"] == "Think, then box: <query>"


@pytest.mark.parametrize("name", ["nothing", "full/_partials/rules"])
def test_an_unknown_prompt_is_refused(name: str, capsys) -> None:
    assert main(["prompts", name]) == 2
    assert f"there is no prompt {name!r}" in capsys.readouterr().err
