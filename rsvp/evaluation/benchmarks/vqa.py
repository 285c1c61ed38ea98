"""Question benchmarks: V*, HR-Bench, POPE, MMVP, HallusionBench, MMBench and VisuLogic.

`rsvp.evaluation.metrics.vqa` has the rules and the names of the numbers.

    unanswered             questions without a reply, and
    unread                 replies from which no answer could be taken: both count as wrong
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rsvp.datasets import vqa as readers
from rsvp.datasets.scenes import SceneQuestionDataset
from rsvp.datasets.vqa import Question, QuestionDataset
from rsvp.evaluation import metrics
from rsvp.evaluation.benchmarks import Benchmark, Json, Numbers
from rsvp.evaluation.metrics import ScoringProtocol, vqa
from rsvp.evaluation.metrics.vqa import MarkedReply, Scores
from rsvp.evaluation.predictions import Prediction
from rsvp.evaluation.stats import Aggregator
from rsvp.parsing.answers import LETTERS
from rsvp.types import AnsweredQuestion


class AnswerScorer(Aggregator[MarkedReply, Scores]):
    """Reads the replies and scores them together: groups of questions count as one."""

    def __init__(self, dataset: QuestionDataset, benchmark: QuestionBenchmark) -> None:
        super().__init__(type(benchmark).count)
        self._questions = dataset.questions
        self._mark = benchmark.mark

    def add(self, index: int, prediction: Prediction) -> None:
        question = self._questions[index]
        self.append(self._mark(question, prediction.text), (question.kind,), question.tags)

    def numbers(self) -> Numbers:
        """The counts of all questions, and their scores."""
        answered = [one for one in self.values if one.answered]
        return {
            "n": len(self.values),
            "unanswered": len(self.values) - len(answered),
            "unread": sum(one.given is None for one in answered),
            **self.overall(),
        }


class QuestionBenchmark(Benchmark):
    """A benchmark of questions.

    Attributes:
        read: the answer that a reply gives to a question; None where it gives none.
        count: the scores of marked replies.
    """

    protocols = (ScoringProtocol("official"),)
    asks_for_masks = False
    export_file = "answers.jsonl"
    read: ClassVar[Callable[[str, Question], str | None]]
    count: ClassVar[Callable[[Sequence[MarkedReply]], Scores]]

    def scorer(self, dataset: QuestionDataset, protocol: ScoringProtocol) -> AnswerScorer:
        return AnswerScorer(dataset, self)

    def prompt(self, question: Question) -> tuple[str, tuple[str, ...]]:
        """What the MLLM is asked, and the choices that it has."""
        if question.options:
            return question.question, question.options
        return f"{question.question.strip()} Answer yes or no.", ()

    def written(self, answer: AnsweredQuestion) -> str:
        """An answer as the benchmark reads it: the letter of the choice, or its own words."""
        return answer.answer if answer.choice is None else LETTERS[answer.choice]

    def mark(self, question: Question, reply: str) -> MarkedReply:
        """Read a reply and compare it; BadInput where the right answer is secret."""
        return vqa.mark(type(self).read, question, reply)

    def export_line(self, record: Json) -> Json:
        """As LLaVA's evaluations read it."""
        text = record.get("raw", "") if record.get("text") is None else record["text"]
        return {"question_id": record["id"], "text": text}


class SceneQuestions(QuestionBenchmark):
    """Questions about rendered scenes; a reply is the choice's own words, or its letter."""

    protocols = (metrics.SCENES,)
    reader, read, count = SceneQuestionDataset, vqa.read_words, vqa.accuracy

    def written(self, answer: AnsweredQuestion) -> str:
        return answer.answer


class VStar(QuestionBenchmark):
    reader, read, count = readers.vstar, vqa.read_choice, vqa.accuracy


class VisuLogic(QuestionBenchmark):
    reader, read, count = readers.visulogic, vqa.read_choice, vqa.accuracy


class HrBench(QuestionBenchmark):
    splits = None  # a folder may hold several tables
    reader, read, count = readers.hrbench, vqa.read_choice, vqa.rotation_accuracy


class Pope(QuestionBenchmark):
    reader, read, count = readers.pope, vqa.read_pope, vqa.detection_scores


class Mmvp(QuestionBenchmark):
    reader, read, count = readers.mmvp, vqa.read_choice, vqa.pair_accuracy


class HallusionBench(QuestionBenchmark):
    reader, read, count = readers.hallusionbench, vqa.read_yes_no, vqa.consistency_scores

    def mark(self, question: Question, reply: str) -> MarkedReply:
        # Asked without the figure, "I cannot tell" is right.
        return vqa.mark(vqa.read_yes_no, question, reply, undecided_is_right=not question.group[0])


class MmBench(QuestionBenchmark):
    splits = None  # a folder may hold several tables
    reader, read, count = readers.mmbench, vqa.read_choice, vqa.circular_accuracy
