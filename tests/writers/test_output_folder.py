"""`--out` of somebody who has files there: only those of an earlier result are ever replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_writers import result

from rsvp import writers
from rsvp.cli.main import main
from rsvp.errors import BadInput
from rsvp.platform.files import locked

ONE, THREE = result((0, 0, 5, 5)), result((0, 0, 5, 5), (5, 5, 9, 9), (9, 9, 12, 12))
HOLDS_IT = """
import sys, time
from pathlib import Path
from rsvp.platform.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def nine_masks(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number in range(9):
        (folder / f"{number:03d}.png").write_bytes(b"mine")
    return folder


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("earlier", [None, "{}", "[" * 100_000, "a result"])
def test_masks_of_somebody_else_are_kept(tmp_path: Path, linked: bool, earlier: str | None) -> None:
    out = tmp_path / "out"
    mine = nine_masks(tmp_path / "photos" if linked else out / "masks")
    out.mkdir(exist_ok=True)
    if linked:
        (out / "masks").symlink_to(mine, target_is_directory=True)
    if earlier == "a result":
        earlier = json.dumps(result().to_dict())  # without targets: it accounts for no mask
    if earlier is not None:
        (out / "result.json").write_text(earlier)
    before = contents(tmp_path)
    with pytest.raises(BadInput, match=r"belongs to no earlier result|is a link"):
        writers.write(ONE, out, ["json", "png"])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["result.json", "overlay.png", "masks/000.png"])
def test_the_command_refuses_before_it_asks(tmp_path: Path, name: str, capsys) -> None:
    from PIL import Image as Pil

    Pil.new("RGB", (40, 30)).save(tmp_path / "a.png")
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    words = ["segment", "--image", str(tmp_path / "a.png"), "--query", "cup", "--out"]
    assert main([*words, str(tmp_path / "out"), "--mllm", "replay:missing", "--json"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"error: {file} belongs to no earlier result of rsvp; choose another folder or move it\n"
    )
    assert contents(tmp_path / "out") == {name: b"mine"}


def test_what_an_earlier_result_accounts_for_is_replaced(tmp_path: Path) -> None:
    writers.write(THREE, tmp_path)
    (tmp_path / "masks" / "003.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    writers.write(ONE, tmp_path, ["png", "coco"])
    assert sorted(contents(tmp_path)) == [
        "coco.json", "masks/000.png", "masks/003.png", "notes.txt", "overlay.png", "result.json",
    ]  # fmt: skip
    assert len(json.loads((tmp_path / "result.json").read_text())["targets"]) == 1
    writers.write(THREE, tmp_path, ["png"])
    four = result(*[(0, 0, 5, 5)] * 4)
    with pytest.raises(BadInput, match=r"003\.png belongs to no earlier result"):
        writers.write(four, tmp_path)
    assert len(json.loads((tmp_path / "result.json").read_text())["targets"]) == 3


def test_a_label_file_of_another_image_is_not_replaced(tmp_path: Path) -> None:
    writers.write(ONE, tmp_path, ["json", "yolo"])
    writers.write(THREE, tmp_path, ["json", "yolo"])
    (tmp_path / "labels" / "garden.txt").write_bytes(b"mine")
    other = result(image=type(ONE.image)(ONE.image.rgb, ONE.image.sha256, "garden.png"))
    with pytest.raises(BadInput, match=r"garden\.txt belongs to no earlier result"):
        writers.write(other, tmp_path, ["json", "yolo"])


@pytest.fixture
def other_process(tmp_path: Path):
    """A process that holds the lock of `tmp_path / "out"`."""
    words = [sys.executable, "-c", HOLDS_IT, str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_two_processes_on_one_folder(tmp_path: Path, other_process) -> None:
    with pytest.raises(BadInput, match=r"another rsvp is at work in .*out; wait"):
        ONE.save(str(tmp_path / "out"))
    assert contents(tmp_path) == {}
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    ONE.save(str(tmp_path / "out"))
    assert (tmp_path / "out" / "result.json").is_file()


def test_a_forked_child_that_outlives_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    """As the data loaders of a training run do for some seconds."""
    code = HOLDS_IT.replace('    print("', '    import os; os.fork() or time.sleep(60); print("')
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"locked\n"
        try:
            process.kill()
            process.wait()
            with locked(tmp_path):
                time.sleep(0)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(BadInput), locked(tmp_path / "out"):
        pass
    with locked(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []
