"""Any benchmark with any pipeline: samples in, one record each, a summary at the end.

A run's folder holds `config.json`, `records.jsonl` (one line a sample, see
`rsvp.evaluation.records`) and, when it is done, `summary.json` and `report.html`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM, Zoom
from rsvp.errors import BadInput, MLLMFailed
from rsvp.evaluation import benchmarks, config, records
from rsvp.evaluation.answers import AnswerAggregator, AnswerSummary, AnswerWork
from rsvp.evaluation.benchmarks import Benchmark
from rsvp.evaluation.benchmarks.vqa import QuestionBenchmark
from rsvp.evaluation.config import EvalConfig, RunSettings
from rsvp.evaluation.engines.local import Engine, LocalEngine, RunWork
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.outcomes import Work
from rsvp.evaluation.pending import answer_pending, replay
from rsvp.evaluation.records import RECORDS
from rsvp.evaluation.report import page
from rsvp.evaluation.score import Score, score_samples
from rsvp.evaluation.summary import RunAggregator, Summary
from rsvp.platform.extras import require
from rsvp.platform.files import check_writable, locked, write_json, write_text
from rsvp.platform.runs import CONFIG, has_begun

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

SUMMARY, REPORT = "summary.json", "report.html"


@dataclass(frozen=True)
class Evaluation:
    """A run of a pipeline over a benchmark.

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
        zoom, looks: of questions: how closer looks are shown, and how many there may be.

    Raises:
        BadInput: the benchmark, protocol or split is unknown; there is no data; a zoom where masks
            are asked for.
    """

    name: str
    data: Path
    out: Path
    protocol: str | None = None
    split: str | None = None
    limit: int | None = None
    resume: bool = False
    retry_failed: bool = False
    progress: bool = True
    oracle: bool = True
    concurrency: int | None = None
    zoom: str | None = None
    looks: int | None = None

    def __post_init__(self) -> None:
        benchmarks.find(self.name).check_split(self.split)
        _ = self.rules
        if not self.data.exists():
            raise BadInput(f"there is no file or folder {self.data} with samples")
        if self.benchmark.asks_for_masks and (self.zoom, self.looks) != (None, None):
            raise BadInput(f"{self.name} asks for masks: leave out --zoom and --looks")
        Zoom.parse(self.zoom or DEFAULT_ZOOM)
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"the limit is at least 1 sample, found {self.limit}")

    @property
    def rules(self) -> ScoringProtocol:
        return benchmarks.find(self.name).protocol(self.protocol)

    @functools.cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark that the data are for: of ``--task qa`` and ``trace`` it is another one."""
        return benchmarks.find(benchmarks.resolve(self.name, self.data))

    @functools.cached_property
    def dataset(self) -> Any:
        """The samples, opened and checked before a model is loaded or a file written.

        Raises:
            BadInput: malformed data (the first sample is decoded, the others' images are looked
                for), or a folder that holds anything else.
            MissingExtra: a library is missing that reads or scores them.
        """
        for module in self.benchmark.libraries:
            require(module, "eval", f"scoring {self.name}")
        dataset = self.benchmark.open(self.data, self.split)
        dataset.check_images()
        _ = dataset[0]
        has_begun(self.out, resume=self.resume or self.retry_failed)
        check_writable(self.out)
        return dataset

    def run(
        self,
        pipeline: Pipeline,
        engine: Engine | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Summary | AnswerSummary:
        """Answer the samples, score them, write the summary and the report.

        Args:
            engine: answers the samples; by default this process, with `pipeline`. With another
                engine `pipeline` only describes the run.
            settings: what else `config.json` records and a resumed run must share, e.g. the preset.

        Raises:
            BadInput: malformed data; another process is at work in the folder.
            ModelUnavailable, MissingExtra: a model is missing, so that no sample can be answered.
            MLLMFailed: every sample failed; as `AccessDenied`, before that, where a server refuses
                the key.
        """
        dataset, file = self.dataset, self.out / RECORDS
        ids = [dataset.sample_id(i) for i in range(len(dataset))][: self.limit]
        task = self._task(pipeline, engine)
        run_settings = {**(settings or {}), **task.settings}
        answer = engine or LocalEngine(pipeline, self.concurrency)
        with locked(self.out), _removed_unless_begun(self.out):
            document = self._config(task.described, run_settings, len(ids))
            document.prepare(self.out, resume=self.resume or self.retry_failed)
            if self.retry_failed:
                records.drop_failed(file)
            aggregator = task.aggregator()
            for _ in answer_pending(
                file, ids, aggregator, lambda pending: answer(task.work(pending)),
                name=self.name, progress=self.progress,
            ):  # fmt: skip
                pass
            if records.keep_records(file, ids):  # the order decides the bootstrap's draws
                aggregator = task.aggregator()
                replay(file, ids, aggregator)
            return self._finish(aggregator, self._official(len(ids)))

    def _task(self, pipeline: Pipeline, engine: Engine | None) -> _Task:
        benchmark, dataset, rules = self.benchmark, self.dataset, self.rules
        described = config.describe_pipeline(pipeline, trace=benchmark.traces)
        if not isinstance(benchmark, QuestionBenchmark):
            if benchmark.traces:
                pipeline.check_traces()
            opened = functools.partial(benchmark.open, split=self.split)
            work = functools.partial(
                Work, self.data, opened, dataset,
                protocol=rules, oracle=self.oracle, trace=benchmark.traces,
            )  # fmt: skip
            return _Task(work, functools.partial(RunAggregator, rules), described)
        if engine is not None:
            raise BadInput("questions are asked in this process: leave out --engine")
        zoom = Zoom.parse(self.zoom or DEFAULT_ZOOM)
        looks = DEFAULT_LOOKS if self.looks is None else self.looks
        pipeline.check_answers(zoom)
        return _Task(
            functools.partial(
                AnswerWork, dataset, benchmark=benchmark, zoom=zoom, looks=looks, oracle=self.oracle
            ),
            functools.partial(AnswerAggregator, dataset, benchmark, rules),
            described | {"prompts": described["prompts"] | config.answer_prompts(pipeline)},
            {"zoom": zoom.mode, "background": zoom.background, "looks": looks},
        )

    def _config(
        self, pipeline: dict[str, Any], settings: dict[str, Any], samples: int
    ) -> EvalConfig:
        run = RunSettings(
            benchmark=benchmarks.resolve(self.name, self.data),
            protocol=self.rules.name,
            split=self.split,
            data_sha256=self.dataset.digest,
            samples=samples,
            oracle=self.oracle,
            pipeline=pipeline,
            settings=settings,
        )
        return EvalConfig(run=run, environment={"data": str(self.data), **config.environment()})

    def _official(self, count: int) -> Score | None:
        """The benchmark's own scores, where they are more than every run's."""
        benchmark = self.benchmark
        whole = count == len(self.dataset) or not benchmark.needs_all
        if not (benchmark.asks_for_masks and benchmark.scores_more and whole):
            return None
        file, rules = self.out / RECORDS, self.rules.name
        return score_samples(self.name, benchmark, self.dataset, file, rules, count=count)

    def _finish(
        self, aggregator: RunAggregator | AnswerAggregator, official: Score | None
    ) -> Summary | AnswerSummary:
        """Write the summary and the report. MLLMFailed where no sample has an answer."""
        summary = aggregator.summary(official)
        write_json(self.out / SUMMARY, summary.to_dict(), sync=True)
        found = records.read(self.out / RECORDS, aggregator.model)
        html = page.page(EvalConfig.read(self.out), summary.to_dict(), found, self.dataset)
        write_text(self.out / REPORT, html, sync=True)
        if 0 < aggregator.n == aggregator.failed:
            (cause, count), *others = aggregator.causes.most_common()
            often = f", {count} of them" if others else ""
            raise MLLMFailed(
                f"all {aggregator.n} samples failed{often}: {cause}; --retry-failed asks them again"
            )
        return summary


def evaluate(
    name: str,
    data: str | Path,
    pipeline: Pipeline,
    out: str | Path,
    *,
    engine: Engine | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Summary | AnswerSummary:
    """Run a pipeline over a benchmark: `options` are those of `Evaluation`."""
    return Evaluation(name, Path(data), Path(out), **options).run(pipeline, engine, settings)


@dataclass(frozen=True, slots=True)
class _Task:
    """What differs between masks and answers."""

    work: Callable[[list[int]], RunWork]
    aggregator: Callable[[], RunAggregator | AnswerAggregator]
    described: dict[str, Any]  # the pipeline
    settings: dict[str, Any] = field(default_factory=dict)


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
