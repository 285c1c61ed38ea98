"""A schema's enumerations are enforced on local models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_qwen3_vl
from transformers import AutoTokenizer

from rsvp.mllm.decoding import EnumConstraint
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.platform import machine
from rsvp.registry import embedded_folder
from rsvp.types import Message

VALUES = ["1", "12", "there is none", 'a "b"', "größer"]
SCHEMA = {"properties": {"answer": {"type": ["string", "null"], "enum": [*VALUES, None]}}}
REASONER = embedded_folder("reasoner")
needs_weights = pytest.mark.skipif(
    not machine.holds_weights(REASONER), reason="no weights: python -m recipes.embedded"
)


@pytest.fixture(scope="module", params=["bytes", pytest.param("embedded", marks=needs_weights)])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    return AutoTokenizer.from_pretrained(
        REASONER if request.param == "embedded" else tiny_qwen3_vl(folder)
    )


def write(tokenizer: Any, begin: str, seed: int, start: int = 3) -> str:
    """What a random model writes behind a beginning, to the value's end."""
    ids = [0] * start + tokenizer.encode(begin, add_special_tokens=False)
    held, scores = EnumConstraint(tokenizer, SCHEMA, start), torch.Generator().manual_seed(seed)
    for _ in range(40):
        logits = torch.randn(1, len(tokenizer), generator=scores)
        found = held(torch.tensor([ids]), logits)
        if bool(torch.isfinite(found).all()):
            break
        ids.append(int(found.argmax()))
    return str(tokenizer.decode(ids[start:]))


@pytest.mark.parametrize("seed", range(8))
def test_a_random_model_writes_one_of_the_values(tokenizer: Any, seed: int) -> None:
    text = write(tokenizer, '{"reason": "x", "answer": "', seed)
    assert json.loads(text.rstrip("},") + "}")["answer"] in VALUES


@pytest.mark.parametrize("begin", ['{"answer": ', '{"reason": "', '{"other": "', "The answer is "])
def test_elsewhere_every_token_may_follow(tokenizer: Any, begin: str) -> None:
    assert write(tokenizer, begin, seed=0).rstrip() == begin.rstrip()


@needs_weights
@pytest.mark.parametrize("choices", [["cow", "bread"], ["J", "10"], ["yes", "there is none"]])
def test_the_embedded_reasoner_keeps_to_the_choices(choices: list[str]) -> None:
    rgb = np.full((200, 200, 3), 127, np.uint8)
    asked = [Message("user", (rgb, f"Answer: which digit is on the tag? {' or '.join(choices)}"))]
    schema = {"properties": {"answer": {"type": "string", "enum": choices}}}
    (reply,) = TransformersMLLM("embedded", device="cpu").replies(asked, 1, 1.0, schema=schema)
    assert json.loads(reply.text)["answer"] in choices


def test_what_a_model_never_writes_binds_it_to_nothing(tokenizer: Any) -> None:
    held, logits = EnumConstraint(tokenizer, SCHEMA, 0), torch.zeros(1, len(tokenizer))
    never = {token for value in VALUES for path in held._tokens(value) for token in path}
    logits[0, sorted(never)] = -torch.inf
    ids = torch.tensor([tokenizer.encode('"answer":"', add_special_tokens=False)])
    assert held(ids, logits).equal(logits)
