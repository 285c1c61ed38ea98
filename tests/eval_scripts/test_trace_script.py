"""`trace` beside `segment` on the same questions."""

import json
import re

import pytest
from scripted import Recorder, Script

from eval import trace
from rsvp.embedded import scenes
from rsvp.errors import MLLMFailed
from rsvp.pipeline import Pipeline
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Reply, Usage


class Knows(Script):
    """Traces rightly; segments what it is asked for only half of the time."""

    def __init__(self, folder):
        super().__init__("")
        self.truth, self.count = {}, 0
        for scene in json.loads((folder / "scenes.json").read_text())["scenes"]:
            for q in scene["questions"]:
                self.truth[q["text"]] = [scene["objects"][i] for i in q["answer_objects"]]

    def reply(self, messages, *, schema=None):
        text = messages[-1].parts[-1]
        kind, asked = re.search(r"^=== (\w+) \w+ ===\n(.*)\n=== ", text, re.MULTILINE).groups()
        found = [{"label": o["name"], "box": o["box"]} for o in self.truth[asked]]
        if kind == "question":
            steps = [{"text": "it", "objects": found}]
            path = {"path": steps, "answer": "it", "answer_objects": found}
            return Reply(json.dumps(path), Usage(200, 40, 1))
        self.count += 1
        if self.count % 2:
            raise MLLMFailed("down")
        return Reply(json.dumps({"targets": found, "reason": "r"}), Usage(100, 10, 1))


@pytest.fixture
def folder(tmp_path):
    words = ["--task", "trace", "--n", "12", "--seed", "6", "--size", "128", "--out", str(tmp_path)]
    assert scenes.main(words) == 0
    return tmp_path


def test_the_two_ways_are_paired(folder, monkeypatch, capsys):
    made = Pipeline(Knows(folder), BoxesStrategy(), Recorder(), frame="pixels")
    frame = made.prompt_config.frame
    monkeypatch.setattr(trace, "Pipeline", Again(frame, made))
    assert trace.main(["--data", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == 11  # one of twelve is absent
    gain = found["trace"]["a_miou"]["mean"] - found["segment"]["a_miou"]["mean"]
    assert found["difference"]["mean"] == pytest.approx(gain)
    assert gain > 0.1
    assert (found["trace"]["tokens"], found["segment"]["tokens"]) == (240, 110)
    assert "trace - segment" in trace.format_table(found)


class Again:
    """Makes the second pipeline, in the frame of the first."""

    def __init__(self, frame, made):
        self.frame, self.made = frame, made

    def from_preset(self, *_, **__):
        return self.made

    def __call__(self, *parts):
        return Pipeline(*parts, frame=self.frame)
