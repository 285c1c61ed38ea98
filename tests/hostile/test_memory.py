"""Peak memory of large images and many targets: `pytest -m hostile -s tests/hostile`.

`python -m tests.hostile.memory` prints the whole table.
"""

from __future__ import annotations

import pytest

from tests.hostile import memory

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize(
    ("case", "megabytes"),
    [
        (("decode", "jpeg", 5_500), 400),
        (("decode", "rgba16", 7_000), 600),  # a 14000x14000 one takes four times as much
        (("segment", "boxes", 30, 1), 900),
        (("segment", "boxes", 30, 300), 1_100),
        (("segment", "marks", 30, 1), 1_500),
        (("segment", "marks:masks", 30, 1), 1_500),
    ],
)
def test_peak_memory(case: tuple[object, ...], megabytes: int) -> None:
    seen = memory.run(*case)
    print(f"\n{case}: {seen}")
    assert seen["mb"] < megabytes
