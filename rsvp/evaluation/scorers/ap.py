"""SegInW: ranked masks of our own lines, or the official results files, to AP a set.

    ap                     set -> AP@[.5:.95] times 100; null where a set has no object
    mean median            unweighted over the sets; `sets` says over how many, of the 25

The official form is a folder of ``seginw_<Name>_val.json``, each a list of COCO results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsvp.datasets.instances import encode
from rsvp.datasets.seginw import SETS, SeginwDataset
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import ap
from rsvp.evaluation.metrics.ap import ApSummary
from rsvp.evaluation.predictions import Prediction
from rsvp.platform import files

_OFFICIAL = re.compile(r"seginw_(.+)_val\.json")


class ApScorer:
    """Adds samples up, set by set; a set's masks are let go when the next one begins."""

    def __init__(self, dataset: SeginwDataset) -> None:
        self._dataset = dataset
        self._set: str | None = None
        self._results: list[dict[str, Any]] = []
        self._ap: dict[str, float | None] = {}

    def add(self, index: int, prediction: Prediction) -> None:
        """Take the prediction of sample `index`; samples come in their order.

        Raises:
            BadInput: there are no scores, or a mask is broken or of another size.
        """
        place = self._dataset.place(self._dataset.sample_id(index))
        assert place is not None  # its own id
        if place.set_name != self._set:
            self._finish()
            self._set = place.set_name
        if prediction.masks and prediction.scores is None:
            raise BadInput(f"{prediction.where}: AP ranks the masks, so they need scores")
        size = self._dataset.sets[place.set_name].size(place.image_id)
        masks = [encode(mask, size, prediction.where) for mask in prediction.masks]
        scores = prediction.scores or ()
        self._results += ap.as_results(place.image_id, place.category_id, masks, scores)

    def numbers(self) -> dict[str, Any]:
        """The scores of all sets."""
        self._finish()
        return numbers(ap.summarize(self._ap))

    def by_kind(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing: the sets are in `numbers`."""
        return {}

    by_tag = by_kind

    def _finish(self) -> None:
        if self._set is not None:
            truth = self._dataset.sets[self._set]
            self._ap[self._set] = ap.average_precision(truth, self._results, self._set)
        self._set, self._results = None, []


def numbers(summary: ApSummary) -> dict[str, Any]:
    """The scores by their names in the JSON."""
    scores = {"ap": dict(summary.ap), "mean": summary.mean, "median": summary.median}
    return {**scores, "sets": len(summary.ap)}


def is_official(source: Path) -> bool:
    """Whether predictions are COCO results: a folder of them, or one set's file."""
    return source.is_dir() or _OFFICIAL.fullmatch(source.name) is not None


def score_official(dataset: SeginwDataset, source: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The scores of official results, and the files that are missing: their sets have none.

    Args:
        source: see `is_official`.

    Raises:
        BadInput: no such file, one of a set that SegInW and the data do not have, or a result that
            is broken or fits nothing: one line with the file and the result's place.
    """
    found = {_OFFICIAL.fullmatch(f.name): f for f in _candidates(source)}
    by_set = {match[1]: file for match, file in found.items() if match}
    if not by_set.keys() & dataset.sets.keys():
        raise BadInput(f"{source}: no seginw_<Name>_val.json of {', '.join(dataset.sets)}")
    for name, file in by_set.items():
        if name not in dataset.sets and name not in SETS:
            raise BadInput(f"{file}: the data has no set {name!r}")
    values = {
        name: ap.average_precision(truth, *_results(by_set.get(name)))
        for name, truth in dataset.sets.items()
    }
    missing = tuple(f"seginw_{name}_val.json" for name in dataset.sets if name not in by_set)
    return numbers(ap.summarize(values)), missing


def _candidates(source: Path) -> list[Path]:
    try:
        return sorted(source.iterdir()) if source.is_dir() else [source]
    except OSError as error:
        raise BadInput(f"cannot read {source}: {error.strerror}") from error


def _results(file: Path | None) -> tuple[list[Any], str]:
    """The results of a file, and how errors name it; none where there is no file."""
    if file is None:
        return [], ""
    results = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(results, list):
        raise BadInput(f"{file}: COCO results are a list, found {type(results).__name__}")
    return results, str(file)
