"""The summary as text."""

from rsvp.evaluation.report.text import format_summary
from rsvp.evaluation.stats import Interval
from rsvp.evaluation.summary import Duration, GroupSummary, Summary

SCORE = Interval(0.6512, 0.6, 0.7)
SUMMARY = Summary(
    n=500,
    failed=3,
    giou=SCORE,
    ciou=Interval(0.7, 0.65, 0.75),
    by_kind={
        "name": GroupSummary(n=300, giou=SCORE, ciou=SCORE),
        "attribute": GroupSummary(n=200, giou=SCORE, ciou=SCORE),
    },
    by_tag={"unseen": GroupSummary(n=90, giou=Interval(0.5, 0.4, 0.6), ciou=SCORE)},
    oracle=Interval(0.9, 0.88, 0.92),
    box_recall=Interval(0.72, 0.7, 0.74),
    box_to_mask=None,
    absent_detected=Interval(0.95, 0.9, 1.0),
    false_absent=Interval(0.04, 0.02, 0.06),
    seconds={"reason": Duration(mean=0.4, p95=0.61), "total": Duration(mean=0.5, p95=0.7)},
)


def test_the_table_as_it_is_printed():
    assert format_summary(SUMMARY) == (
        "500 samples, 3 failed; mean [95 % bootstrap interval]\n"
        "\n"
        "                n  gIoU                    cIoU\n"
        "overall       500  0.651 [0.600, 0.700]    0.700 [0.650, 0.750]\n"
        "name          300  0.651 [0.600, 0.700]    0.651 [0.600, 0.700]\n"
        "attribute     200  0.651 [0.600, 0.700]    0.651 [0.600, 0.700]\n"
        "unseen         90  0.500 [0.400, 0.600]    0.651 [0.600, 0.700]\n"
        "\n"
        "oracle gIoU (true boxes)          0.900 [0.880, 0.920]\n"
        "reasoner's box recall at IoU 0.5  0.720 [0.700, 0.740]\n"
        "absent detected                   0.950 [0.900, 1.000]\n"
        "false absents                     0.040 [0.020, 0.060]\n"
        "\n"
        "seconds a sample      mean       p95\n"
        "reason               0.400     0.610\n"
        "total                0.500     0.700"
    )


def test_numbers_that_a_run_does_not_have_are_left_out():
    nothing = Summary(n=0, failed=0)
    assert format_summary(nothing) == "0 samples, 0 failed; mean [95 % bootstrap interval]"
