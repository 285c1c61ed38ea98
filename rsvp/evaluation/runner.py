"""Any benchmark with any pipeline: samples in, one record each, a summary at the end.

A run's folder holds `config.json`, `records.jsonl` (one line a sample, see
`rsvp.evaluation.records`) and, when it is done, `summary.json` and `report.html`.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from rsvp.datasets import Dataset
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation import benchmarks, config, records
from rsvp.evaluation.benchmarks import Benchmark
from rsvp.evaluation.config import EvalConfig, RunSettings
from rsvp.evaluation.engines.local import Engine, LocalEngine
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.outcomes import EvalOptions, SegmentingPipeline, Work
from rsvp.evaluation.pending import answer_pending, replay
from rsvp.evaluation.records import RECORDS, Record
from rsvp.evaluation.report import page
from rsvp.evaluation.score import Score, score_samples
from rsvp.evaluation.summary import RunAggregator, Summary
from rsvp.platform.files import locked, write_json, write_text

SUMMARY, REPORT = "summary.json", "report.html"


def check(
    name: str, protocol: str | None = None, split: str | None = None
) -> tuple[Benchmark, ScoringProtocol]:
    """The benchmark and the protocol of these names, before any model is loaded.

    BadInput where one of them, or the split, is unknown, or the benchmark doesn't ask for masks.
    """
    benchmark = benchmarks.find(name)
    if not benchmark.asks_for_masks:
        raise BadInput(
            f"{name} asks for answers, not masks: they come with `rsvp answer`; "
            f"anyone's answers are scored by: rsvp score {name}"
        )
    benchmark.check_split(split)
    return benchmark, benchmark.protocol(protocol)


def evaluate(
    name: str,
    data: str | Path,
    pipeline: SegmentingPipeline,
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
    settings: Mapping[str, Any] | None = None,
) -> Summary:
    """Run a pipeline over a benchmark.

    A sample that fails scores as an empty prediction and keeps its cause and the raw reply. After a
    kill at any moment, `resume` leads to the records (but for timings) and the summary of a run
    that was never stopped.

    Args:
        name, data, protocol, split: see `rsvp.evaluation.score.score`.
        out: the run's folder; it must be new or empty, unless the run is resumed.
        limit: take the first so many samples.
        retry_failed: resume, and ask the failed samples again.
        progress: show a bar where stderr is a terminal.
        oracle: also prompt the segmenter with the true boxes.
        concurrency: see `rsvp.evaluation.engines.local.LocalEngine`.
        engine: answers the samples; by default this process, with `pipeline`. With another engine
            `pipeline` only describes the run.
        settings: what else `config.json` records and a resumed run must share, e.g. the preset.

    Raises:
        BadInput: unknown benchmark, malformed data, or a folder that holds anything else or in
            which another process is at work.
        ModelUnavailable, MissingExtra: a model is missing, so that no sample could be answered.
        MLLMFailed: every sample failed; as `AccessDenied`, before that, where a server refuses the
            key.
    """
    engine = engine or LocalEngine(pipeline, concurrency)
    benchmark, rules = check(name, protocol, split)
    open_dataset = functools.partial(benchmark.open, split=split)
    dataset: Dataset = open_dataset(Path(data))
    dataset.check_images()
    if limit is not None and limit < 1:
        raise BadInput(f"the limit is at least 1 sample, found {limit}")
    ids = [dataset.sample_id(i) for i in range(len(dataset))][:limit]
    folder = Path(out)
    run = RunSettings(
        benchmark=name,
        protocol=rules.name,
        split=split,
        data_sha256=dataset.digest,
        samples=len(ids),
        oracle=oracle,
        pipeline=config.describe_pipeline(pipeline),
        settings=dict(settings or {}),
    )
    file = folder / RECORDS
    with locked(folder):
        environment = {"data": str(data), **config.environment()}
        EvalConfig(run=run, environment=environment).prepare(folder, resume=resume or retry_failed)
        if retry_failed:
            records.drop_failed(file)
        aggregator = RunAggregator(rules)
        options = EvalOptions(oracle, benchmark.scores_path)

        def answer(pending: list[int]) -> Generator[Record, None, None]:
            return engine(Work(Path(data), open_dataset, dataset, pending, rules, options))

        for _ in answer_pending(file, ids, aggregator, answer, name=name, progress=progress):
            pass
        if records.keep_records(file, ids):  # the order decides the bootstrap's draws
            aggregator = RunAggregator(rules)
            replay(file, ids, aggregator)
        official = None
        if benchmark.scores_more and len(ids) == len(dataset):  # AP counts other samples as missed
            official = score_samples(name, benchmark, dataset, file, rules.name)
        return _finish(folder, aggregator, official, dataset)


def _finish(
    folder: Path, aggregator: RunAggregator, official: Score | None, dataset: Dataset
) -> Summary:
    """Write the summary and the report. MLLMFailed where no sample has an answer."""
    summary = aggregator.summary(official)
    write_json(folder / SUMMARY, summary.to_dict(), sync=True)
    found = records.read(folder / RECORDS)
    html = page.page(EvalConfig.read(folder), summary.to_dict(), found, dataset)
    write_text(folder / REPORT, html, sync=True)
    if 0 < aggregator.n == aggregator.failed:
        (cause, count), *others = aggregator.causes.most_common()
        often = f", {count} of them" if others else ""
        raise MLLMFailed(
            f"all {aggregator.n} samples failed{often}: {cause}; --retry-failed asks them again"
        )
    return summary
