"""Replies that the token limit cut: asked for once more with twice the limit, else named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, Server, completion, connect
from scripted import Script, answer, picture, pipeline

from rsvp.dialogue import Budget, ChatRequest, Dialogue, Limits
from rsvp.errors import UnparsableReply
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.mllm.replay import ReplayMLLM
from rsvp.parsing.thinking import is_cut_thought
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Reply, Usage

DRAFT = answer((1, 2, 3, 4))
WHOLE = answer((100, 100, 600, 600))
CUT = Reply('{"steps": [', Usage(100, 50, 1), 1.0, "length")


class Longer(Script):
    """A scripted MLLM whose token limit can be raised."""

    def reply_longer(self, messages: Any, cut: Reply, *, schema: Any = None) -> Reply:
        assert cut.finish_reason == "length"
        return self.reply(messages, schema=schema)


def read(reply: Reply) -> Any:
    try:
        return json.loads(reply.text)
    except ValueError as error:
        raise UnparsableReply("no JSON", reply.text) from error


def ask(mllm: Script, **options: Any) -> Any:
    return Dialogue(mllm, "full", **options).ask(
        ChatRequest(("where?",)), read, lambda problem: ChatRequest((f"again: {problem}",))
    )


def test_a_cut_reply_is_asked_for_once_more_with_the_same_messages() -> None:
    mllm = Longer(CUT, WHOLE)
    budget = Budget()
    assert ask(mllm, budget=budget) == json.loads(WHOLE)
    assert mllm.asked[0] == mllm.asked[1]
    assert budget.usage == Usage(200, 60, 2)


def test_a_reply_cut_twice_is_an_error_and_not_asked_a_third_time() -> None:
    mllm = Longer(CUT)
    with pytest.raises(UnparsableReply, match=r"cut at the token limit.*max_tokens=N") as error:
        ask(mllm)
    assert len(mllm.asked) == 2
    assert error.value.raw == CUT.text


def test_a_spent_budget_keeps_the_cut_reply() -> None:
    mllm = Longer(Reply(WHOLE, Usage(1, 1, 1), 1.0, "length"))
    assert ask(mllm, budget=Budget(Limits(calls=1))) == json.loads(WHOLE)
    assert len(mllm.asked) == 1


def test_a_model_whose_limit_is_fixed_is_asked_again() -> None:
    mllm = Script(CUT, WHOLE)
    assert ask(mllm) == json.loads(WHOLE)
    assert "again: no JSON" in str(mllm.asked[1][-1].parts)


@pytest.mark.parametrize(
    "thought",
    [
        f"<think>The cup may be {DRAFT}. But wait, the",
        f"<think>one</think> then <thinking> {DRAFT}",
        f"◁think▷ perhaps {DRAFT}",
        f"<|channel|>analysis<|message|>{DRAFT}",
        f"<|channel>thought\n{DRAFT}",
        f"[THINK]{DRAFT}",
        f"First I look at the cup: {DRAFT}. Hmm, but the saucer is",  # the prompt opened the tag
        "",
    ],
)
def test_nothing_is_read_from_a_thought_that_was_cut(thought: str) -> None:
    assert is_cut_thought(thought)
    cut = Reply(thought, Usage(1, 1, 1), 1.0, "length")
    whole = pipeline(cut, WHOLE).segment(picture(), "cup")
    assert [t.box.xyxy for t in whole.targets] == [(20.0, 10.0, 120.0, 60.0)]
    with pytest.raises(UnparsableReply, match="cut at the token limit before the answer began"):
        pipeline(cut, max_reasks=0).segment(picture(), "cup")


@pytest.mark.parametrize(
    "text",
    [
        f"<think>short</think>{WHOLE[:-20]}",
        f"◁think▷a◁/think▷{WHOLE[:-20]}",
        f"<|channel|>analysis<|message|>a<|channel|>final<|message|>{WHOLE[:-9]}",
        WHOLE[:-20],
        f"Here it is:\n```json\n{WHOLE[:-20]}",
    ],
)
def test_an_answer_that_was_cut_is_no_thought(text: str) -> None:
    assert not is_cut_thought(text)


def starved(request: dict[str, Any]) -> Any:
    """A thinking model that needs 3000 tokens, behind a server that keeps thoughts apart."""
    limit = request.get("max_tokens", 10**6)
    if limit >= 3000:
        return completion(WHOLE, reasoning_content="It is the cup.")
    status, body, headers = completion(None, "length", reasoning_content=f"Maybe {DRAFT}, or")
    body["usage"]["completion_tokens"] = limit
    return status, body, headers


def segment(mllm: Any, **options: Any) -> Any:
    return Pipeline(mllm, BoxesStrategy(), BoxSegmenter(), **options).segment(picture(), "cup")


@pytest.mark.usefixtures("pauses")
def test_a_thinking_model_that_starves_gets_twice_the_tokens(server: Server) -> None:
    server.answers = [starved]
    result = segment(connect(server, max_tokens=2000))
    assert [r["max_tokens"] for r in server.requests] == [2000, 4000]
    assert server.requests[0]["messages"] == server.requests[1]["messages"]
    assert len(result.targets) == 1
    assert result.usage.calls == 2


@pytest.mark.usefixtures("pauses")
def test_a_thinking_model_that_starves_twice_is_named(server: Server) -> None:
    server.answers = [starved]
    with pytest.raises(UnparsableReply, match="cut at the token limit") as error:
        segment(connect(server, max_tokens=500))
    assert len(server.requests) == 2
    assert "enable_thinking=false" in str(error.value)


@pytest.mark.usefixtures("pauses")
def test_a_reply_that_met_the_servers_context_is_not_asked_for_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    status, body, headers = completion('{"targets": [], "reason": "no', "length")
    body["usage"] = {"prompt_tokens": 3000, "completion_tokens": 1096}
    server.answers = [(status, body, headers)]
    with caplog.at_level(logging.WARNING):
        connect(server).reply_longer([], Reply("x", Usage(3000, 1096, 1), 1.0, "length"))
        segment(connect(server), max_reasks=0)
    assert len(server.requests) == 1
    assert "its context is full after 3000 + 1096 tokens" in caplog.text
    assert "OLLAMA_CONTEXT_LENGTH" in caplog.text


@pytest.mark.usefixtures("pauses")
def test_a_recorded_run_with_a_raised_limit_replays(server: Server, tmp_path: Path) -> None:
    server.answers = [starved]
    recording = ReplayMLLM(tmp_path / "r.jsonl", record=connect(server, max_tokens=2000))
    recorded = segment(recording)
    replayed = segment(ReplayMLLM(tmp_path / "r.jsonl"))
    assert len(server.requests) == 2
    assert [t.box for t in replayed.targets] == [t.box for t in recorded.targets]
    assert replayed.usage == recorded.usage
    (tmp_path / "cut.jsonl").write_text((tmp_path / "r.jsonl").read_text().splitlines()[0])
    with pytest.raises(UnparsableReply, match="cut"):
        segment(ReplayMLLM(tmp_path / "cut.jsonl"), max_reasks=0)


def test_a_conversation_that_lost_its_beginning_is_named(caplog: pytest.LogCaptureFixture) -> None:
    mllm = Script(Reply("x", Usage(3900, 10, 1)), Reply(WHOLE, Usage(2100, 10, 1)))
    with caplog.at_level(logging.WARNING):
        ask(mllm)
    assert "read 2100 tokens of a conversation that had 3900 before" in caplog.text


def test_the_default_limit_holds_a_thought() -> None:
    request = OpenAIMLLM("m", base_url="http://h/v1", api_key=KEY)._request(
        [], None, 8192, frozenset()
    )
    assert request["max_tokens"] == 8192
    assert request["stream"] is True
