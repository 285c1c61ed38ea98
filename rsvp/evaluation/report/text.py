"""Scores, summaries and comparisons as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rsvp.evaluation.benchmarks import Numbers
from rsvp.evaluation.score import Score
from rsvp.evaluation.stats import Difference, Interval

if TYPE_CHECKING:
    from rsvp.evaluation.answers import AnswerSummary
    from rsvp.evaluation.compare import Comparison, Flip, GroupDifference
    from rsvp.evaluation.summary import GroupSummary, Summary

STAGE_LABELS: Mapping[str, str] = {
    "oracle": "oracle gIoU (true boxes)",
    "oracle_r_lq": "oracle R-LQ (true boxes)",
    "oracle_r_sq": "oracle R-SQ (true boxes)",
    "oracle_a_miou": "oracle A-mIoU (true boxes)",
    "box_recall": "reasoner's box recall at IoU 0.5",
    "box_to_mask": "true box -> mask, mean IoU",
    "absent_detected": "absent detected",
    "false_absent": "false absents",
}

_COUNTS = ("n", "skipped")
_SCORE_COLUMNS = 3  # with their intervals as many as a terminal is wide


def table(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> str:
    """Rows as columns of these least widths; one of a positive width is aligned to the right."""
    count = max((len(row) for row in rows), default=0)
    least = [*widths, *[0] * (count - len(widths))]
    width = [max(abs(least[i]), *(len(row[i]) for row in rows)) for i in range(count)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width[i]}}" if least[i] > 0 else f"{cell:<{width[i]}}"
            for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    )


def format_score(score: Score) -> str:
    """Every number of all samples, then the first ones of each part."""
    head = f"{score.benchmark} ({score.protocol}): {score.samples} samples, "
    head += f"{len(score.missing)} without a prediction; mean [95 % bootstrap interval]"
    flat: dict[str, Any] = {}  # numbers of numbers (AP a set) in one dictionary
    for name, value in score.numbers.items():
        if isinstance(value, Mapping):
            flat |= {f"{name} {inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    numbers = table([(name, _shown(value)) for name, value in flat.items()])
    parts = {**score.by_kind, **score.by_tag}
    theirs = ["reported by others, not measured here:", *score.references]
    return _blocks(
        head,
        numbers,
        _parts(parts) if len(parts) > 1 else "",
        "\n  ".join(theirs) if score.references else "",
    )


def _parts(parts: Mapping[str, Numbers]) -> str:
    first = next(iter(parts.values()))
    scores = [name for name in first if name not in _COUNTS]
    names = [*(["n"] if "n" in first else []), *scores[:_SCORE_COLUMNS]]
    rows = [(part, *(_shown(one.get(name)) for name in names)) for part, one in parts.items()]
    return table([("", *names), *rows])


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def format_summary(summary: Summary) -> str:
    """Scores, numbers of each stage, seconds; and what else the benchmark scores."""
    head = f"{summary.n} samples, {summary.failed} failed"
    if summary.not_understood:
        head += f", {summary.not_understood} not understood and scored as empty predictions"
    head += "; mean [95 % bootstrap interval]"
    groups: dict[str, GroupSummary] = {**summary.by_kind, **summary.by_tag}
    if summary.n:
        groups = {"overall": summary, **groups}
    scores = [
        (name, str(one.n), *("–" if v is None else str(v) for v in (one.giou, one.ciou)))
        for name, one in groups.items()
    ]
    stages = [
        (label, str(interval))
        for name, label in STAGE_LABELS.items()
        if (interval := getattr(summary, name)) is not None
    ]
    return _blocks(
        head,
        table([("", "n", "gIoU", "cIoU"), *scores], (0, 6, -22)) if scores else "",
        table(stages),
        _oracle_groups(summary),
        _seconds("sample", summary),
        format_score(summary.official) if summary.official else "",
    )


def _oracle_groups(summary: Summary) -> str:
    """Of reasoning paths: the scores of the true boxes' masks, by kind and tag."""
    names = [
        name for name in STAGE_LABELS if name in next(iter(summary.oracle_groups.values()), {})
    ]
    heads = [STAGE_LABELS[name].removesuffix(" (true boxes)") for name in names]
    rows = [(g, *(str(one[name]) for name in names)) for g, one in summary.oracle_groups.items()]
    return table([("true boxes", *heads), *rows]) if rows else ""


def _seconds(what: str, summary: Summary | AnswerSummary) -> str:
    rows = [(stage, f"{s.mean:.3f}", f"{s.p95:.3f}") for stage, s in summary.seconds.items()]
    return table([(f"seconds a {what}", "mean", "p95"), *rows], (0, 8, 8)) if rows else ""


def format_answers(summary: AnswerSummary) -> str:
    """The scores of questions, overall and by kind, the looks, tokens and seconds."""
    document = summary.to_dict()
    head = f"{summary.n} questions, {summary.failed} failed; mean [95 % bootstrap interval]"
    counts = {k: v for k, v in document.items() if k in ("unanswered", "unread") and v}
    scores = {k: v for k, v in document.items() if is_interval(v)}
    first = ("accuracy", "oracle")
    rows = [
        (kind, str(one["n"]), *(_interval(one.get(name)) for name in first))
        for kind, one in summary.by_kind.items()
    ]
    tags = {
        k: v["accuracy"] for k, v in document.items() if isinstance(v, dict) and "accuracy" in v
    }
    usage = {f"{name.replace('_', ' ')} a question": v for name, v in summary.usage.items()}
    return _blocks(
        head,
        table([(name, _interval(value)) for name, value in {**scores, **tags}.items()]),
        table([("", "n", *first), *rows], (0, 6)) if len(rows) > 1 else "",
        table([(name, str(value)) for name, value in counts.items()]),
        table([(name, f"{value:.1f}") for name, value in usage.items()]),
        _seconds("question", summary),
    )


def is_interval(value: object) -> bool:
    """Whether a value of a document is an interval; its keys tell."""
    return isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys()


def _interval(value: object) -> str:
    return str(Interval(**value)) if isinstance(value, dict) else "-"


def format_comparison(found: Comparison) -> str:
    """Which run is better, by how much, and the samples that only one of them found."""
    head = (
        f"A {found.runs[0]}, {found.failed[0]} failed\nB {found.runs[1]}, {found.failed[1]} failed"
    )
    groups = {"overall": found.overall, **(found.by_kind if len(found.by_kind) > 1 else {})}
    masks = found.metric == "gIoU"
    rows = [
        (name, str(d.n), f"{d.a:.3f}", f"{d.b:.3f}", _signed(d.giou), *[_signed(d.ciou)] * masks)
        for name, d in groups.items()
    ]
    columns = ("", "n", "A", "B", f"{found.metric}, B - A", *["cIoU, B - A"] * masks)
    right = "found by {} only (IoU >= 0.5)" if masks else "answered by {} only"
    return _blocks(
        head,
        _verdict(found.overall, found.metric),
        table([columns, *rows], (0, 6, 6, 6, -25)),
        _flips(right.format("B"), found.gained),
        _flips(right.format("A"), found.lost),
    )


def _verdict(overall: GroupDifference, metric: str) -> str:
    gain = overall.giou
    if gain.low > 0:
        return f"B is better: {metric} {gain.mean:+.3f}, 95 % interval above 0."
    if gain.high < 0:
        return f"A is better: {metric} of B {gain.mean:+.3f}, 95 % interval below 0."
    return f"Undecided: {metric} of B {gain.mean:+.3f}, the 95 % interval holds 0."


def _flips(title: str, flips: Sequence[Flip]) -> str:
    if not flips:
        return ""
    lines = [f"  {f.iou_a:.3f} -> {f.iou_b:.3f}  {f.id}  {f.kind}" for f in flips]
    return "\n".join([f"{len(flips)} {title}:", *lines])


def _signed(one: Difference) -> str:
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _blocks(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block)
