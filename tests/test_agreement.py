"""Several sampled replies: which targets are kept, and what their score is."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from chat_server import ASK, Server, completion, connect, refusal
from scripted import answer, picture, pipeline

from rsvp.agreement import most_agreed
from rsvp.cli.options import checking
from rsvp.dialogue import Limits
from rsvp.errors import BadInput, MLLMFailed
from rsvp.types import Box, PackedMask, Target

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
NEAR_A = (0, 0, 10, 9)
NONE = '{"targets": [], "reason": "nothing is"}'


def target(box):
    mask = np.zeros((20, 60), bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return Target("a", Box(*box), 0.9, PackedMask.pack(mask))


@pytest.mark.parametrize(
    ("replies", "index", "share", "scores"),
    [
        ([[A], [B], [NEAR_A]], 0, 2 / 3, [2 / 3]),
        ([[B], [A], [NEAR_A], [A]], 1, 3 / 4, [3 / 4]),
        ([[A, B], [B, A], [A]], 0, 2 / 3, [1, 2 / 3]),  # the order does not matter, the number does
        ([[A], [A, A]], 0, 1 / 2, [1]),
        ([[], [], []], 0, 1, []),
        ([[], [], [A]], 0, 2 / 3, []),
        ([[], [], [A], [B]], 2, 1 / 4, [1 / 4]),  # half of them is no majority for "no target"
        ([[], [], [A], [B], [A]], 2, 2 / 5, [2 / 5]),
        ([[A]], 0, 1, [1]),
    ],
)
def test_the_majority_is_kept_and_its_share_is_the_score(replies, index, share, scores) -> None:
    found = most_agreed([[target(box) for box in boxes] for boxes in replies])
    assert (found.index, found.share) == (index, pytest.approx(share))
    assert [t.score for t in found.targets] == pytest.approx(scores)


ONE, TWO = (100, 200, 200, 400), (500, 500, 700, 700)


def test_replies_are_asked_for_at_once_and_segmented_together() -> None:
    lines = [answer(ONE), answer(TWO), answer((100, 200, 200, 390)), NONE]
    pipe = pipeline(*lines, samples=4)
    found = pipe.segment(picture(), "cup")
    assert [t.box.xyxy for t in found.targets] == [(20, 20, 40, 40)]
    assert (found.agreement, found.targets[0].score) == (0.5, 0.5)
    assert found.reasoning.raw == lines[0]
    assert (found.usage.calls, len(pipe.segmenter.prompted)) == (4, 1)
    assert found.to_dict()["agreement"] == 0.5


def test_replies_that_cannot_be_read_do_not_count() -> None:
    pipe = pipeline("gibberish", answer(ONE), "gibberish", samples=3)
    found = pipe.segment(picture(), "cup")
    assert (found.agreement, len(found.targets)) == (1.0, 1)
    assert "1 of 3 sampled replies count" in found.warnings[0]
    pipe = pipeline("gibberish", "gibberish", answer(ONE), samples=2)  # then one is asked as ever
    found = pipe.segment(picture(), "cup")
    assert (found.agreement, len(found.targets), found.usage.calls) == (None, 1, 3)


def test_the_budget_of_calls_limits_the_samples() -> None:
    pipe = pipeline(answer(ONE), samples=16, limits=Limits(calls=3))
    found = pipe.segment(picture(), "cup")
    assert (len(pipe.mllm.asked), found.agreement) == (3, 1.0)
    assert "3 of 16" in found.warnings[0]


def test_a_server_is_asked_for_all_replies_at_once_at_the_temperature() -> None:
    server, together = Server(), threading.Barrier(3)

    def reply(_):
        together.wait(20)  # until all three are under way
        return completion(answer(ONE))

    server.answers = [reply]
    replies = connect(server).replies(ASK, 3, 0.9)
    server.http.shutdown()
    assert [one.text for one in replies] == [answer(ONE)] * 3
    assert {request["temperature"] for request in server.requests} == {0.9}


def test_some_of_several_requests_may_fail() -> None:
    server = Server()
    server.answers = [completion("a"), refusal(418, "no"), completion("b")]
    replies = connect(server, max_retries=0).replies(ASK, 3, 0.9)
    server.answers = [refusal(418, "no")]
    with pytest.raises(MLLMFailed, match="no"):
        connect(server, max_retries=0).replies(ASK, 2, 0.9)
    server.http.shutdown()
    assert sorted(one.text for one in replies) == ["a", "b"]


@pytest.mark.parametrize("text", ["x", "3:hot", "", "2.5"])
def test_bad_numbers_of_samples_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--samples is K"):
        checking(0, False, text)


def test_samples_have_a_temperature() -> None:
    assert checking(0, False, "8:1.2")["temperature"] == 1.2
    with pytest.raises(BadInput, match="samples is 1 or more"):
        pipeline(answer(ONE), samples=2, temperature=0.0)
