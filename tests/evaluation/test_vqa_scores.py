"""Replies read and counted the way each question benchmark counts, by hand."""

import pytest

from rsvp.datasets.vqa import Question
from rsvp.errors import BadInput
from rsvp.evaluation import benchmarks
from rsvp.evaluation.metrics import vqa
from rsvp.evaluation.predictions import Prediction
from rsvp.evaluation.stats import Interval

COLOURS = ("red", "dark red", "a blue car", "green")


def ask(key, answer, options=COLOURS, kind="all", group=()):
    return Question(key, None, "Which?", options, answer, kind, group)


def yes_no(key, answer, kind="all", group=()):
    return ask(key, answer, (), kind, group)


class Questions:
    """What a scorer needs of a dataset."""

    def __init__(self, questions):
        self.questions = questions


def scored(name, questions, replies):
    """A scorer that has seen every question."""
    benchmark = benchmarks.find(name)
    scorer = benchmark.scorer(Questions(questions), benchmark.protocol())
    for index, question in enumerate(questions):
        scorer.add(index, Prediction(question.id, text=replies.get(question.id, "")))
    return scorer


def means(scorer):
    numbers = scorer.numbers().items()
    return {name: pytest.approx(one.mean) for name, one in numbers if isinstance(one, Interval)}


def counts(scorer):
    return tuple(scorer.numbers()[name] for name in ("n", "unanswered", "unread"))


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (C). ", "C"),
        ("**D**", "D"),
        ("B. dark red", "B"),
        ("(b) dark red", "B"),
        ("B\nbecause it is dark", "B"),
        ("The answer is (B).", "B"),
        ("Answer: D", "D"),
        ("The answer is **C** because it looks so", "C"),
        ("I thought the answer is A, but no: the correct answer is D.", "D"),
        (r"So \boxed{C}", "C"),
        (r"So $\boxed{\text{(C)}}$.", "C"),
        ("<think>(A) or (B)?</think><answer>B</answer>", "B"),
        ("<answer>A</answer> or rather <answer>\n(C)\n</answer>", "C"),
        ("It looks like (D) to me.", "D"),
        ("It is green.", "D"),
        ("It is dark red.", "B"),  # not "red"
        ("A man drives a blue car.", "C"),  # an article is no letter
        ("The answer is a blue car", "C"),
        ("The answer is A blue car", "C"),
        ("red or green", None),
        ("(A) or (B)", None),
        ("E", None),
        ("a", None),  # an article, cut off
        ("(a)", "A"),
        ("I cannot tell.", None),
        ("reddish", None),
    ],
)
def test_a_choice_is_read_from_free_words(reply, letter):
    assert vqa.read_choice(reply, ask("q", "A")) == letter


@pytest.mark.parametrize(
    "part", ["<answer>", "answer ", "answer" + " " * 20, "\n", "(", "option: "]
)
def test_a_reply_that_never_ends_is_read_at_once(part):
    assert vqa.read_choice(part * 20_000 + "?", ask("q", "A")) is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes, there is.", "yes"),
        ("No", "no"),
        ("There is not a cup", "no"),
        ("Yes. There is no doubt", "yes"),  # only the first sentence
        ("There is, no, a cup", "no"),  # commas are removed
        ("no. yes", "no"),
        ("NO", "yes"),  # of the spellings only these three
        ("Nothing here", "yes"),
        ("not\nhere", "yes"),  # words end at blanks alone
    ],
)
def test_popes_own_rule_to_the_letter(reply, said):
    assert vqa.read_pope(reply, yes_no("q", "yes")) == said


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes, no doubt.", "yes"),
        ("**No**, they differ", "no"),
        ("They differ, so no.", "no"),
        ("Perhaps yes, perhaps no", None),
        ("Yes and no.", None),
        ("No or yes", None),
        ("I cannot tell", None),
        ("Nothing is known", None),
    ],
)
def test_yes_or_no_is_read_from_free_words(reply, said):
    assert vqa.read_yes_no(reply, yes_no("q", "yes")) == said


def test_vstar_by_kind_with_an_unanswered_question_wrong():
    questions = [ask(str(i), "A", kind="direct" if i < 2 else "relative") for i in range(4)]
    found = scored("vstar", questions, {"0": "A", "1": "B", "2": "(A)", "3": " "})
    assert means(found) == {"accuracy": 0.5}
    assert {kind: s["accuracy"].mean for kind, s in found.by_kind().items()} == {
        "direct": 0.5,
        "relative": 0.5,
    }
    assert counts(found) == (4, 1, 0)


def test_hrbench_averages_over_rotations_not_over_questions():
    questions = [ask(str(i), "A", group=("0" if i < 3 else "1",)) for i in range(4)]
    replies = {"0": "A", "1": "B", "2": "B", "3": "A"}
    # rotation 0: 1/3, rotation 1: 1
    assert means(scored("hrbench", questions, replies)) == {"accuracy": 2 / 3}


def test_pope_counts_yes_as_a_detection():
    questions = [yes_no(str(i), "yes" if i < 4 else "no") for i in range(8)]
    replies = {"0": "Yes", "1": "Yes", "2": "Yes", "3": "No", "4": "yes", "5": "no", "6": "no"}
    # TP 3, FN 1, FP 1, TN 2, and one question without a reply
    assert means(scored("pope", questions, replies)) == {
        "accuracy": 5 / 8,
        "precision": 3 / 4,
        "recall": 3 / 4,
        "f1": 3 / 4,
        "yes_ratio": 4 / 8,
    }


def test_popes_unanswered_questions_are_wrong_though_the_rule_would_read_yes():
    found = scored("pope", [yes_no("0", "yes"), yes_no("1", "no")], {"0": ""})
    assert means(found) == dict.fromkeys(("accuracy", "precision", "recall", "f1", "yes_ratio"), 0)
    assert counts(found) == (2, 2, 0)


def test_mmvp_needs_both_of_a_pair():
    questions = [ask(str(i), "A", group=(str(i // 2),)) for i in range(4)]
    replies = {"0": "A", "1": "A", "2": "A", "3": "B"}
    assert means(scored("mmvp", questions, replies)) == {"pair_accuracy": 0.5, "accuracy": 0.75}


def test_mmbench_needs_every_rotation():
    questions = [ask(str(i), "A", group=(str(i % 2),)) for i in range(8)]
    replies = {str(i): "A" for i in range(8)} | {"6": "B"}
    found = scored("mmbench", questions, replies)
    assert means(found) == {"circular_accuracy": 0.5, "accuracy": 7 / 8}


def test_hallusionbench_counts_questions_figures_and_pairs():
    questions = [
        yes_no("a", "yes", "VD", ("f0", "q0")),
        yes_no("b", "no", "VD", ("f0", "q1")),
        yes_no("c", "no", "VD", ("f1", "q0")),
        yes_no("d", "no", "VS", ("", "q2")),
        yes_no("e", "no", "VS", ("f2", "q2")),
    ]
    replies = {"a": "Yes", "b": "Yes", "c": "No", "d": "I cannot tell.", "e": "No."}
    found = scored("hallusionbench", questions, replies)
    # "cannot tell" is right without the figure; a question without a figure is in no figure
    assert means(found) == {"aacc": 4 / 5, "facc": 2 / 3, "qacc": 2 / 3}
    assert means(scored("hallusionbench", questions, replies | {"e": "Who knows"})) == {
        "aacc": 3 / 5,
        "facc": 1 / 3,
        "qacc": 1 / 3,
    }


def test_hallusionbench_gives_nothing_for_silence_even_without_the_figure():
    questions = [yes_no("d", "no", "VS", ("", "q"))]
    assert means(scored("hallusionbench", questions, {})) == {"aacc": 0, "qacc": 0}
    assert means(scored("hallusionbench", questions, {"d": "Unclear"})) == {"aacc": 1, "qacc": 1}


def test_a_reply_that_cannot_be_read_is_wrong_and_counted():
    found = scored("vstar", [ask("0", "A")], {"0": "what?"})
    assert counts(found) == (1, 0, 1)
    assert means(found) == {"accuracy": 0}
    assert {kind: means["accuracy"].mean for kind, means in found.by_kind().items()} == {"all": 0}


def test_a_secret_answer_cannot_be_scored():
    with pytest.raises(BadInput, match="q: this split's answers are secret"):
        scored("mmbench", [ask("q", None, group=("q",))], {})


def test_an_answer_is_one_of_the_options():
    with pytest.raises(BadInput, match="q: the answer is one of"):
        ask("q", "E")
