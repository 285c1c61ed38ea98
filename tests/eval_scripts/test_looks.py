"""The sheet of answered questions with what was looked at."""

import json

import numpy as np
import pytest
from PIL import Image
from scripted import Recorder, Script, answer

from eval import looks
from rsvp.embedded import scenes
from rsvp.evaluation.runner import evaluate
from rsvp.pipeline import Pipeline
from rsvp.strategies.boxes import BoxesStrategy

LOOK = json.dumps({"reason": "small", "look": ["it"], "answer": None})
SIDE = 560  # of a picture on the sheet


class Looks(Script):
    """Looks at a box, then takes the first choice."""

    def reply(self, messages, *, schema=None):
        segmenting = "=== query" in messages[-1].parts[-1]
        again = LOOK if len(messages) == 2 else json.dumps({"reason": "", "answer": "(A)"})
        self.lines = [answer((100, 100, 300, 300)) if segmenting else again]
        return super().reply(messages, schema=schema)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    data, out = tmp_path_factory.mktemp("qa"), tmp_path_factory.mktemp("run") / "R"
    assert scenes.main(["--task", "qa", "--n", "3", "--seed", "4", "--out", str(data)]) == 0
    made = Pipeline(Looks(""), BoxesStrategy(), Recorder())
    evaluate("scenes-qa", data, made, out, progress=False, oracle=False)
    return data, out


@pytest.mark.parametrize(("options", "size"), [([], (2, 2)), (["--count", "1"], (1, 1))])
def test_image_and_look_stand_beside_each_other(folders, tmp_path, options, size) -> None:
    data, run = folders
    words = ["--data", str(data), "--run", str(run), "--out", str(tmp_path / "a.png"), *options]
    assert looks.main(words) == 0
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert (sheet.shape[0] // SIDE, sheet.shape[1] // (2 * SIDE)) == size
    corner, frame = sheet[:SIDE, :SIDE], (255, 56, 92)
    assert (corner == frame).all(2).sum() > 100


@pytest.mark.parametrize(
    ("option", "message"), [(["--id", "x"], "no question x"), (["--count", "0"], "with a look")]
)
def test_what_cannot_be_drawn_is_one_line(folders, tmp_path, capsys, option, message) -> None:
    data, run = folders
    words = ["--data", str(data), "--run", str(run), "--out", str(tmp_path / "a.webp"), *option]
    assert looks.main(words) == 2
    assert message in capsys.readouterr().err
    assert looks.main([*words[:-3], str(tmp_path / "a.gif")]) == 2
