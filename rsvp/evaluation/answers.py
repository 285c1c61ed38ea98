"""Questions of a benchmark, asked and scored: the work and the scores of such a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from rsvp.answer import AnswerRequest, Zoom
from rsvp.datasets.vqa import Question, QuestionDataset
from rsvp.errors import BadInput
from rsvp.evaluation.benchmarks.vqa import QuestionBenchmark
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.outcomes import Outcome, catch, told
from rsvp.evaluation.predictions import Prediction
from rsvp.evaluation.records import AnswerRecord, LookRecord, TrueLookRecord
from rsvp.evaluation.score import Score, to_json
from rsvp.evaluation.stats import Interval, mean_or_none
from rsvp.evaluation.summary import CostAggregator, Duration
from rsvp.images import load_image
from rsvp.masks import encode_rle
from rsvp.request import Request
from rsvp.result import Answer
from rsvp.types import Image, PackedMask, Proposal

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

BLANK = np.full((28, 28, 3), 255, np.uint8)  # stands for the image of a question without one


class AskedQuestion(NamedTuple):
    """A question and its number in the dataset."""

    number: int
    question: Question


class AnswerOutcome(NamedTuple):
    """The answer to a question, and to the same one after a look at the true masks."""

    answer: Outcome[Answer]
    oracle: Outcome[Answer] | None


@dataclass(frozen=True, slots=True)
class AnswerWork:
    """The questions that a run still has to ask; see `rsvp.evaluation.engines.local.RunWork`.

    Attributes:
        zoom: how closer looks are shown.
        looks: how many there may be.
        oracle: also ask with the true masks, where the benchmark knows them.
    """

    dataset: QuestionDataset
    indices: Sequence[int]
    benchmark: QuestionBenchmark
    zoom: Zoom
    looks: int
    oracle: bool = True

    def portable(self) -> AnswerWork:
        return self

    opened = portable

    def sample(self, index: int) -> AskedQuestion:
        return AskedQuestion(index, self.dataset[index])

    def open_image(self, sample: AskedQuestion) -> Image:
        question = sample.question
        try:
            return load_image(BLANK if question.image is None else question.image)
        except BadInput as error:
            raise BadInput(f"sample {question.id}: {error}") from error

    def reason(self, pipeline: Pipeline, sample: AskedQuestion, image: Image) -> AnswerOutcome:
        """The whole dialogue, which segments too."""
        answer, oracle = self._ask(pipeline, sample.question, image, self.zoom), None
        if self.oracle and self.dataset.has_true_looks and self.zoom.mode != "none":
            true = self.dataset.true_looks(sample.number)
            known = [Proposal(one.label, one.box, mask=PackedMask.pack(one.mask)) for one in true]
            zoom = self.zoom if known else Zoom("none")
            oracle = self._ask(pipeline, sample.question, image, zoom, known)
        return AnswerOutcome(answer, oracle)

    def _ask(
        self,
        pipeline: Pipeline,
        question: Question,
        image: Image,
        zoom: Zoom,
        known: Sequence[Proposal] = (),
    ) -> Outcome[Answer]:
        text, choices = self.benchmark.prompt(question)
        with catch(question.id) as outcome:
            request = Request(image, text, tuple(known))
            blind = question.image is None
            asked = AnswerRequest(request, choices, zoom, self.looks, blind)
            outcome.value = pipeline.run_answer(asked)
        return outcome

    def segment(
        self,
        pipeline: Pipeline,
        sample: AskedQuestion,
        image: Image,
        output: AnswerOutcome,
    ) -> AnswerOutcome:
        return output

    def record(self, sample: AskedQuestion, outcome: AnswerOutcome) -> AnswerRecord:
        question, answer = sample.question, outcome.answer.value
        text, right = self._marked(question, answer)
        oracle = None
        if outcome.oracle is not None:
            shown, fits = self._marked(question, outcome.oracle.value)
            oracle = TrueLookRecord(text=shown, right=fits, failure=outcome.oracle.failure)
        return AnswerRecord(
            id=question.id,
            kind=question.kind,
            tags=list(question.tags),
            question=question.question,
            choices=list(question.options),
            text=text,
            choice=answer.choice if answer else None,
            right=right,
            oracle=oracle,
            looks=[
                LookRecord(
                    query=look.query,
                    masks=[encode_rle(target.mask) for target in look.targets],
                    box=[round(v, 3) for v in look.box.xyxy] if look.box else None,
                    size=list(look.size) if look.size else None,
                )
                for look in (answer.looks if answer else ())
            ],
            **told(outcome.answer),
        )

    def _marked(self, question: Question, answer: Answer | None) -> tuple[str, bool | None]:
        """An answer as the benchmark reads it, and whether it is right (None: secret)."""
        text = self.benchmark.written(answer) if answer else ""
        if question.answer is None:
            return text, None
        return text, self.benchmark.mark(question, text).right

    def load(self, record: Any) -> AnswerRecord:
        return AnswerRecord.model_validate(record)


class AnswerSummary(BaseModel, frozen=True, json_schema_extra={"additionalProperties": True}):
    """The scores of a run of questions, as `summary.json` and `rsvp eval --json` have them.

    Besides these keys there are the benchmark's own scores, as in `rsvp score --json`, among them
    `accuracy`, and one a tag (``needs_look``) with its scores.
    """

    schema_version: Literal[1] = 1
    n: int
    failed: int = Field(description="Questions without an answer, scored as wrong.")
    by_kind: dict[str, dict[str, Any]] = Field(
        default={}, description="The scores of each kind, and the oracle's."
    )
    oracle: Interval | None = Field(
        default=None,
        description="Accuracy after a look at the true masks; of a question that needs no look, "
        "without one.",
    )
    looked: Interval | None = Field(
        default=None, description="Share of the questions with a closer look."
    )
    found: Interval | None = Field(
        default=None, description="Share of the looks that found something."
    )
    usage: dict[str, float] = Field(default={}, description="Tokens and calls a question.")
    seconds: dict[str, Duration] = Field(default={}, description="Per stage.")
    numbers: SkipJsonSchema[dict[str, Any]] = Field(default={}, exclude=True)

    def to_dict(self) -> dict[str, Any]:
        return {**self.model_dump(), **self.numbers}


class AnswerAggregator(CostAggregator):
    """Aggregates the records of a run; keeps a few numbers of each."""

    model = AnswerRecord

    def __init__(
        self, dataset: QuestionDataset, benchmark: QuestionBenchmark, protocol: ScoringProtocol
    ) -> None:
        super().__init__()
        self._index = {dataset.sample_id(i): i for i in range(len(dataset))}
        self._scorer = benchmark.scorer(dataset, protocol)
        self._secret = False  # whether a right answer is not known
        self._kinds: dict[str, list[int]] = defaultdict(list)
        self._oracle: list[float] = []
        self._looked: list[float] = []
        self._found: list[float] = []
        self._costs: dict[str, list[float]] = defaultdict(list)
        self._right: list[bool] = []

    @property
    def headline(self) -> tuple[str, float | None]:
        return "accuracy", float(np.mean(self._right)) if self._right else None

    def add(self, record: AnswerRecord) -> None:  # type: ignore[override]
        self._kinds[record.kind].append(self.n)
        super().add(record)
        self._right.append(bool(record.right))
        if record.right is None:
            self._secret = True
        else:
            self._scorer.add(self._index[record.id], Prediction(record.id, text=record.text))
        if record.oracle is not None:
            self._oracle.append(float(bool(record.oracle.right)))
        self._looked.append(float(bool(record.looks)))
        self._found += [float(bool(look.masks)) for look in record.looks]
        if record.usage is not None:
            for name, value in asdict(record.usage).items():
                self._costs[name].append(value)

    def summary(self, official: Score | None = None) -> AnswerSummary:
        scored = self.n > 0 and not self._secret
        kinds = self._scorer.by_kind() if scored else {}
        tags = self._scorer.by_tag() if scored else {}
        oracle = self._oracle if len(self._oracle) == self.n else []
        numbers = to_json(self._scorer.numbers()) if scored else {"accuracy": None}
        numbers |= {tag: to_json(one) for tag, one in tags.items()}
        by_kind: dict[str, dict[str, Any]] = {}
        for kind, places in self._kinds.items():
            by_kind[kind] = {"n": len(places), **to_json(kinds.get(kind, {}))}
            if oracle:
                by_kind[kind] |= to_json({"oracle": mean_or_none([oracle[i] for i in places])})
        fixed = AnswerSummary(
            n=self.n,
            failed=self.failed,
            by_kind=by_kind,
            oracle=mean_or_none(oracle),
            looked=mean_or_none(self._looked),
            found=mean_or_none(self._found),
            usage={name: float(np.mean(values)) for name, values in self._costs.items()},
            seconds=self.seconds(),
        )
        return fixed.model_copy(update={"numbers": {**numbers, "n": self.n}})
