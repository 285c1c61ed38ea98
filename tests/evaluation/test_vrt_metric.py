"""VRT-Bench's metric by hand, and against the dense computation that the official code does."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from rsvp.datasets.vrt import VrtObject, VrtTruth
from rsvp.errors import BadInput
from rsvp.evaluation.benchmarks.vrt import VrtScorer
from rsvp.evaluation.metrics import vrt
from rsvp.evaluation.stats import Interval
from rsvp.masks import encode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
SIZE = (20, 40)


def strip(start, stop):
    """Columns start to stop - 1, all rows."""
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[:, start:stop] = True
    return mask


def truth(reasoning=(), answer=(), classes=("#loc",), key="k"):
    reasoning, answer = (
        tuple(VrtObject("", encode_rle(mask)) for mask in masks) for masks in (reasoning, answer)
    )
    return VrtTruth(key, "Which?", classes, SIZE, reasoning, answer)


def scored(true, text, *masks):
    return vrt.score(true, text, [encode_rle(mask) for mask in masks])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a [SEG] b [SEG]</think><answer>c [SEG]</answer>", ([0, 1], [2])),
        ("[SEG]<answer>[SEG]\n[SEG]</answer>", ([0], [1, 2])),
        ("<answer></answer>[SEG]", ([], [])),  # after the answer: nobody's
        ("<answer>[SEG]</answer>[SEG]<answer>[SEG]</answer>", ([], [0])),  # only the first tag
        ("<think>[SEG]</think>", ([], [])),  # no answer: not even the reasoning counts
        ("<think>[SEG]</think><answer>[SEG]", ([], [])),  # nor with an open tag
        ("</answer>[SEG]<answer>[SEG]</answer>", ([0], [1])),
        ("<answer>[SEG]<answer>[SEG]</answer>[SEG]</answer>", ([], [0, 1])),
        ("<think>[seg] [SEG ]</think><answer>[SEG]</answer>", ([], [0])),
        ("", ([], [])),
    ],
)
def test_the_kth_seg_is_the_kth_mask(text, expected):
    assert vrt.seg_indices(text) == expected


def test_a_reply_that_never_closes_its_tags_is_read_at_once():
    assert vrt.seg_indices("<answer>[SEG]" * 50_000) == ([], [])


REPLY = "<think>[SEG] [SEG]</think><answer>[SEG]</answer>"


def test_numbers_worked_by_hand():
    # Of the reasoning: IoU 1 and 10/20; of the answer 8/12.
    true = truth([strip(0, 10), strip(20, 40)], [strip(10, 20)])
    found = scored(true, REPLY, strip(20, 30), strip(0, 10), strip(12, 22))
    assert found.reasoning.ious == (1.0, 0.5)
    assert found.answer.ious == (pytest.approx(8 / 12),)
    summary = vrt.summarize([found])
    # 0.5 is not above 0.5
    assert (summary["r_lq"].mean, summary["r_sq"].mean, summary["r_miou"].mean) == (0.5, 1.0, 0.75)
    assert (summary["a_lq"].mean, summary["a_miou"].mean) == (1.0, pytest.approx(8 / 12))
    assert summary["r_precision"].mean == 0.5


def test_reasoning_and_answer_are_matched_apart():
    true = truth([strip(0, 10)], [strip(20, 30)])
    found = scored(true, "<think>[SEG]</think><answer>[SEG]</answer>", strip(20, 30), strip(0, 10))
    assert (found.reasoning.ious, found.answer.ious) == ((0.0,), (0.0,))


def test_a_mask_is_matched_to_one_object_so_that_the_sum_is_largest():
    # Greedily the first mask would take the first object (0.9), leaving 0 for the second.
    masks = [strip(0, 18), strip(0, 10)]
    found = scored(truth([strip(0, 20), strip(10, 18)]), REPLY, *masks)
    assert found.reasoning.ious == (pytest.approx(0.5), pytest.approx(8 / 18))
    assert sum(found.reasoning.ious) > 0.9


def test_surplus_masks_are_free_but_for_precision():
    true = truth([strip(0, 10)], [strip(20, 30)])
    exact = scored(true, "[SEG]<answer>[SEG]</answer>", strip(0, 10), strip(20, 30))
    text = "[SEG][SEG][SEG]<answer>[SEG]</answer>"
    noisy = scored(true, text, strip(5, 25), strip(0, 10), strip(30, 40), strip(20, 30))
    assert exact.reasoning.ious == noisy.reasoning.ious == (1.0,)
    assert vrt.summarize([exact])["r_precision"].mean == 1
    assert vrt.summarize([noisy])["r_precision"].mean == pytest.approx(1 / 3)


def test_an_unmatched_object_scores_0_and_an_unanswered_sample_counts():
    true = truth([strip(0, 10), strip(20, 30)], [strip(0, 10)])
    half = scored(true, "[SEG]<answer></answer>", strip(20, 30))
    assert half.reasoning.ious == (0.0, 1.0)
    assert half.answer.ious == (0.0,)
    summary = vrt.summarize([half, vrt.score(true, "", [])])
    assert summary["n"] == 2
    assert summary["r_lq"].mean == 0.25
    assert (summary["r_sq"].mean, summary["a_sq"].mean, summary["a_miou"].mean) == (1.0, 0.0, 0.0)


def test_a_seg_beyond_the_masks_is_dropped():
    true = truth([strip(0, 10)], [strip(20, 30)])
    found = scored(true, "[SEG]<answer>[SEG] [SEG]</answer>", strip(0, 10), strip(20, 30))
    assert (found.answer.ious, found.answer.predicted) == ((1.0,), 1)


def test_two_empty_masks_have_no_iou():
    found = scored(truth([strip(0, 0)]), "[SEG]<answer></answer>", strip(0, 0))
    assert found.reasoning.ious == (0.0,)


def test_objects_are_pooled_over_samples_not_averaged_by_sample():
    one = scored(truth([strip(0, 10)]), "[SEG]<answer></answer>", strip(0, 10))
    three = vrt.score(truth([strip(0, 5), strip(5, 10), strip(10, 15)]), "", [])
    summary = vrt.summarize([one, three])
    assert summary["r_lq"].mean == 0.25
    assert summary["r_lq"].low == 0
    assert summary["r_lq"].high == 1


def test_a_sample_counts_in_each_of_its_classes():
    right = scored(
        truth([strip(0, 9)], classes=("#loc", "#comp")), "[SEG]<answer></answer>", strip(0, 9)
    )
    wrong = vrt.score(truth([strip(0, 9)], classes=("#loc",)), "", [])
    scorer = VrtScorer(None)
    for one in (right, wrong):
        scorer.append(one, one.classes)
    classes = scorer.by_kind()
    assert {name: (one["n"], one["r_lq"].mean) for name, one in classes.items()} == {
        "#comp": (1, 1.0),
        "#loc": (2, 0.5),
    }


def dense(predicted, true):
    """IoU, Hungarian and all, on whole arrays."""
    if not true or not predicted:
        return [0.0] * len(true)
    p, t = np.stack(predicted)[:, None], np.stack(true)[None]
    both, either = (p & t).sum(axis=(2, 3)), (p | t).sum(axis=(2, 3))
    matrix = np.zeros(both.shape, dtype=np.float32)
    np.divide(both, either, out=matrix, where=either > 0)
    ious = np.zeros(len(true))
    rows, columns = linear_sum_assignment(1 - matrix)
    ious[columns] = matrix[rows, columns]
    return ious.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_random_replies_score_as_on_whole_arrays(seed):
    rng = np.random.default_rng(seed)

    def some(n):
        corners = rng.integers(0, (2, 3), size=(n, 2)) * (9, 12)  # few places: many overlap
        masks = np.zeros((n, *SIZE), dtype=np.bool_)
        for mask, (y, x) in zip(masks, corners, strict=True):
            mask[y : y + rng.integers(6, 11), x : x + rng.integers(9, 15)] = True
        return list(masks)

    samples = []
    for _ in range(12):
        r, a, p, q = (some(rng.integers(0, 5)) for _ in range(4))
        text = f"<think>{'[SEG] ' * len(p)}</think><answer>{'[SEG]' * len(q)}</answer>"
        samples.append((scored(truth(r, a), text, *p, *q), dense(p, r), dense(q, a)))
    for found, reasoning, answer in samples:
        assert list(found.reasoning.ious) == reasoning
        assert list(found.answer.ious) == answer
    summary = vrt.summarize([found for found, *_ in samples])
    pooled = np.concatenate([reasoning for _, reasoning, _ in samples])
    assert summary["r_lq"].mean == pytest.approx((pooled > 0.5).mean(), abs=1e-12)
    assert (pooled > 0.5).any()
    assert summary["r_sq"].mean == pytest.approx(pooled[pooled > 0.5].mean(), abs=1e-12)
    answers = np.concatenate([answer for *_, answer in samples])
    assert summary["a_miou"].mean == pytest.approx(answers.mean(), abs=1e-12)


def test_a_broken_mask_is_refused_by_its_place():
    good, small = encode_rle(strip(0, 9)), {"size": [3, 3], "counts": [9]}
    with pytest.raises(BadInput, match=r"p\.jsonl: line 3: mask 1: the mask is of size \[3, 3\]"):
        vrt.score(truth(), "", [good, small], "p.jsonl: line 3")
    with pytest.raises(BadInput, match="k: mask 0: a mask is COCO RLE"):
        vrt.score(truth(), "", [7])


def test_the_published_scores_come_first():
    summary = vrt.summarize([vrt.score(truth([strip(0, 9)]), "", [])])
    assert list(summary)[:4] == ["n", "r_lq", "r_sq", "a_miou"]
    assert summary["r_lq"] == Interval(0.0, 0.0, 0.0)
    with pytest.raises(BadInput, match="at least one value"):
        vrt.summarize([])
