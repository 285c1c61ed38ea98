"""A run as one page, `report.html`: the scores, the best and worst samples, and how it was run.

`page.html.jinja` lays out the page; this module computes what it shows. The page is one file:
styles, charts and pictures are in it, there is no script, and its content security policy forbids
every request. All text is escaped, and control characters become blanks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2

from rsvp.datasets.vqa import Question
from rsvp.errors import BadInput
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.metrics.vrt import seg_indices
from rsvp.evaluation.records import AnswerRecord, Record
from rsvp.evaluation.report import pictures
from rsvp.evaluation.report.pictures import COLOURS, Examples
from rsvp.evaluation.report.text import STAGE_LABELS, is_interval
from rsvp.images import load_image
from rsvp.writers import html
from rsvp.writers.common import jpeg_uri

Json = Mapping[str, Any]

BINS = 20  # of the histogram of IoUs
EXAMPLES = 8  # samples of each sort
MAX_REPLY = 6000  # characters of a reply
# The scores that a run is compared by, the benchmark's own first; the first `CARDS` are at the top.
HEADLINES = (
    "accuracy",
    "mean",
    "r_lq",
    "r_sq",
    "a_miou",
    "giou",
    "ciou",
    "n_acc",
    "t_acc",
)
CARDS = 4
LABELS: Mapping[str, str] = {
    "giou": "gIoU",
    "ciou": "cIoU",
    "miou": "mIoU",
    **{name: label.replace("->", "→") for name, label in STAGE_LABELS.items()},
    "mean": "mean AP",
    "median": "median AP",
    "ap": "AP of each set",
    "n_acc": "N-acc.",
    "t_acc": "T-acc.",
    "r_lq": "R-LQ",
    "r_sq": "R-SQ",
    "a_miou": "A-mIoU",
}
ANSWER_LABELS = {
    "oracle": "after a look at the true masks",
    "looked": "questions with a look",
    "found": "looks that found something",
}


def page(
    config: EvalConfig, summary: Json, records: Iterable[Record | AnswerRecord], dataset: Any
) -> str:
    """The report of a run from `config.json`, `summary.json` and its records.

    Of the records only the examples are held; their pictures come from `dataset`.
    """
    examples = Examples(EXAMPLES)
    bins = {False: [0] * BINS, True: [0] * BINS}  # by failed
    for record in records:
        examples.add(record)
        if isinstance(record, Record) and record.iou is not None:
            bins[record.failure is not None][min(int(record.iou * BINS), BINS - 1)] += 1
    index = {dataset.sample_id(i): i for i in range(len(dataset))}
    sorts = {"Failed": examples.failed, "Worst": examples.worst, "Best": examples.best}
    models = [config.run.pipeline.get(name) for name in ("mllm", "strategy", "segmenter")]
    template = templates().get_template("page.html.jinja")
    return template.render(
        title=config.run.benchmark,
        models=[model for model in models if model],
        protocol=config.run.protocol,
        n=summary["n"],
        failed=summary["failed"],
        not_understood=summary.get("not_understood", 0),
        **_scores(summary),
        bins=list(zip(*bins.values(), strict=True)) if any(map(sum, bins.values())) else [],
        seconds=summary.get("seconds", {}),
        examples=[
            (title, [_sample(record, dataset, index, config) for record in found])
            for title, found in sorts.items()
            if found
        ],
        legend={"hit": COLOURS["hit"], "missed": COLOURS["missed"], "too much": COLOURS["surplus"]},
        config={
            name: list(_facts(facts))
            for name, facts in config.model_dump(exclude={"schema_version"}).items()
        },
    )


@functools.cache
def templates() -> jinja2.Environment:
    environment = html.environment("rsvp.evaluation.report")
    environment.filters["number"] = lambda x: f"{x:.1f}" if x > 1 else f"{x:.3f}"
    return environment


def _scores(summary: Json) -> dict[str, Any]:
    """The tables of scores; an interval is known by its keys, and so is a group (kind or tag)."""
    scores = _intervals(summary)
    labels = ANSWER_LABELS if "accuracy" in summary else LABELS

    def label(name: str) -> str:
        return labels.get(name, name.replace("_", " "))

    tags = {name: value for name, value in summary.items() if _is_group(value)}
    members = {**summary.get("by_kind", {}), **tags}
    grouped = dict.fromkeys(name for group in members.values() for name in _intervals(group))
    rows = {"overall": summary, **members} if grouped else {}
    return {
        "headlines": [(label(n), scores[n]) for n in HEADLINES if n in scores][:CARDS],
        "metrics": {name: label(name) for name in grouped},
        "groups": {
            name: {"n": row.get("n", ""), **{m: row.get(m) for m in grouped}}
            for name, row in rows.items()
        },
        # Where it is won and lost: the scores that no kind has.
        "stages": [(label(n), value) for n, value in scores.items() if n not in grouped],
        "parts": [(label(n), found) for n, value in summary.items() if (found := _parts(value))],
    }


def _intervals(document: Json) -> dict[str, Json]:
    return {name: value for name, value in document.items() if is_interval(value)}


def _is_group(value: object) -> bool:
    return isinstance(value, Mapping) and "n" in value and bool(_intervals(value))


def _parts(value: object) -> dict[str, float]:
    """The scores of a score that has one a part, such as the AP of each set."""
    if not isinstance(value, Mapping) or is_interval(value) or _is_group(value):
        return {}
    return {part: one for part, one in value.items() if isinstance(one, float)}


def _sample(
    record: Record | AnswerRecord, dataset: Any, index: Mapping[str, int], config: EvalConfig
) -> dict[str, Any]:
    picture, no_picture, query, words = None, "", "", list[str]()
    try:
        sample = dataset[index[record.id]]
        if isinstance(record, Record):
            query, words = sample.query, _segmented(record)
            picture = pictures.data_uri(sample, _answer_masks(record))
        else:
            query, words = record.question, _answered(record, sample)
            how = config.run.settings
            if sample.image is not None:
                image = load_image(sample.image)
                strip = pictures.look_strip(image, record.looks, how["zoom"], how["background"])
                picture = jpeg_uri(strip, pictures.QUALITY)
    except (BadInput, KeyError) as error:  # the data may have gone since the run
        no_picture = str(error)
    surplus = len(record.raw) - MAX_REPLY
    return {
        "query": query,
        "picture": picture,
        "no_picture": no_picture or "there is none",
        "caption": " · ".join(filter(None, [*words[:1], record.kind, record.id, *words[1:]])),
        "failure": record.failure,
        "steps": record.steps,
        "reason": record.reason,
        "reply": record.raw[:MAX_REPLY] + (f"\n… {surplus} characters more" if surplus > 0 else ""),
    }


def _answer_masks(record: Record) -> Sequence[object]:
    """The masks of the answer, without those of the path to it."""
    if record.text is None:
        return record.masks
    places = seg_indices(record.text)[1]
    return [record.masks[k] for k in places if k < len(record.masks)]


def _segmented(record: Record) -> list[str]:
    return [
        "" if record.iou is None else f"IoU {record.iou:.3f}",
        "answered: no such thing" if record.no_target else "",
        "" if record.understood else "not understood",
        "truly absent" if record.absent else "",
    ]


def _answered(record: AnswerRecord, question: Question) -> list[str]:
    looked = ", ".join(look.query for look in record.looks)
    return [
        {None: "", True: "right", False: "wrong"}[record.right],
        f"answered: {record.text}",
        f"true: {question.answer}" if question.answer else "",
        f"choices: {' / '.join(record.choices)}" if record.choices else "",
        f"looked at: {looked}" if looked else "",
    ]


def _facts(facts: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{key}.")
        elif value is not None:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{key}", shown
