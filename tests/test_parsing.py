"""Good and broken replies: what a careful reader takes from each, or `UnparsableReply`."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rsvp.errors import UnparsableReply
from rsvp.parsing import ParsedReply, RawStep, RawTarget, parse_reply
from rsvp.parsing.lenient_json import BUDGET, OutOfBudgetError
from rsvp.parsing.partial import steps_so_far
from rsvp.parsing.search import Scan

DATA = Path(__file__).parent / "data"
TABLES = [DATA / "replies.txt", DATA / "replies_seen.txt"]
KINDS = ("box", "bands", "points", "marks")


def cases() -> list[Any]:
    """(expect, reply, outcome) from the tables."""
    pattern = r"^#{8} (\w+): (.+)\n(?s:(.*?))^#{8} => (.+)$(?=\n#{8} )"
    texts = [table.read_text(encoding="utf-8") for table in TABLES]
    return [
        pytest.param(expect, reply.removesuffix("\n"), outcome, id=f"{expect}: {name}")
        for text in texts
        for expect, name, reply, outcome in re.findall(pattern, text, re.MULTILINE)
    ]


def values(target: RawTarget, expect: str) -> list[Any]:
    """A target as the table writes it."""
    if expect == "box":
        return [target.label, list(target.box or ())]
    if expect == "bands":
        return [target.label, list(target.rows), list(target.columns)]
    if expect == "points":
        return [target.label, [list(point) for point in target.points]]
    return [target.label, list(target.marks)]


@pytest.mark.parametrize(("expect", "reply", "outcome"), cases())
def test_reply(expect: Any, reply: str, outcome: str) -> None:
    if outcome == "unparsable":
        with pytest.raises(UnparsableReply) as caught:
            parse_reply(reply, expect=expect)
        assert caught.value.raw == reply
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 400
    else:
        parsed = parse_reply(reply, expect=expect)
        assert [values(target, expect) for target in parsed.targets] == json.loads(outcome)


def test_the_tables_are_read_completely() -> None:
    texts = [table.read_text(encoding="utf-8") for table in TABLES]
    assert len(cases()) == sum(text.count("\n######## =>") for text in texts) >= 300
    assert len({case.id for case in cases()}) == len(cases())
    public = [case.id for case in cases() if re.search(r"\[(?!I13)[^\]]+\]$", str(case.id))]
    assert len(public) * 4 >= len(cases())


def test_steps_and_reason() -> None:
    reply = {
        "steps": [
            {"text": "Asked for: a cup.", "boxes": []},
            {"text": "Two.", "boxes": [[1, 2, 3, 4], [5, 6], "7, 8, 9, 10"]},
            "It is the left one.",
        ],
        "targets": [{"label": "cup", "box": [1, 2, 3, 4]}],
        "reason": "It is small.",
    }
    assert parse_reply(json.dumps(reply), expect="box") == ParsedReply(
        steps=(
            RawStep("Asked for: a cup."),
            RawStep("Two.", boxes=((1, 2, 3, 4), (7, 8, 9, 10))),
            RawStep("It is the left one."),
        ),
        targets=(RawTarget("cup", box=(1, 2, 3, 4)),),
        reason="It is small.",
    )


def test_steps_of_the_grid() -> None:
    text = (
        '{"steps": [{"text": "a", "rows": [1, 2], "columns": "3-4"}, {"text": "b", "rows": []}],'
        ' "targets": []}'
    )
    assert parse_reply(text, expect="bands").steps == (
        RawStep("a", rows=(1, 2), columns=(3, 4)),
        RawStep("b"),
    )


def test_steps_outside_a_wrapped_answer() -> None:
    text = '{"steps": ["look"], "answer": {"targets": [], "reason": "none"}}'
    assert parse_reply(text, expect="box") == ParsedReply((RawStep("look"),), (), "none")


@pytest.mark.parametrize(
    ("expect", "text", "ordered"),
    [
        ("box", '{"targets": [{"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}]}', (2, 1, 4, 3)),
        ("box", '{"targets": [{"box_2d": [1, 2, 3, 4]}]}', (1, 2, 3, 4)),
        ("points", '<point x="1" y="2" alt="a">a</point>', ((2, 1),)),
        ("points", '{"targets": [{"x": 1, "y": 2}]}', ((2, 1),)),
        ("points", '{"targets": [{"point": [1, 2]}]}', ((1, 2),)),
    ],
)
def test_named_coordinates_follow_a_y_first_frame(expect: Any, text: str, ordered: Any) -> None:
    (target,) = parse_reply(text, expect=expect, y_first=True).targets
    assert (target.box or target.points) == ordered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the reply is empty"),
        ("Sorry, no.", "the reply has no JSON answer"),
        ('{"targets": [{"box": [1, 2, 3, 4]}, {"box": [1, 2]}]}', r"target 2: \[1, 2\] is not"),
        ('{"targets": [{"label": "cup"}]}', 'target 1: .* has no "box"'),
        ('{"targets": [{"label": "c", "box": [1, 2, 3', "cut off"),
        ('{"targets": [{"label": "c", "box": [1, 2, 3 %]}]}', "not valid JSON"),
    ],
)
def test_messages_say_what_to_correct(text: str, message: str) -> None:
    with pytest.raises(UnparsableReply, match=message):
        parse_reply(text, expect="box")


# --- bounded work ----------------------------------------------------------------------------

ANSWER = '{"targets": [{"label": "dog", "box": [1, 2, 3, 4]}]}'
NOISE = {
    "open brackets": "[" * 100_000,
    "open braces": "{" * 100_000,
    "nested keys": '{"a":' * 20_000,
    "nested lists of objects": '[{"targets":' * 9_000,
    "digits": '{"targets": [{"box": [' + "9" * 100_000 + ", 1, 2, 3]}]}",
    "digits of a band": '{"targets": [{"rows": ["' + "9" * 100_000 + '"], "columns": [1]}]}',
    "digits and a letter": "[" * 31 + "1" * 100_000 + "x",
    "open strings": "['a " * 25_000,
    "quotes": '{"' + '" ' * 50_000,
    "quotes and newlines": '["a' + '"\n' * 50_000,
    "blank after a quote": '["a"' + "\n" * 100_000 + "x",
    "commas": "[" + "," * 100_000,
    "open comments": "[/*" * 33_000,
    "small lists": "[1] " * 25_000,
    "small answers": '{"box": [1]}' * 8_000,
    "think tags": "<think>" * 14_000,
    "box tags": "<ref><box>" * 10_000,
    "point tags": '<points x1="1" ' * 6_000,
    "backslashes": '{"a": "' + "\\" * 100_000,
    "words": "[" + "a " * 50_000,
    "prose": 'The dog [on the left] is {brown}; it\'s "here". ' * 2_000,
    "signs": "[" + "-" * 100_000,
    "closing tags": "[</think>" * 11_000,
    "tags in cut lists": '["</think>' * 10_000,
}


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("expect", KINDS)
def test_noise_is_refused(name: str, expect: Any) -> None:
    with pytest.raises(UnparsableReply):
        parse_reply(NOISE[name], expect=expect)


def spent(text: str) -> int:
    """JSON tokens that reading a text costs; the budget where that is less."""
    with contextlib.suppress(OutOfBudgetError):
        return BUDGET - Scan(text).left
    return BUDGET


FRAGMENTS = [
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        '"',
        "'",
        "“",
        ",",
        ":",
        "\\",
        "\n",
        " ",
        "<",
        ">",
        "|",
        "#",
        "//",
    ),
    *(
        "/*",
        "```json\n",
        "```",
        "x",
        "1",
        "1-1001,",
        "-",
        "a: ",
        "| a |",
        "and ",
        "mark 3 ",
        "rows 1 ",
    ),
    *('"a":', '{"box":', '"targets":[', '{"label":"a","box":[1,2,3,4]}', "[1,2,3,4]", "[]", "{}"),
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
    ),
    *(
        "<loc_1>",
        "<loc0001>",
        "<|det|>",
        "<point ",
        'x1="1" ',
        "coords=",
        '"arguments":"[',
        "There is no ",
    ),
]


def repeated(rng: random.Random, length: int) -> str:
    """A few fragments over and over: the kind of text that costs most."""
    part = "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 5)))
    return rng.choice(["", "[", '{"targets": [']) + part * (length // len(part))


def test_the_work_grows_no_faster_than_the_text() -> None:
    rng = random.Random(13)
    for _ in range(300):
        part = "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 5)))
        assert spent(part * 40) <= 2.5 * spent(part * 20) + 100, part


@pytest.mark.parametrize(
    ("text", "expect"),
    [
        ("[]x" * 19_900, "box"),
        ("[]\n.\n" * 20_000, "box"),
        ("```json\n[ " * 11_111, "box"),
        ('{"targets": [{"rows": [' + '"1-1001,",' * 57 + '], "columns": [1]}]}', "bands"),
        ('{"targets": [' + '{"rows": "1-99", "columns": "1-99"},' * 1500 + "]}", "bands"),
        ("[1,2,3,4]," * 10_000, "box"),
    ],
)
def test_the_memory_is_at_most_twenty_times_the_reply(text: str, expect: Any) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(UnparsableReply):
            parse_reply(text, expect=expect)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < max(20 * len(text), 2_000_000)


def seconds(text: str, expect: Any) -> float:
    """CPU time to read a text: the best of three, as a shared core is slower."""
    found = []
    for _ in range(3):
        before = time.process_time()
        with contextlib.suppress(UnparsableReply):
            parse_reply(text, expect=expect)
        found.append(time.process_time() - before)
        if found[-1] < 0.05:
            break
    return min(found)


@pytest.mark.benchmarks
@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("expect", KINDS)
def test_noise_is_refused_quickly(name: str, expect: Any) -> None:
    assert seconds(NOISE[name], expect) < 0.1  # 0.05 s on an idle core


@pytest.mark.benchmarks
def test_the_worst_of_many_texts_is_read_quickly() -> None:
    rng = random.Random(13)
    for length, limit in ((100_000, 0.1), (1_000_000, 0.5)):
        for _ in range(4_000_000 // length):
            text = repeated(rng, length)
            assert seconds(text, rng.choice(KINDS)) < limit, text[:100]


@pytest.mark.parametrize(
    "name", ["open brackets", "open braces", "prose", "commas", "closing tags"]
)
def test_an_answer_after_noise_is_found_or_refused(name: str) -> None:
    try:
        parsed = parse_reply(f"{NOISE[name]}\n{ANSWER}", expect="box")
    except UnparsableReply:
        assert name != "prose"
    else:
        assert [target.box for target in parsed.targets] == [(1, 2, 3, 4)]


def test_a_thousand_targets() -> None:
    targets = [{"label": f"cup {i}", "box": [i, i, i + 1, i + 1]} for i in range(1000)]
    parsed = parse_reply(json.dumps({"targets": targets, "reason": ""}), expect="box")
    assert [target.label for target in parsed.targets] == [f"cup {i}" for i in range(1000)]


# --- properties ------------------------------------------------------------------------------

finite = st.integers(-5000, 5000) | st.floats(allow_nan=False, allow_infinity=False, width=32)
spice = st.sampled_from(
    [
        *"{}[]()\"',:\\\n …",
        *("targets", "answer", "label", "box", "rows", "null", "NaN", "-1", "3", "4.5", "\\u"),
        *("<think>", "</think>", "<box>", "```json", "```", "//", "/*"),
        *('{"targets": [', '{"targets": []}', '{"label": "a", "box": [1, 2, 3, 4]}'),
    ]
)
labels = st.text(max_size=12) | st.lists(spice, max_size=5).map("".join)
steps = st.lists(
    st.fixed_dictionaries(
        {"text": labels, "boxes": st.lists(st.tuples(*[finite] * 4), max_size=2)}
    ),
    max_size=3,
)
entries = {
    "box": {"box": st.tuples(*[finite] * 4)},
    "bands": {name: st.lists(st.integers(-9, 99), min_size=1) for name in ("rows", "columns")},
    "points": {"points": st.lists(st.tuples(finite, finite), min_size=1, max_size=4)},
    "marks": {"marks": st.lists(st.integers(0, 99), min_size=1)},
}


@st.composite
def replies(draw: st.DrawFn) -> tuple[Any, dict[str, Any], str]:
    """(expect, reply, its JSON)"""
    expect = draw(st.sampled_from(KINDS))
    entry = st.fixed_dictionaries({"label": labels, **entries[expect]})
    reply: dict[str, Any] = {"targets": draw(st.lists(entry, max_size=3)), "reason": draw(labels)}
    if draw(st.booleans()):
        reply = {"steps": draw(steps), **reply}
    options = {"ensure_ascii": draw(st.booleans()), "indent": draw(st.sampled_from([None, 0, 2]))}
    return expect, reply, json.dumps(reply, **options)


def plain(target: dict[str, Any], expect: str) -> list[Any]:
    """A target of a generated reply as the table writes it."""
    return json.loads(json.dumps([target["label"], *(target[key] for key in entries[expect])]))


@given(replies())
@settings(deadline=None)
def test_valid_replies_round_trip(case: tuple[Any, dict[str, Any], str]) -> None:
    expect, reply, text = case
    for wrapped in (text, f"Here:\n```json\n{text}\n```\nDone.", f"<think>a {{ b</think>{text}"):
        parsed = parse_reply(wrapped, expect=expect)
        assert [values(t, expect) for t in parsed.targets] == [
            plain(t, expect) for t in reply["targets"]
        ]
        assert parsed.reason == reply["reason"]
        assert [step.text for step in parsed.steps] == [s["text"] for s in reply.get("steps", [])]
        assert [list(step.boxes) for step in parsed.steps] == [
            s["boxes"] for s in reply.get("steps", [])
        ]


@given(replies(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_prefix_never_adds_a_target_or_says_absent(
    case: tuple[Any, dict[str, Any], str], data: st.DataObject
) -> None:
    expect, reply, text = case
    prefix = text[: data.draw(st.integers(0, len(text)))]
    for wrapped in (prefix, f"```json\n{prefix}", f"```json\n{prefix}\n```"):
        try:
            parsed = parse_reply(wrapped, expect=expect)
        except UnparsableReply:
            continue
        whole = [plain(target, expect) for target in reply["targets"]]
        found = [values(target, expect) for target in parsed.targets]
        assert found == whole[: len(found)]
        assert found or not whole


@pytest.mark.parametrize("tag", ["<think></think>", "</think>", "a </think> b"])
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_a_closing_tag_quoted_in_a_cut_reply_ends_no_thinking(tag: str, indent: int | None) -> None:
    reply = {
        "steps": [{"text": "", "boxes": [[0, 0, 0, 0]]}, {"text": tag, "boxes": []}],
        "targets": [{"label": tag, "rows": [1], "columns": [2]}],
        "reason": tag,
    }
    text = json.dumps(reply, indent=indent)
    for end in range(len(text)):
        with contextlib.suppress(UnparsableReply):
            (target,) = parse_reply(text[:end], expect="bands").targets
            assert (target.rows, target.columns) == ((1,), (2,))


STEP = '{"text": "a", "boxes": []}'
CUT_OFF = {
    "after a step": f'{{"steps": [{STEP}, {{"text": "b", "p": -',
    "broken after a step": f'{{"steps": [{STEP}, {{"text": "b", "p": @@@',
    "after a step with a tag": '{"steps": [{"text": "</think>", "boxes": []}, {"text": "b", "p": @',
    "in a target with a tag": '{"targets": [{"label": "</think>", "box": [1, 2, 3, 4], "p": @',
}


@pytest.mark.parametrize("name", CUT_OFF)
@pytest.mark.parametrize("expect", KINDS)
def test_a_part_of_a_broken_reply_is_no_answer(name: str, expect: Any) -> None:
    for text in (CUT_OFF[name], f"```json\n{CUT_OFF[name]}\n```"):
        with pytest.raises(UnparsableReply):
            parse_reply(text, expect=expect)


def test_a_number_cut_by_a_fence_removes_only_its_target() -> None:
    text = '{"targets": [{"label": "a", "box": [1, 2, 3, 4]}, {"label": "b", "box": [1, -'
    (target,) = parse_reply(f"```json\n{text}\n```", expect="box").targets
    assert target.label == "a"


@pytest.mark.parametrize(
    ("written", "understood"), [("false", False), ("true", True), ("null", True), ('"no"', True)]
)
def test_a_model_may_say_that_it_cannot_read_such_images(written: str, understood: bool) -> None:
    text = f'{{"targets": [], "understood": {written}, "reason": "no scene"}}'
    assert parse_reply(text, expect="box") == ParsedReply((), (), "no scene", understood)


@given(st.lists(spice | st.text(max_size=5), max_size=40).map("".join), st.sampled_from(KINDS))
@settings(max_examples=500, deadline=None)
@example("\ud800{'targets': [\udfff]}", "box")
@example('{"targets": "e"}', "box")
@example('{"targets": [["e"]]}', "points")
def test_any_text_raises_nothing_but_unparsable_reply(text: str, expect: Any) -> None:
    with contextlib.suppress(UnparsableReply):
        assert isinstance(parse_reply(text, expect=expect), ParsedReply)


@given(replies(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_reply_raises_nothing_but_unparsable_reply(
    case: tuple[Any, dict[str, Any], str], data: st.DataObject
) -> None:
    expect, _, text = case
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 5))
    damaged = text[:at] + data.draw(spice) + text[at + length :]
    with contextlib.suppress(UnparsableReply):
        assert isinstance(parse_reply(damaged, expect=expect), ParsedReply)


def test_points_come_with_negative_points_and_a_box() -> None:
    text = (
        '{"targets": [{"label": "cup", "points": [[5, 6], [7, 8]], "not": [[1, 2]], '
        '"box": [0, 0, 9, 9]}, {"label": "jug", "point": [3, 4], "negative": [], "box": []}]}'
    )
    cup, jug = parse_reply(text, expect="points").targets
    assert cup.points == ((5, 6), (7, 8))
    assert cup.negative == ((1, 2),)
    assert cup.box == (0, 0, 9, 9)
    assert (jug.points, jug.negative, jug.box) == (((3, 4),), (), None)


def test_steps_name_marks() -> None:
    text = (
        '{"steps": [{"text": "two", "marks": [1, 4]}, {"text": "none", "marks": []}], '
        '"targets": []}'
    )
    steps = parse_reply(text, expect="marks").steps
    assert [step.marks for step in steps] == [(1, 4), ()]


@pytest.mark.parametrize("tail", ["]}", ', {"label": "cup", "bo'])
def test_a_repetition_loop_is_one_target_and_a_warning(tail: str) -> None:
    entry = '{"label": "cup", "box": [1, 2, 3, 4]}'
    parsed = parse_reply('{"targets": [' + ", ".join([entry] * 60) + tail, expect="box")
    assert parsed.targets == (RawTarget("cup", box=(1, 2, 3, 4)),)
    (warning,) = parsed.warnings
    assert "60 times" in warning
    assert parse_reply(f'{{"targets": [{entry}]}}', expect="box").warnings == ()


def test_more_targets_than_any_image_has_are_asked_again() -> None:
    targets = [{"label": "cup", "box": [i, i, i + 1, i + 1]} for i in range(1001)]
    with pytest.raises(UnparsableReply, match="more than 1000 targets"):
        parse_reply(json.dumps(targets), expect="box")


def test_the_reason_comes_with_the_answer_and_not_with_a_remark() -> None:
    text = f'{ANSWER[:-1]}, "reason": "brown"}}\nIf none: {{"targets": [], "reason": "none"}}'
    assert parse_reply(text, expect="box").reason == "brown"


def test_a_quoted_yaml_key_is_read() -> None:
    text = '"targets":\n  - label: dog\n    box: [1, 2, 3, 4]'  # raised StopIteration once
    assert parse_reply(text, expect="box").targets == (RawTarget("dog", box=(1, 2, 3, 4)),)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ('{"steps": [{"te', []),
        ('{"steps": [{"text": "A c', ["A c"]),
        ('{"steps": [{"text": "A \\"c\\"", "boxes": [[1, 2', ['A "c"']),
        ('{"steps": [{"text": "A"}, {"text": "B\\', ["A", "B"]),
        ("<think>The user wa", ["The user wa"]),
        ('<think>So.</think>```json\n{"reason": "It', ["So.", "It"]),
        ("It stands at [1] on", ["It stands at [1] on"]),
    ],
)
def test_the_steps_of_an_unfinished_reply(text: str, steps: list[str]) -> None:
    assert steps_so_far(text) == steps
