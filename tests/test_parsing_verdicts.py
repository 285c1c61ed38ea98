"""What replies about masks mean: verdicts, corrections, what is missing, which of two is better."""

from __future__ import annotations

import pytest

from rsvp.errors import UnparsableReply
from rsvp.parsing import parse_better, parse_verdicts

GOOD = {
    '{"verdicts":[{"target":1,"verdict":"accept"}],"missing":[]}': [(1, "accept", None)],
    '```json\n[{"target": 2, "verdict": "Rejected", "reason": "a"}]\n```': [(2, "reject", None)],
    '{"target": "target 1", "verdict": "ok"}': [(1, "accept", None)],
    '{"verdicts": {"1": "accept", "2": {"verdict": "reject"}}}': [
        (1, "accept", None), (2, "reject", None),
    ],
    '{"verdicts":[{"number":1,"verdict":"correct","bbox_2d":[1,2,3,4]}]}': [
        (1, "correct", (1, 2, 3, 4)),
    ],
    '{"verdicts":[{"target":1,"verdict":"correct","box":{"xmin":1,"ymin":2,"xmax":3,"ymax":4}}]}': [
        (1, "correct", (1, 2, 3, 4)),
    ],
    '<think>{"verdicts":[{"target":1,"verdict":"reject"}]}</think>'
    '{"verdicts":[{"target":1,"verdict":"accept"}]}': [(1, "accept", None)],
    '{"verdicts":[{"target":1,"verdict":"accept"},{"target":2,"verd': [(1, "accept", None)],
    '{"verdicts":[{"target":1,"verdict":"accept"},{"target":1,"verdict":"keep"}]}': [
        (1, "accept", None),
    ],
    '{"answer": {"verdicts":[{"target":2,"verdict":"accept"}],"missing":null}}': [
        (2, "accept", None),
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_verdicts(text: str) -> None:
    found = parse_verdicts(text, (1, 2)).verdicts
    assert [(v.target, v.verdict, v.region and v.region.box) for v in found] == GOOD[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the reply is empty"),
        ("They are fine.", "no JSON"),
        ('{"verdicts":[]}', "no verdict on target 1"),
        ('{"verdicts":[{"verdict":"accept"}]}', "does not say which target"),
        ('{"verdicts":[{"target":1,"verdict":"maybe"}]}', "'maybe'"),
        ('{"verdicts":[{"target":1,"verdict":"correct"}]}', "has no box"),
        ('{"verdicts":[{"target":1,"verdict":"correct","box":[1,2]}]}', "target 1: "),
        (
            '{"verdicts":[{"target":1,"verdict":"correct","boxes":[[1,2,3,4],[5,6,7,8]]}]}',
            "several",
        ),
        (
            '{"verdicts":[{"target":1,"verdict":"accept"},{"target":1,"verdict":"reject"}]}',
            "two verdicts",
        ),
        (
            '{"verdicts":[{"target":1,"verdict":"accept"}]} {"verdicts":[{"target":1,'
            '"verdict":"reject"}]}',
            "several answers that differ",
        ),
    ],
)
def test_what_is_no_verdict_is_asked_for_again(text: str, message: str) -> None:
    with pytest.raises(UnparsableReply, match=message):
        parse_verdicts(text, (1, 2))


def test_what_is_missing() -> None:
    text = (
        '{"verdicts":[],'
        '"missing":[{"label":"cup","box":[1,2,3,4]},{"label":"b","point":[5,6]},"c"]}'
    )
    found = parse_verdicts(text, ())
    assert [(m.label, m.box, m.points) for m in found.missing] == [
        ("cup", (1, 2, 3, 4), ()), ("b", None, ((5, 6),)),
    ]  # fmt: skip
    assert found.warnings == ("no place was given for what is missing: 'c'",)


@pytest.mark.parametrize(
    ("text", "better"),
    [('{"better": 2}', 2), ('{"reason":"x","better":"outline 1"}', 1), ('{"better": 0}', 0)],
)
def test_which_of_two_is_better(text: str, better: int) -> None:
    assert parse_better(text) == better


@pytest.mark.parametrize("text", ["2", '{"better": 3}', '{"better": null}', "the second"])
def test_neither_is_named(text: str) -> None:
    with pytest.raises(UnparsableReply):
        parse_better(text)
