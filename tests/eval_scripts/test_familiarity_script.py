"""Shares of images that are answered without a warning."""

import numpy as np
import pytest
from PIL import Image as Pil
from scripted import Script

from eval import familiarity
from rsvp.embedded.scenes import main as render_scenes
from rsvp.errors import BadInput
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Reply

ANSWER = '{"targets":[{"label":"cup","box":[100,100,500,500]}],"reason":"there"}'
NONE = '{"targets":[],"reason":"none"}'


def test_each_image_has_one_outcome(tmp_path) -> None:
    for i in range(5):
        Pil.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    replies = (
        Reply(ANSWER, familiarity=1.0),
        Reply(ANSWER, familiarity=-1.0),
        Reply(NONE, familiarity=0.5),
        Reply('{"targets":[],"understood":false,"reason":"no"}', familiarity=0.5),
        Reply("?"),
    )
    pipeline = Pipeline(Script(*replies), BoxesStrategy(), BoxSegmenter(), max_reasks=0)
    items = familiarity.folder_items(tmp_path, None)
    outcome = {"some": familiarity.measure(pipeline, items)}
    assert outcome["some"] == {"images": 5, "answered": 0.2, "no target": 0.2, "doubted": 0.6}
    assert familiarity.format_table(outcome).splitlines()[1].split() == [
        "some", "5", "0.200", "0.200", "0.600",
    ]  # fmt: skip


def test_scenes_are_asked_their_own_questions(tmp_path) -> None:
    render_scenes(["--n", "3", "--seed", "1", "--out", str(tmp_path), "--size", "96"])
    items = familiarity.folder_items(tmp_path, 2)
    assert [file.name for file, _ in items] == ["000000.png", "000002.png"]


def test_an_empty_folder_is_refused(tmp_path, capsys) -> None:
    with pytest.raises(BadInput, match="no image"):
        familiarity.folder_items(tmp_path, None)
    assert familiarity.main(["--data", "photos"]) == 2
    assert "NAME=FOLDER" in capsys.readouterr().err
