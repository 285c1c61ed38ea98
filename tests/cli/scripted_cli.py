"""`--mllm scripted:WORD`, and command lines that use it."""

from __future__ import annotations

import json
from pathlib import Path

from rsvp.errors import MLLMFailed
from rsvp.types import Reply, Usage

ROOT = Path(__file__).parents[2]
ANSWER = {
    "steps": [{"text": "a \x1b[31mred\x1b[0m cup\nis there", "boxes": [[0, 0, 500, 500]]}],
    "targets": [{"label": "cup", "box": [100, 200, 500, 800]}],
    "reason": "one drinks from it",
}


class Scripted:
    """`--mllm scripted:WORD`: a model whose reply depends on the word."""

    def __init__(self, word: str = "cup") -> None:
        self.name, self.word = f"scripted:{word}", word
        self.model = "embedded" if word == "unsure" else "qwen3-vl"

    def reply(self, messages, *, schema=None):
        replies = {
            "cup": json.dumps(ANSWER),
            "none": '{"targets": [], "reason": "there is no cup"}',
            "unsure": '{"targets": [], "reason": "nothing"}',
            "strange": '{"targets": [], "understood": false, "reason": "no scene"}',
            "noise": "hello \x07 there",
        }
        if self.word == "down":
            raise MLLMFailed("scripted: cannot connect")
        if self.word == "bug":
            raise ZeroDivisionError("of all\nthings")
        if self.word == "interrupted":
            raise KeyboardInterrupt
        confidence = 0.2 if self.word == "unsure" else None
        return Reply(replies[self.word], Usage(1, 2, 1), confidence=confidence)


ASK = ["segment", "--image", "a.png", "--query", "the cup", "--segmenter", "box"]


def cup(word: str = "cup", *more: str) -> list[str]:
    return [*ASK, "--mllm", f"scripted:{word}", *more]


BOX = ["segment", "--image", "a.png", "--segmenter", "box"]
