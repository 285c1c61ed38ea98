"""A run's predictions, in the form in which each benchmark's own evaluation takes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rsvp import writers
from rsvp.errors import BadInput
from rsvp.evaluation import benchmarks
from rsvp.evaluation.benchmarks import Json
from rsvp.evaluation.config import EvalConfig
from rsvp.evaluation.records import RECORDS, read_records


def export_run(run: str | Path, out: str | Path) -> list[Path]:
    """Export the records of a run of `rsvp eval` from its folder; see `export`."""
    folder = Path(run)
    config = EvalConfig.read(folder)
    if not (folder / RECORDS).is_file():
        raise BadInput(f"{folder} holds no {RECORDS}")
    data = Path(str(config.environment.get("data", "")))
    return export(config.run.benchmark, read_records(folder / RECORDS), out, data=data)


def export(
    name: str, records: Iterable[Json], out: str | Path, *, data: Path | None = None
) -> list[Path]:
    """Export the records of a benchmark into a folder; the files written.

    Args:
        records: `id`, `masks`, `scores` and `text` are used, see `rsvp.evaluation.predictions`.
        data: the folder that the samples came from. Of a single set of SegInW it names the set.

    Raises:
        BadInput: no run, unknown benchmark, a broken record, or the files cannot be written.
    """
    benchmark = benchmarks.find(name)
    writers.prepare(out)
    try:
        return benchmark.export(records, Path(out), data)
    except (KeyError, TypeError) as error:
        raise BadInput(f"a record is not complete ({error!r})") from error
