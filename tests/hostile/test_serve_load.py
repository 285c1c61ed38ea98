"""32 clients and 500 requests on `rsvp serve`: valid, broken, huge, slow and half-closed ones.

`pytest -m hostile tests/hostile/test_serve_load.py -s` prints the figures of docs/serve.md.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.pipeline import Pipeline
from rsvp.writers.common import png

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
pytestmark = pytest.mark.hostile

CLIENTS, REQUESTS, PICTURES = 32, 500, 4
KINDS = {"valid": 60, "broken": 15, "huge": 10, "slow": 5, "half-closed": 10}  # percent
BOX = [60, 40, 200, 180]
DEMO = Path(__file__).parents[2] / "rsvp/embedded/demo.png"


def pictures() -> list[bytes]:
    demo = np.asarray(Pil.open(DEMO).convert("RGB"))
    return [png(np.ascontiguousarray(np.roll(demo, 37 * n, axis=1))) for n in range(PICTURES)]


def memory(process: subprocess.Popen[Any]) -> int:
    """MB of a process, as Linux counts them."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) >> 10


def exchange(port: int, *parts: bytes, pause: float = 0.0, shut: bool = False) -> int:
    """The status of a request sent in parts; 0 where the server closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        with contextlib.suppress(OSError):  # the server has refused the rest
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if shut:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            found = re.match(rb"HTTP/1.1 (\d+)", connection.recv(4096))
            return int(found[1]) if found else 0
    return 0


class Load:
    """Sends requests of one kind each; keeps statuses, seconds and wrong answers."""

    def __init__(self, port: int, bodies: list[bytes], masks: list[list[dict]]) -> None:
        self.port, self.bodies, self.masks = port, bodies, masks
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.seconds: list[float] = []
        self.wrong, self.lock = 0, threading.Lock()

    def valid(self, number: int) -> int:
        started, picture = time.perf_counter(), number % PICTURES
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/segment", self.bodies[picture], headers)
        response = connection.getresponse()
        found = json.loads(response.read())
        connection.close()
        with self.lock:
            self.seconds.append(time.perf_counter() - started)
            self.wrong += found.get("targets") != self.masks[picture]
        return response.status

    def send(self, number: int) -> None:
        kind = random.Random(number).choices([*KINDS], [*KINDS.values()])[0]
        start = (
            b"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        )
        head = start + b"Content-Length: %d\r\n\r\n"
        if kind == "valid":
            status = self.valid(number)
        elif kind == "broken":
            status = exchange(self.port, head % 5 + b'{"a":')
        elif kind == "huge":
            chunk = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
            status = exchange(
                self.port, start + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 3
            )
        elif kind == "slow":
            status = exchange(self.port, head % 5, b"{", b"}", b"   ", pause=0.5)
        else:
            status = exchange(self.port, head % 1000 + b'{"image": "', shut=True)
        with self.lock:
            self.statuses[kind, status] += 1


def test_valid_requests_are_answered_right_among_all_others(tmp_path: Path) -> None:
    images = pictures()
    pipeline = Pipeline.from_preset(mllm="none", segmenter="sam2:embedded")
    masks = [pipeline.segment(image, "it", [BOX]).to_dict()["targets"] for image in images]
    started = time.perf_counter()
    for number in range(40):
        pipeline.segment(images[number % PICTURES], "it", [BOX]).to_dict()
    bare = 40 / (time.perf_counter() - started)
    bodies = [
        json.dumps({"image": base64.b64encode(i).decode(), "query": "it", "boxes": [BOX]}).encode()
        for i in images
    ]
    options = ["--mllm", "none", "--segmenter", "sam2:embedded", "--port", "0", "--quiet"]
    limits = ["--max-mb", "2", "--waiting", "64"]
    words = [sys.executable, "-m", "rsvp", "serve", *options, *limits]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words[words.index("0")] = str(port)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None
            time.sleep(0.2)
        load = Load(port, bodies, masks)
        for number in range(8):
            load.valid(number)
        load.seconds.clear()
        started, held = time.perf_counter(), memory(process)
        for number in range(40):
            load.valid(number)
        alone = 40 / (time.perf_counter() - started)
        load.seconds.clear()
        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(load.send, range(REQUESTS)))
        seconds, grown = time.perf_counter() - started, memory(process) - held
    finally:
        process.terminate()
        process.wait(timeout=60)
    quantiles = statistics.quantiles(load.seconds, n=100)
    print(
        f"\nbare {bare:.1f}/s, one client {alone:.1f}/s; {REQUESTS} requests in {seconds:.1f} s, "
        f"{len(load.seconds) / seconds:.1f} valid/s, p50 {quantiles[49]:.2f} s, "
        f"p99 {quantiles[98]:.2f} s; memory {held} MB, {grown:+} MB; {dict(load.statuses)}"
    )
    assert load.wrong == 0
    assert {status for kind, status in load.statuses if kind == "valid"} == {200}
    assert {status for kind, status in load.statuses if kind == "broken"} == {400}
    assert {status for kind, status in load.statuses if kind == "huge"} <= {413, 0}
    assert {status for kind, status in load.statuses if kind == "slow"} == {422}
    assert {status for kind, status in load.statuses if kind == "half-closed"} <= {400, 408, 0}
    assert grown < 100
    assert process.returncode == 0
    assert (tmp_path / "log").read_text() == ""
