"""SegInW: ranked masks of our own lines, or the official results files, to AP a set.

    ap                     set -> AP@[.5:.95] times 100; null where a set has no object
    mean median            unweighted over the sets; `sets` says over how many, of the 25

The official form is a folder of ``seginw_<Name>_val.json``, each a list of COCO results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rsvp.datasets.instances import encode
from rsvp.datasets.seginw import FOLDER, SETS, SeginwDataset
from rsvp.errors import BadInput
from rsvp.evaluation.benchmarks import Benchmark, Json, Numbers
from rsvp.evaluation.metrics import ScoringProtocol, ap
from rsvp.evaluation.predictions import Prediction
from rsvp.platform import files

_OFFICIAL = re.compile(r"seginw_(.+)_val\.json")


class ApScorer:
    """Scores samples set by set; the masks of a set are released when the next one begins."""

    def __init__(self, dataset: SeginwDataset) -> None:
        self._dataset = dataset
        self._set: str | None = None
        self._results: list[dict[str, Any]] = []
        self._ap: dict[str, float | None] = {}

    def add(self, index: int, prediction: Prediction) -> None:
        """Take the prediction of sample `index`; BadInput where scores lack or a mask is broken."""
        place = self._dataset.queries[index]
        if place.set_name != self._set:
            self._finish_set()
            self._set = place.set_name
        if prediction.masks and prediction.scores is None:
            raise BadInput(f"{prediction.where}: AP ranks the masks, so they need scores")
        size = self._dataset.sets[place.set_name].size(place.image_id)
        masks = [encode(mask, size, prediction.where) for mask in prediction.masks]
        scores = prediction.scores or ()
        self._results += ap.as_results(place.image_id, place.category_id, masks, scores)

    def numbers(self) -> Numbers:
        self._finish_set()
        return ap.summarize(self._ap)

    def by_kind(self) -> Mapping[str, Numbers]:
        """Nothing: the sets are in `numbers`."""
        return {}

    by_tag = by_kind

    def _finish_set(self) -> None:
        if self._set is not None:
            truth = self._dataset.sets[self._set]
            self._ap[self._set] = ap.average_precision(truth, self._results, self._set)
        self._set, self._results = None, []


class Seginw(Benchmark):
    reader = SeginwDataset
    protocols = (ScoringProtocol("coco"),)
    needs_all = True  # AP counts other samples as missed

    def scorer(self, dataset: SeginwDataset, protocol: ScoringProtocol) -> ApScorer:
        return ApScorer(dataset)

    def score_official(
        self, dataset: SeginwDataset, source: Path
    ) -> tuple[Numbers, tuple[str, ...]] | None:
        """The scores of a folder of results files, or of one set's file; a missing one is empty.

        BadInput where there is no such file, one is of an unknown set, or a result is broken.
        """
        if not source.is_dir() and not _OFFICIAL.fullmatch(source.name):
            return None
        try:
            found = sorted(source.iterdir()) if source.is_dir() else [source]
        except OSError as error:
            raise BadInput(f"cannot read {source}: {error.strerror}") from error
        by_set = {match[1]: file for file in found if (match := _OFFICIAL.fullmatch(file.name))}
        if not by_set.keys() & dataset.sets.keys():
            raise BadInput(f"{source}: no seginw_<Name>_val.json of {', '.join(dataset.sets)}")
        for name, file in by_set.items():
            if name not in dataset.sets and name not in SETS:
                raise BadInput(f"{file}: the data has no set {name!r}")
        values = {
            name: ap.average_precision(truth, _results(by_set.get(name)), str(by_set.get(name)))
            for name, truth in dataset.sets.items()
        }
        missing = tuple(f"seginw_{name}_val.json" for name in dataset.sets if name not in by_set)
        return ap.summarize(values), missing

    def export(self, records: Iterable[Json], folder: Path, data: Path | None) -> list[Path]:
        """Write COCO results, a file a set, also of a set without a mask."""
        results: dict[str, list[Json]] = {}
        for record in records:
            name, image, category = _parse_id(record["id"], data)
            scores = [0.0 if s is None else s for s in record["scores"]]
            found = ap.as_results(image, category, record["masks"], scores)
            results.setdefault(name, []).extend(found)
        return [
            files.write_text(
                folder / f"seginw_{name}_val.json",
                files.dumps(found, indent=None, ascii_only=True),
            )
            for name, found in results.items()
        ]


def _results(file: Path | None) -> list[Any]:
    """The results of a file; none where there is no file."""
    if file is None:
        return []
    results = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(results, list):
        raise BadInput(f"{file}: COCO results are a list, found {type(results).__name__}")
    return results


def _parse_id(sample_id: str, data: Path | None) -> tuple[str, int, int]:
    """(set, image id, category id) of ``<Name>/<image id>/<category id>``.

    An id of a single set's data has no ``<Name>/``: then `data` is its folder.
    """
    place, _, category = sample_id.rpartition("/")
    name, _, image = place.rpartition("/")
    if not name and data is not None:
        folder = data.resolve()
        name = folder.parent.name if folder.name == FOLDER else folder.name
    if not name or Path(name).name != name or not image.isdecimal() or not category.isdecimal():
        raise BadInput(f"{sample_id!r} is not a sample of a set of SegInW")
    return name, int(image), int(category)
