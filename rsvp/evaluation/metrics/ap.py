"""Average precision of instance masks, as pycocotools counts it: SegInW's metric.

AP averages precision over recalls 0, 0.01 … 1, mask IoU thresholds 0.50, 0.55 … 0.95 and
categories, with the 100 best-scored predictions an image and category; here times 100. SegInW
reports its unweighted mean and median over the sets.

Source: T.-Y. Lin et al., Microsoft COCO (2014); pycocotools' `COCOeval`, which does the counting.
"""

from __future__ import annotations

import contextlib
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rsvp.datasets.instances import Instances, encode
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import is_number
from rsvp.evaluation.stats import mean_or_none

Json = Mapping[str, Any]

MAX_PREDICTIONS = 100


def average_precision(
    truth: Instances, results: Sequence[Json], where: str = "predictions"
) -> float | None:
    """Mask AP@[.50:.95] times 100 over all images of `truth`, those without annotations too.

    Args:
        results: COCO results, each with `image_id`, `category_id`, `segmentation` (RLE or polygons)
            and `score`. Of equal scores the one that comes first counts first.
        where: names the results in error messages, e.g. their file.

    Returns:
        0 to 100; None where `truth` has no object that counts.

    Raises:
        BadInput: a result refers to an unknown image or category, its score is not a number, or its
            mask is of another size.
    """
    expected = COCO()
    expected.dataset = _ground_truth(truth)
    predicted = COCO()
    predicted.dataset = {**expected.dataset, "annotations": _predictions(results, truth, where)}
    # pycocotools reports its progress on stdout, which is the result's.
    with contextlib.redirect_stdout(io.StringIO()):
        expected.createIndex()
        predicted.createIndex()
        evaluation = COCOeval(expected, predicted, "segm")
        # The other ranges and limits of COCO's table would be counted and thrown away.
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [MAX_PREDICTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    counted = precision[precision > -1]  # -1: no object of this category
    return 100 * float(np.mean(counted)) if counted.size else None


def summarize(ap: Mapping[str, float | None]) -> dict[str, Any]:
    """The AP of each set, and over the sets that have one the ``mean`` and ``median``.

    Args:
        ap: set -> AP times 100; None where the set has no object that counts.

    Returns:
        By name in the JSON; ``mean`` is an interval over sets, ``sets`` counts all of them.
    """
    if not ap:
        raise BadInput("a mean AP needs at least one set")
    known = [value for value in ap.values() if value is not None]
    return {
        "ap": dict(ap),
        "mean": mean_or_none(known),
        "median": statistics.median(known) if known else None,
        "sets": len(ap),
    }


def as_results(
    image_id: int, category_id: int, masks: Sequence[Json], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """A sample's prediction as COCO results, one a mask; of the scores AP sees only the order."""
    return [
        {"image_id": image_id, "category_id": category_id, "segmentation": dict(m), "score": s}
        for m, s in zip(masks, scores, strict=True)
    ]


def _ground_truth(truth: Instances) -> dict[str, Any]:
    """What COCOeval needs of the truth, as copies: it writes into what it is given.

    Ids stay as they are. (COCOeval takes a match with the annotation of id 0 for none. So do the
    official numbers.)
    """
    return {
        "images": [
            {"id": number, "height": one["height"], "width": one["width"]}
            for number, one in truth.images.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in truth.categories.items()],
        "annotations": [
            _annotation(truth, one, one["id"], f"{truth.file}: annotations {one['id']}")
            | {"iscrowd": int(bool(one.get("iscrowd")))}
            for one in truth.annotations
        ],
    }


def _predictions(results: Sequence[Json], truth: Instances, where: str) -> list[dict[str, Any]]:
    """The results as COCOeval wants them, numbered from 1; it takes an id 0 for none."""
    checked = []
    for place, result in enumerate(results):
        line = f"{where}: result {place}"
        _check(result, truth, line)
        annotation = _annotation(truth, result, place + 1, line)
        checked.append(annotation | {"score": float(result["score"])})
    return checked


def _annotation(truth: Instances, one: Json, number: int, where: str) -> dict[str, Any]:
    mask = encode(one["segmentation"], truth.size(one["image_id"]), where)
    return {
        "id": number,
        "image_id": one["image_id"],
        "category_id": one["category_id"],
        "segmentation": mask,
        "area": float(coco_mask.area(mask)),
        "iscrowd": 0,
    }


def _check(result: object, truth: Instances, where: str) -> None:
    if not isinstance(result, Mapping):
        raise BadInput(f"{where}: expected an object, found {type(result).__name__}")
    for name, known in (("image_id", truth.images), ("category_id", truth.categories)):
        value = result.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value not in known:
            raise BadInput(f"{where}: {name} {value!r} is not in {truth.file}")
    score = result.get("score")
    if not is_number(score):
        raise BadInput(f"{where}: the score is a number, found {score!r}")
    if "segmentation" not in result:
        raise BadInput(f"{where}: there is no segmentation")
