"""20 SIGKILLs at random moments and the end: `pytest -m hostile tests/hostile/test_kills.py`.

With PHOTOS=FOLDER `-k mixed` is a batch of 500 scenes, photographs and broken files, and 10 kills.
A command is killed, and started again into the same folder, until it ends; its files are then those
of a run that nobody killed, byte for byte but for the time that each stage took.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, Server, completion, refusal

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from rectangles import write_scenes

from rsvp.embedded import scenes

KILLS = 20
SAMPLES = 40
BROKEN = 20  # files in a batch that are cut short
BOX = [100, 100, 400, 600]

pytestmark = pytest.mark.hostile


def answer(request: dict[str, Any]) -> Answer:
    """After some time: 0 to 2 boxes by the number of the query; an error, or no answer at all."""
    (number,) = map(int, re.findall(r"^query (\d+)$", str(text_of(request)), re.M))
    time.sleep(random.Random(number).uniform(0, 0.4))
    if number % 10 == 7:
        return refusal(400, "no such thing") if number % 20 == 7 else completion("gibberish")
    targets = [{"label": "thing", "box": BOX}] * (number % 3)
    return completion(json.dumps({"targets": targets, "reason": "it fits"}))


def text_of(request: dict[str, Any]) -> str:
    content = request["messages"][1]["content"]
    return "\n".join(part.get("text", "") for part in content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    running.answers = [answer]
    running.http.handle_error = lambda *_: None  # of killed clients
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    yield running
    running.http.shutdown()
    running.http.server_close()


def untimed(file: Path) -> bytes:
    """The bytes of a file without times."""
    text = file.read_bytes()
    if file.name == "config.json":  # "environment" has the time and the free memory
        return json.dumps(json.loads(text)["run"]).encode()
    if file.suffix not in (".json", ".jsonl"):
        return text
    return re.sub(rb'"(seconds|timings)": ?\{[^{}]*(\{[^{}]*\}[^{}]*)*\}', b"", text)


def contents(folder: Path) -> dict[str, bytes]:
    """Whole files only; the report shows times."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix not in (".part", ".html")]
    return {str(path.relative_to(folder)): untimed(path) for path in kept}


def kill_again_and_again(
    command: Callable[[Path], list[str]],
    folder: Path,
    progress: Callable[[Path], int],
    code: int = 0,
    *,
    kills: int = KILLS,
) -> tuple[list[int], int]:
    """What had been written at each kill, and how many runs came to their end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "rsvp", *command(out)]
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)

    began, process = time.monotonic(), start(folder / "whole")
    while not progress(folder / "whole") and process.poll() is None:
        time.sleep(0.01)
    first = time.monotonic() - began  # until then Python imports modules
    assert process.wait() == code
    whole, last = contents(folder / "whole"), time.monotonic() - began
    total = progress(folder / "whole")
    rng, ended = random.Random(20), 0
    written: list[int] = []
    while len(written) < kills or (folder / f"killed{ended}").exists():
        out = folder / f"killed{ended}"
        began, before, process = time.monotonic(), progress(out), start(out)
        # After some more records; where all are there, at any time, or not at all.
        wanted = min(total, before + rng.randint(1, max(1, total // 4)))
        moment = rng.choice([rng.uniform(0.8 * first, last), math.inf]) if before >= total else 0.0
        while process.poll() is None and (
            len(written) == kills or time.monotonic() - began < moment or progress(out) < wanted
        ):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            written.append(progress(out))
            continue
        assert process.returncode == code
        assert contents(out) == whole
        ended += 1
        if not before:  # the machine is faster now than it was
            last = time.monotonic() - began
    return written, ended


def test_eval_is_resumed(tmp_path: Path, server: Server, capsys) -> None:
    data = write_scenes(tmp_path / "data", SAMPLES)
    models = ["--mllm", "openai:m", "--segmenter", "box", "--option", "max_retries=0"]

    def command(out: Path) -> list[str]:
        return ["eval", "scenes", "--data", str(data), "--out", str(out), *models, "--resume"]

    def records(out: Path) -> int:
        file = out / "records.jsonl"
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    written, ended = kill_again_and_again(command, tmp_path, records)
    needed = SAMPLES * (ended + 1)
    with capsys.disabled():
        print(
            f"\neval: {KILLS} kills after {written} of {SAMPLES} records; {ended} runs resumed to "
            f"the identical end; {len(server.requests)} requests where {needed} samples needed one"
        )
    assert ended >= 1


def mixed(folder: Path, count: int) -> Path:
    """Rendered scenes and as many photographs of the folder PHOTOS, in folders of their own."""
    photos = sorted(Path(os.environ.get("PHOTOS", folder)).glob("*.jpg"))[-(count // 2) :]
    if not photos:
        pytest.skip("PHOTOS names no folder of photographs")
    scenes.main(["--n", str(count - len(photos)), "--seed", "77000", "--out", str(folder)])
    (folder / "photos").mkdir()
    for photo in photos:
        (folder / "photos" / photo.name).symlink_to(photo.resolve())
    return folder


BATCHES: dict[str, tuple[Callable[[Path, int], Path], int, int, str, int]] = {
    "scenes": (write_scenes, SAMPLES, 3, "box", KILLS),
    "mixed": (mixed, 500 - BROKEN, 1, "sam2:embedded", 10),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batch_is_resumed(tmp_path: Path, server: Server, name: str, capsys) -> None:
    make, samples, queries, segmenter, kills = BATCHES[name]
    data = make(tmp_path / "data", samples)
    whole_files = sorted(path for path in data.rglob("*") if path.suffix in (".png", ".jpg"))
    for number, file in enumerate(whole_files[:: samples // BROKEN][:BROKEN]):
        file.with_stem(f"{file.stem}-broken").write_bytes(file.read_bytes()[: 3 * number])
    models = ["--mllm", "openai:m", "--segmenter", segmenter, "--option", "max_retries=0"]
    asked_words = [word for i in range(queries) for word in ("--query", f"query {i + 4}")]

    def command(out: Path) -> list[str]:
        words = ["batch", "--input", str(data), *asked_words, "--out", str(out), *models]
        return [*words, "--resume", "--format", "coco,yolo,labelme"]

    def records(out: Path) -> int:
        file = out / "results.jsonl"
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    written, ended = kill_again_and_again(command, tmp_path, records, 2, kills=kills)
    asked, whole = queries * (samples + BROKEN), contents(tmp_path / "whole")
    images = json.loads(whole["coco.json"])["images"]
    with capsys.disabled():
        print(
            f"\nbatch {name}: {kills} kills after {written} of {asked} records, "
            f"{queries * BROKEN} of them failures; {ended} runs resumed to the identical end of "
            f"{len(whole)} files; {len(server.requests)} requests where "
            f"{queries * samples * (ended + 1)} queries needed one"
        )
    assert ended >= 1
    assert len(images) == samples
    assert whole["results.jsonl"].count(b'"error"') == queries * BROKEN


def test_segment_is_repeated(tmp_path: Path, capsys) -> None:
    image = write_scenes(tmp_path / "data", 1) / "000.png"
    boxes = [word for i in range(8) for word in ("--box", f"{i},{i},{i + 9},{i + 9}")]
    formats = "json,overlay,png,index,coco,labelme,yolo"

    def command(out: Path) -> list[str]:
        words = ["segment", "--image", str(image), *boxes, "--segmenter", "box"]
        return [*words, "--format", formats, "--out", str(out)]

    def files(out: Path) -> int:
        return sum(path.is_file() for path in out.rglob("*"))

    written, ended = kill_again_and_again(command, tmp_path, files)
    with capsys.disabled():
        print(
            f"\nsegment: {KILLS} kills after {written} of {files(tmp_path / 'whole')} files; "
            f"{ended} repeated runs came to the identical end"
        )
    assert ended >= 1
