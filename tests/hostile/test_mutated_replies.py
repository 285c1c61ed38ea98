"""100,000 mutated replies raise nothing but `UnparsableReply`: `pytest -m hostile tests/hostile`.

Every reply of the tables is damaged by inserted, deleted, repeated and swapped parts, and by parts
of other replies.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from rsvp.errors import UnparsableReply
from rsvp.parsing import ParsedReply, parse_reply

DATA = Path(__file__).parents[1] / "data"
KINDS = ("box", "bands", "points", "marks")
REPLIES = [
    reply
    for table in ("replies.txt", "replies_seen.txt")
    for reply in re.findall(
        r"^#{8} \w+: .+\n(?s:(.*?))^#{8} => ", (DATA / table).read_text(encoding="utf-8"), re.M
    )
]
SHARDS, MUTATIONS = 20, 5_000
ODD = [
    "\0",
    "\ud800",
    "\ufeff",
    "\u202e",
    "1e999",
    "9" * 400,
    "[" * 40,
    "{" * 40,
    '\\"',
    "\\u12",
    "－１",
]


def mutated(rng: random.Random) -> str:
    text = rng.choice(REPLIES)
    for _ in range(rng.randint(1, 6)):
        other = rng.choice(REPLIES)
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        start = rng.randint(0, len(other))
        part = rng.choice(
            [
                other[start : start + rng.randint(1, 40)],
                text[at:end] * rng.randint(2, 4),
                rng.choice("{}[]()<>|\"',:\\\n`#0123456789.-eE"),
                rng.choice(ODD),
                "",
            ]
        )
        text = text[:at] + part + text[min(end, at + rng.randint(0, 10)) :]
    return text[:20_000]


@pytest.mark.hostile
@pytest.mark.parametrize("shard", range(SHARDS))
def test_mutated_replies_raise_nothing_else(shard: int) -> None:
    rng = random.Random(shard)
    for _ in range(MUTATIONS):
        text = mutated(rng)
        try:
            parsed = parse_reply(text, expect=rng.choice(KINDS), y_first=rng.random() < 0.5)
        except UnparsableReply:
            continue
        assert isinstance(parsed, ParsedReply)
