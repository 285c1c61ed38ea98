"""A full disk, and a second process in the run's folder."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from painted import FUSION
from runs import run

from rsvp.errors import BadInput
from rsvp.platform.files import locked


def limit_files(size: int) -> None:
    """A file of more bytes cannot be written, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 3_000, 100_000])
def test_a_full_disk_is_one_line(
    models: Path, painted_coco: Path, tmp_path: Path, size: int
) -> None:
    """No place for the configuration, the weights, the checkpoint."""
    fusion = [word for name, n in FUSION.items() for word in ("--fusion", f"{name}={n}")]
    words = [
        "train", "--data", f"coco:{painted_coco}", "--out", str(tmp_path / "run"),
        "--segmenter", f"sam2:{models / 'sam2'}", "--text-encoder", str(models / "bert"),
        "--steps", "1", "--batch", "2", "--precision", "no", "--device", "cpu", "--workers", "0",
        "--eval-every", "1", "--eval-pictures", "2", *fusion,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "rsvp", *words], preexec_fn=lambda: limit_files(size),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: cannot write ")
    assert line.endswith(": File too large")


def test_a_folder_in_which_another_run_is_at_work_is_refused(config, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BadInput, match="another rsvp is at work in "):
        run(config, tmp_path)
    assert list(tmp_path.iterdir()) == []
