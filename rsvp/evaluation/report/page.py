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
from markupsafe import Markup

from rsvp.datasets import Dataset
from rsvp.errors import BadInput
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.metrics.vrt import seg_indices
from rsvp.evaluation.records import Record
from rsvp.evaluation.report import pictures
from rsvp.evaluation.report.pictures import COLOURS, Examples
from rsvp.evaluation.report.text import STAGE_LABELS

Json = Mapping[str, Any]

BINS = 20  # of the histogram of IoUs
EXAMPLES = 8  # samples of each sort
MAX_REPLY = 6000  # characters of a reply
# The scores that a run is compared by, the benchmark's own first; the first `CARDS` are at the top.
HEADLINES = ("mean", "r_lq", "r_sq", "a_miou", "giou", "ciou", "n_acc", "t_acc")
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


def page(config: EvalConfig, summary: Json, records: Iterable[Record], dataset: Dataset) -> str:
    """The report of a run from `config.json`, `summary.json` and its records.

    Of the records only the examples are held; their pictures come from `dataset`.
    """
    examples = Examples(EXAMPLES)
    bins = {False: [0] * BINS, True: [0] * BINS}  # by failed
    for record in records:
        examples.add(record)
        if record.iou is not None:
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
            (title, [_sample(record, dataset, index) for record in found])
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
    """The page and its charts."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rsvp.evaluation.report", ""),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda x: f"{x:.1f}" if x > 1 else f"{x:.3f}"
    return environment


def _printable(value: object) -> object:
    """A text without control characters, lines kept."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else " " for c in value)


def _scores(summary: Json) -> dict[str, Any]:
    """The tables of scores; an interval is known by its keys, and so is a group (kind or tag)."""
    scores = _intervals(summary)
    tags = {name: value for name, value in summary.items() if _is_group(value)}
    members = {**summary.get("by_kind", {}), **tags}
    grouped = dict.fromkeys(name for group in members.values() for name in _intervals(group))
    rows = {"overall": summary, **members} if grouped else {}
    return {
        "headlines": [(_label(n), scores[n]) for n in HEADLINES if n in scores][:CARDS],
        "metrics": {name: _label(name) for name in grouped},
        "groups": {
            name: {"n": row.get("n", ""), **{m: row.get(m) for m in grouped}}
            for name, row in rows.items()
        },
        # Where it is won and lost: the scores that no kind has.
        "stages": [(_label(n), value) for n, value in scores.items() if n not in grouped],
        "parts": [(_label(n), found) for n, value in summary.items() if (found := _parts(value))],
    }


def _intervals(document: Json) -> dict[str, Json]:
    return {name: value for name, value in document.items() if _is_interval(value)}


def _is_interval(value: object) -> bool:
    return isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys()


def _is_group(value: object) -> bool:
    return isinstance(value, Mapping) and "n" in value and bool(_intervals(value))


def _parts(value: object) -> dict[str, float]:
    """The scores of a score that has one a part, such as the AP of each set."""
    if not isinstance(value, Mapping) or _is_interval(value) or _is_group(value):
        return {}
    return {part: one for part, one in value.items() if isinstance(one, float)}


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _sample(record: Record, dataset: Dataset, index: Mapping[str, int]) -> dict[str, Any]:
    query, picture, no_picture = "", None, ""
    masks: Sequence[object] = record.masks
    if record.text is not None:  # the masks of the answer, without those of the path to it
        masks = [masks[k] for k in seg_indices(record.text)[1] if k < len(masks)]
    try:
        sample = dataset[index[record.id]]
        query = sample.query
        picture = pictures.data_uri(sample, masks)
    except (BadInput, KeyError) as error:  # the data may have gone since the run
        no_picture = str(error)
    caption = (
        "" if record.iou is None else f"IoU {record.iou:.3f}",
        record.kind,
        record.id,
        "answered: no such thing" if record.no_target else "",
        "" if record.understood else "not understood",
        "truly absent" if record.absent else "",
    )
    surplus = len(record.raw) - MAX_REPLY
    return {
        "query": query,
        "picture": picture,
        "no_picture": no_picture,
        "caption": " · ".join(filter(None, caption)),
        "failure": record.failure,
        "steps": record.steps,
        "reason": record.reason,
        "reply": record.raw[:MAX_REPLY] + (f"\n… {surplus} characters more" if surplus > 0 else ""),
    }


def _facts(facts: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{key}.")
        elif value is not None:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{key}", shown
