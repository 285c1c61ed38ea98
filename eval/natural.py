"""Questions in ordinary wording about rendered scenes: right, doubted, or silently wrong.

    python -m eval.natural [--preset NAME] [--questions FILE] [--language CODE]
                           [--out FILE.jsonl]

Every question was written by hand from the picture; `tests/data/natural_questions.json` holds them,
and the seed from which the scenes are rendered again; `natural_de.json` and others beside it hold
those in other languages. None of them may be trained on.

    right           the union of the masks has IoU >= 0.5 with the truth's; where nothing is asked
                    for that is there, no targets; where a word is asked for that the world of the
                    scenes lacks, no targets and a reply that says so
    warned          wrong, with at least one warning, or no readable reply at all
    silently wrong  wrong targets without a warning
    silently none   no targets, without a warning, where there are some or the word is unknown

Every interval resamples scenes, not questions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from eval._common import make_parser, run, show_progress
from rsvp import presets
from rsvp.datasets.annotations import AnnotationModel
from rsvp.embedded.scenes import Scene, scenes
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation import metrics
from rsvp.evaluation.stats import ratio_interval
from rsvp.pipeline import Pipeline
from rsvp.platform.files import parse_json, read_bytes, validate, write_text
from rsvp.types import BoolMask, RgbArray

QUESTIONS = Path(__file__).parents[1] / "tests" / "data" / "natural_questions.json"
MIN_IOU = 0.5
OUTCOMES = ("right", "warned", "silently wrong", "silently none")


class Question(AnnotationModel):
    """A question about a scene; `targets` are indices of its objects."""

    text: str
    targets: list[int]
    kind: str
    unknown: str | None = None  # the word in it that the world of the scenes lacks


class SceneQuestions(AnnotationModel):
    """The questions about scene number `scene` of the file's seed."""

    scene: int
    questions: list[Question]


class QuestionFile(AnnotationModel):
    """The questions, and how the scenes are rendered: their seed and side in pixels."""

    seed: int
    size: int
    scenes: list[SceneQuestions]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pipeline returned for a question; `mask` is the union, (H, W) bool."""

    mask: BoolMask = field(repr=False)
    labels: tuple[str, ...]  # one a target
    warnings: tuple[str, ...]
    understood: bool


@dataclass(frozen=True, slots=True)
class QuestionOutcome:
    """One question, and how its answer was judged; a line of the output file."""

    scene: int
    text: str
    kind: str
    outcome: str  # one of `OUTCOMES`
    iou: float
    labels: tuple[str, ...]
    warnings: tuple[str, ...]


def read_questions(file: Path) -> QuestionFile:
    """The checked content of a question file; BadInput where it is malformed."""
    return validate(QuestionFile.model_validate, parse_json(read_bytes(file), str(file)), str(file))


def rendered(questions: QuestionFile) -> Iterator[tuple[SceneQuestions, Scene]]:
    """The scenes that have questions, each with them.

    Raises:
        BadInput: a scene with a negative number, or a target that its scene lacks.
    """
    asked = {entry.scene: entry for entry in questions.scenes}
    if min(asked, default=0) < 0:
        raise BadInput(f"scenes count from 0, found {min(asked)}")
    n = max(asked, default=-1) + 1
    for number, scene in enumerate(scenes(n, questions.seed, size=questions.size)):
        if number in asked:
            for question in asked[number].questions:
                if not set(question.targets) <= set(range(len(scene.objects))):
                    found = f"targets {question.targets} of {len(scene.objects)} objects"
                    raise BadInput(f"scene {number}, {question.text!r}: {found}")
            yield asked[number], scene


def ask(pipeline: Pipeline, rgb: RgbArray, text: str) -> Answer:
    """The pipeline's answer; where no reply can be read, one without targets that says so."""
    try:
        result = pipeline.segment(rgb, text)
    except MLLMFailed as error:
        return Answer(np.zeros(rgb.shape[:2], np.bool_), (), (str(error),), understood=False)
    return Answer(
        union((target.mask for target in result.targets), rgb),
        tuple(target.label for target in result.targets),
        result.warnings,
        result.reasoning.understood,
    )


def union(masks: Iterable[BoolMask], rgb: RgbArray) -> BoolMask:
    """(H, W) bool: the union of such masks of an image; empty where there are none."""
    mask: BoolMask = np.logical_or.reduce([np.zeros(rgb.shape[:2], np.bool_), *masks])
    return mask


def judge(question: Question, answer: Answer, iou: float) -> str:
    """One of `OUTCOMES`; `iou` is that of the answer and the truth, 1 where both are empty."""
    if question.unknown is not None:
        named = any(question.unknown.casefold() in w.casefold() for w in answer.warnings)
        right = not answer.labels and (not answer.understood or named)
    else:
        right = iou >= MIN_IOU
    if right:
        return "right"
    if answer.warnings or not answer.understood:
        return "warned"
    return "silently wrong" if answer.labels else "silently none"


def measure(
    pipeline: Pipeline,
    questions: QuestionFile,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[QuestionOutcome]:
    """Ask every question.

    Args:
        progress: called with the number of scenes that are done, and of all.

    Raises:
        BadInput: see `rendered`.
    """
    outcomes = []
    for done, (entry, scene) in enumerate(rendered(questions), start=1):
        for question in entry.questions:
            answer = ask(pipeline, scene.rgb, question.text)
            truth = union((scene.objects[i].mask for i in question.targets), scene.rgb)
            iou = metrics.iou(metrics.overlap(answer.mask, truth))
            outcomes.append(
                QuestionOutcome(
                    entry.scene, question.text, question.kind, judge(question, answer, iou),
                    round(iou, 4), answer.labels, answer.warnings,
                )
            )  # fmt: skip
        if progress is not None:
            progress(done, len(questions.scenes))
    return outcomes


def format_table(outcomes: Sequence[QuestionOutcome]) -> str:
    """Shares of each outcome, of all questions and by kind, as text."""
    groups = {"all": list(outcomes)}
    for one in outcomes:
        groups.setdefault(one.kind, []).append(one)
    lines = [
        f"{'':<12}{'n':>5}  {'right':<24}{'warned':>8}{'silently wrong':>16}{'silently none':>15}"
    ]
    for name, group in groups.items():
        by_scene: dict[int, list[bool]] = {}
        for one in group:
            by_scene.setdefault(one.scene, []).append(one.outcome == "right")
        right = ratio_interval([sum(v) for v in by_scene.values()], [*map(len, by_scene.values())])
        warned, wrong, none = (
            f"{sum(one.outcome == outcome for one in group) / len(group):.3f}"
            for outcome in OUTCOMES[1:]
        )
        lines.append(f"{name:<12}{len(group):>5}  {right!s:<24}{warned:>8}{wrong:>16}{none:>15}")
    doubted = sum(one.outcome == "right" and bool(one.warnings) for one in outcomes)
    lines.append(f"right in spite of a warning: {doubted}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("natural", __doc__)
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--questions", type=Path, default=QUESTIONS, metavar="FILE")
    parser.add_argument("--language", default="en", metavar="CODE", help="of the questions")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write a line a question")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    questions = read_questions(args.questions)
    pipeline = Pipeline.from_preset(args.preset, language=args.language)
    outcomes = measure(pipeline, questions, progress=show_progress)
    if args.out is not None:
        lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in outcomes)
        write_text(args.out, "".join(lines))
    print(format_table(outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
