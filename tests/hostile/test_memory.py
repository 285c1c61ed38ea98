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
        (("decode", "rgba16", 14_000), 1_700),
        (("decode", "scans", 5_000), 100),
        (("segment", "boxes+box", 30, 1), 800),
        (("segment", "boxes+box", 30, 300), 700),
        (("segment", "marks+sam2:embedded", 30, 1), 1_100),
        (("segment", "marks:masks+sam2:embedded", 30, 1), 1_100),
    ],
)
def test_peak_memory(case: tuple[object, ...], megabytes: int) -> None:
    seen = memory.run(*case)
    print(f"\n{case}: {seen}")
    assert seen["mb"] < megabytes
