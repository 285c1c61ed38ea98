"""Any benchmark with any pipeline: samples in, one record each, a summary at the end.

A run's folder holds `config.json`, `records.jsonl` (one line a sample, see
`rsvp.evaluation.records`) and, when it is done, `summary.json` and `report.html`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM, Zoom
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation import benchmarks, config, records
from rsvp.evaluation.answers import (
    AnswerAggregator,
    AnswerEngine,
    AnsweringPipeline,
    AnswerSummary,
)
from rsvp.evaluation.benchmarks import Benchmark
from rsvp.evaluation.benchmarks.vqa import QuestionBenchmark
from rsvp.evaluation.config import CONFIG, EvalConfig, RunSettings
from rsvp.evaluation.engines.local import Engine, LocalEngine
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.outcomes import SegmentingPipeline, TracingPipeline, Work
from rsvp.evaluation.pending import answer_pending, replay
from rsvp.evaluation.records import RECORDS
from rsvp.evaluation.report import page
from rsvp.evaluation.score import Score, score_samples
from rsvp.evaluation.summary import RunAggregator, Summary
from rsvp.platform.extras import require
from rsvp.platform.files import check_writable, locked, write_json, write_text

SUMMARY, REPORT = "summary.json", "report.html"


def check(
    name: str,
    protocol: str | None = None,
    split: str | None = None,
    *,
    data: Path | None = None,
    zoom: str | None = None,
    looks: int | None = None,
) -> tuple[Benchmark, ScoringProtocol]:
    """The benchmark and the protocol of these names, before any model is loaded.

    Args:
        data: the folder, whose samples may be those of another task.
        zoom, looks: for benchmarks of questions.

    Raises:
        BadInput: one of them, or the split, is unknown; a zoom where masks are asked for.
    """
    benchmark = benchmarks.find(name)
    benchmark.check_split(split)
    rules = benchmark.protocol(protocol)
    if data is not None:
        if not data.exists():
            raise BadInput(f"there is no file or folder {data} with samples")
        benchmark = benchmarks.find(benchmarks.resolve(name, data))
    if benchmark.asks_for_masks and (zoom, looks) != (None, None):
        raise BadInput(f"{name} asks for masks: leave out --zoom and --looks")
    Zoom.parse(zoom or DEFAULT_ZOOM)
    return benchmark, rules


def check_start(
    name: str,
    data: str | Path,
    out: str | Path,
    *,
    protocol: str | None = None,
    split: str | None = None,
    resume: bool = False,
) -> Any:
    """The samples of a run, opened and checked, before a model is loaded or a file written.

    Raises:
        BadInput: see `evaluate`; the first sample is decoded, the others' images are looked for.
        MissingExtra: a library is missing that reads or scores them.
    """
    benchmark, _ = check(name, protocol, split, data=Path(data))
    for module in benchmark.libraries:
        require(module, "eval", f"scoring {name}")
    dataset: Any = benchmark.open(Path(data), split)
    dataset.check_images()
    _ = dataset[0]
    EvalConfig.has_begun(Path(out), resume=resume)
    check_writable(Path(out))
    return dataset


def evaluate(
    name: str,
    data: str | Path,
    pipeline: SegmentingPipeline | AnsweringPipeline,
    out: str | Path,
    *,
    protocol: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
    oracle: bool = True,
    concurrency: int | None = None,
    engine: Engine | None = None,
    zoom: str | None = None,
    looks: int | None = None,
    settings: Mapping[str, Any] | None = None,
    dataset: Any = None,
) -> Summary | AnswerSummary:
    """Run a pipeline over a benchmark.

    A sample that fails scores as an empty prediction or a wrong answer, and keeps its cause and the
    raw reply. After a kill at any moment, `resume` leads to the records (but for timings) and the
    summary of a run that was never stopped.

    Args:
        name, data, protocol, split: see `rsvp.evaluation.score.score`.
        out: the run's folder; it must be new or empty, unless the run is resumed.
        limit: take the first so many samples.
        retry_failed: resume, and ask the failed samples again.
        progress: show a bar where stderr is a terminal.
        oracle: also prompt the segmenter with the true boxes, or ask after a look at true masks.
        concurrency: see `rsvp.evaluation.engines.local.LocalEngine`.
        engine: answers the samples; by default this process, with `pipeline`. With another engine
            `pipeline` only describes the run.
        zoom, looks: of questions: how closer looks are shown, and how many there may be.
        settings: what else `config.json` records and a resumed run must share, e.g. the preset.
        dataset: the samples, where `check_start` opened them.

    Raises:
        BadInput: unknown benchmark, malformed data, or a folder that holds anything else or in
            which another process is at work.
        ModelUnavailable, MissingExtra: a model is missing, so that no sample could be answered.
        MLLMFailed: every sample failed; as `AccessDenied`, before that, where a server refuses the
            key.
    """
    benchmark, rules = check(name, protocol, split, data=Path(data), zoom=zoom, looks=looks)
    open_dataset = functools.partial(benchmark.open, split=split)
    if dataset is None:
        dataset = check_start(
            name, data, out, protocol=protocol, split=split, resume=resume or retry_failed
        )
    if limit is not None and limit < 1:
        raise BadInput(f"the limit is at least 1 sample, found {limit}")
    ids = [dataset.sample_id(i) for i in range(len(dataset))][:limit]
    task = _task(
        benchmark, rules, dataset, pipeline, engine=engine, concurrency=concurrency,
        oracle=oracle, zoom=zoom, looks=looks,
    )  # fmt: skip
    folder = Path(out)
    run = RunSettings(
        benchmark=benchmarks.resolve(name, data),
        protocol=rules.name,
        split=split,
        data_sha256=dataset.digest,
        samples=len(ids),
        oracle=oracle,
        pipeline=task.described,
        settings={**(settings or {}), **task.settings},
    )
    file = folder / RECORDS
    with locked(folder), _removed_unless_begun(folder):
        environment = {"data": str(data), **config.environment()}
        EvalConfig(run=run, environment=environment).prepare(folder, resume=resume or retry_failed)
        if retry_failed:
            records.drop_failed(file)
        aggregator = task.aggregator()
        parts = (Path(data), open_dataset, dataset)

        def answer(pending: list[int]) -> Generator[Any, None, None]:
            return task.engine(Work(*parts, pending, rules, oracle, benchmark.traces))

        for _ in answer_pending(file, ids, aggregator, answer, name=name, progress=progress):
            pass
        if records.keep_records(file, ids):  # the order decides the bootstrap's draws
            aggregator = task.aggregator()
            replay(file, ids, aggregator)
        official = None
        whole = len(ids) == len(dataset) or not benchmark.needs_all
        if benchmark.asks_for_masks and benchmark.scores_more and whole:
            official = score_samples(name, benchmark, dataset, file, rules.name, count=len(ids))
        return _finish(folder, aggregator, official, dataset)


def _finish(
    folder: Path,
    aggregator: RunAggregator | AnswerAggregator,
    official: Score | None,
    dataset: Any,
) -> Summary | AnswerSummary:
    """Write the summary and the report. MLLMFailed where no sample has an answer."""
    summary = aggregator.summary(official)
    write_json(folder / SUMMARY, summary.to_dict(), sync=True)
    found = records.read(folder / RECORDS, aggregator.model)
    html = page.page(EvalConfig.read(folder), summary.to_dict(), found, dataset)
    write_text(folder / REPORT, html, sync=True)
    if 0 < aggregator.n == aggregator.failed:
        (cause, count), *others = aggregator.causes.most_common()
        often = f", {count} of them" if others else ""
        raise MLLMFailed(
            f"all {aggregator.n} samples failed{often}: {cause}; --retry-failed asks them again"
        )
    return summary


@dataclass(frozen=True, slots=True)
class _Task:
    """What differs between masks and answers."""

    engine: Callable[[Work], Generator[Any, None, None]]
    aggregator: Callable[[], RunAggregator | AnswerAggregator]
    described: dict[str, Any]  # the pipeline
    settings: dict[str, Any] = field(default_factory=dict)


def _task(
    benchmark: Benchmark,
    rules: ScoringProtocol,
    dataset: Any,
    pipeline: Any,
    *,
    engine: Engine | None,
    concurrency: int | None,
    oracle: bool,
    zoom: str | None,
    looks: int | None,
) -> _Task:
    described = config.describe_pipeline(pipeline, trace=benchmark.traces)
    if not isinstance(benchmark, QuestionBenchmark):
        if benchmark.traces:
            if not isinstance(pipeline, TracingPipeline):
                raise BadInput("this benchmark asks for reasoning paths: the pipeline has no trace")
            pipeline.check_traces()
        aggregator = functools.partial(RunAggregator, rules)
        return _Task(engine or LocalEngine(pipeline, concurrency), aggregator, described)
    if engine is not None:
        raise BadInput("questions are asked in this process: leave out --engine")
    shown, most = Zoom.parse(zoom or DEFAULT_ZOOM), DEFAULT_LOOKS if looks is None else looks
    pipeline.check_answers(shown)
    return _Task(
        AnswerEngine(pipeline, benchmark, shown, most, oracle, concurrency),
        functools.partial(AnswerAggregator, dataset, benchmark, rules),
        described | {"prompts": described["prompts"] | config.answer_prompts(pipeline)},
        {"zoom": shown.mode, "background": shown.background, "looks": most},
    )


@contextlib.contextmanager
def _removed_unless_begun(folder: Path) -> Iterator[None]:
    """Leave nothing of a new run that ends, e.g. for a missing model, before its first record."""
    new = not any(folder.iterdir())
    try:
        yield
    finally:
        file = folder / RECORDS
        if new and not (file.is_file() and file.stat().st_size):
            for name in (RECORDS, CONFIG):
                (folder / name).unlink(missing_ok=True)
