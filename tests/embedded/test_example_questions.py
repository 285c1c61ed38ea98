"""The example questions of docs/questions.md, asked of the embedded preset."""

from __future__ import annotations

import demo_truth
import pytest

from rsvp.embedded import vocabulary
from rsvp.pipeline import Pipeline

# x and y of a pixel of each thing of the picture.
PLACES = {
    "bread": (105, 88),
    "knife": (250, 215),
    "banana": (402, 130),
    "dog": (112, 350),
    "small cup": (391, 290),
    "large cup": (408, 425),
}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_preset("embedded")


@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
@pytest.mark.parametrize(("question", "things"), vocabulary.examples().items())
def test_an_example_finds_what_the_page_says(
    pipeline: Pipeline, question: str, things: list[str]
) -> None:
    targets = pipeline.segment("demo", question).targets
    found = [name for t in targets for name, (x, y) in PLACES.items() if t.mask[y, x]]
    assert sorted(found) == sorted(things)
    assert len(targets) == len(things)


def test_there_are_thirty_examples() -> None:
    assert len(vocabulary.examples()) == 30
