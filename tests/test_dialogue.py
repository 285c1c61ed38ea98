"""The chat loop: what is sent, when it asks again, and how budgets end it."""

from __future__ import annotations

import pytest
from scripted import Script, answer, picture, pipeline

from rsvp import prompting
from rsvp.dialogue import Budget, ChatRequest, Dialogue, Limits
from rsvp.errors import BadInput, BudgetExceeded, UnparsableReply
from rsvp.types import Message, Reply, Usage

HELLO = ChatRequest(("hello",), ("full/boxes.cot",))


def read_number(reply: Reply) -> int:
    try:
        return int(reply.text)
    except ValueError as error:
        raise UnparsableReply("no number", reply.text) from error


def again(problem: str) -> ChatRequest:
    return ChatRequest((f"again: {problem}",), ("full/reask.boxes",))


def test_a_conversation_goes_on_after_an_answer() -> None:
    mllm = Script("one", "1", "2")
    dialogue = Dialogue(mllm, "full")
    assert dialogue.ask(HELLO, read_number, again) == 1
    assert dialogue.ask(ChatRequest(("and then?",)), read_number, again) == 2
    roles = [message.role for message in dialogue.messages]
    assert roles == ["system", *["user", "assistant"] * 3]
    assert mllm.asked[1][-1] == Message("user", ("again: no number",))
    assert mllm.asked[2][:5] == dialogue.messages[:5]
    assert dialogue.budget.usage == Usage(300, 30, 3)
    names = ("full/system", "full/boxes.cot", "full/reask.boxes")
    assert dialogue.prompt_sha256 == prompting.digest(prompting.load(n).text for n in names)


def test_a_single_turn_model_starts_anew_and_is_asked_again_once() -> None:
    mllm = Script("x")
    dialogue = Dialogue(mllm, "compact", single_turn=True, max_reasks=5)
    with pytest.raises(UnparsableReply, match="none of the MLLM's 2 replies"):
        dialogue.ask(HELLO, read_number, again)
    assert [len(messages) for messages in mllm.asked] == [1, 1]


@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        (Limits(calls=1), 1),
        (Limits(tokens=150), 2),
        (Limits(seconds=2.5), 3),
        (Limits(calls=2, tokens=10**6), 2),
    ],
)
def test_a_spent_budget_ends_it(limits: Limits, calls: int) -> None:
    mllm = Script(Reply("x", Usage(70, 30, 1), seconds=1.0))
    dialogue = Dialogue(mllm, "full", max_reasks=9, budget=Budget(limits))
    with pytest.raises(BudgetExceeded, match="raise --budget") as error:
        dialogue.ask(HELLO, read_number, again)
    assert len(mllm.asked) == calls
    assert error.value.exit_code == 3
    assert isinstance(error.value.__context__, UnparsableReply)  # --debug shows why it asked again


def test_dialogues_share_the_budget_of_a_request() -> None:
    budget, mllm = Budget(Limits(calls=2)), Script("1")
    for _ in range(2):
        assert Dialogue(mllm, "full", budget=budget).ask(HELLO, read_number, again) == 1
    with pytest.raises(BudgetExceeded):
        Dialogue(mllm, "full", budget=budget).ask(HELLO, read_number, again)


def test_every_request_of_a_pipeline_has_the_whole_budget() -> None:
    pipe = pipeline("x", answer((0, 0, 9, 9)), limits=Limits(calls=2))
    for _ in range(2):
        assert pipe.segment(picture(), "cup").targets


def test_limits_are_read_from_text() -> None:
    assert Limits.parse("calls=3, seconds=0.5") == Limits(calls=3, seconds=0.5)
    assert Limits.parse(None) == Limits()


@pytest.mark.parametrize(
    "text", ["", ",", "calls", "calls=0", "calls=x", "money=3", "seconds=nan", "=3"]
)
def test_a_broken_budget_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="calls=N,tokens=N,seconds=X"):
        Limits.parse(text)
