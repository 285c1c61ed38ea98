"""32 clients and 2,000 requests on `rsvp serve`: valid, broken, huge, slow, half-closed, attacks.

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.pipeline import Pipeline
from rsvp.writers.common import png

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
sys.path.append(str(Path(__file__).parents[1] / "serving"))
from test_api import ATTACKS

pytestmark = pytest.mark.hostile

CLIENTS, REQUESTS, PICTURES, ROUNDS = 32, 2000, 4, 5
KINDS = {"valid": 60, "broken": 10, "huge": 10, "slow": 5, "half-closed": 10, "attack": 5}  # %
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
        """The status; 200 with other masks than the Python API's is counted as wrong."""
        started, picture = time.perf_counter(), number % PICTURES
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/segment", self.bodies[picture], headers)
        response = connection.getresponse()
        found = json.loads(response.read())
        connection.close()
        if response.status == 200:
            with self.lock:
                self.seconds.append(time.perf_counter() - started)
                self.wrong += found["targets"] != self.masks[picture]
        return response.status

    def attack(self, method: str, path: str, sent: dict[str, Any]) -> int:
        """The status of one of the attacks of tests/serving/test_api.py."""
        headers = {"Content-Type": "application/json"} if "json" in sent else {}
        body = json.dumps(sent["json"]).encode() if "json" in sent else sent.get("content")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(
                method, quote(path, safe="/%?=.:"), body, {**headers, **sent.get("headers", {})}
            )
            return connection.getresponse().status

    def many(
        self, requests: int, clients: int, call: Callable[[int], Any]
    ) -> tuple[list[Any], float]:
        """What a call for each request returns, from so many clients, and the seconds of all."""
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            found = list(pool.map(call, range(requests)))
        return found, time.perf_counter() - started

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
        elif kind == "attack":
            status = self.attack(*ATTACKS[number % len(ATTACKS)])
        else:
            status = exchange(self.port, head % 1000 + b'{"image": "', shut=True)
        with self.lock:
            self.statuses[kind, status] += 1


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[Any], int]]:
    """A server and its port; it has ended in order and its log is empty."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--mllm", "none", "--segmenter", "sam2:embedded", "--quiet", "--max-mb", "2"]
    words = [sys.executable, "-m", "rsvp", "serve", "--port", str(port), *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None
            time.sleep(0.2)
        yield process, port
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == 0
    assert (folder / "log").read_text() == ""


def test_valid_requests_are_answered_right_among_all_others(tmp_path: Path) -> None:
    images = pictures()
    pipeline = Pipeline.from_preset(mllm="none", segmenter="sam2:embedded")
    pipeline.keep_images(PICTURES)  # as the server does
    masks = [pipeline.segment(image, "it", [BOX]).to_dict()["targets"] for image in images]
    bodies = [
        json.dumps({"image": base64.b64encode(i).decode(), "query": "it", "boxes": [BOX]}).encode()
        for i in images
    ]
    with serving(tmp_path) as (process, port):
        load, ratios = Load(port, bodies, masks), {1: [], CLIENTS: []}
        load.many(2 * CLIENTS, CLIENTS, load.valid)
        for _ in range(ROUNDS):  # side by side: the machine has other work
            _, bare = load.many(
                2 * CLIENTS,
                1,
                lambda n: pipeline.segment(images[n % PICTURES], "it", [BOX]).to_dict(),
            )
            for clients, found in ratios.items():
                found.append(bare / load.many(2 * CLIENTS, clients, load.valid)[1])
        load.seconds.clear()
        held = memory(process)
        _, seconds = load.many(REQUESTS, CLIENTS, load.send)
        grown, quantiles = memory(process) - held, statistics.quantiles(load.seconds, n=100)
        burst = Counter(load.many(3 * CLIENTS, 3 * CLIENTS, load.valid)[0])
    speeds = {n: f"{statistics.median(found):.2f}" for n, found in ratios.items()}
    print(
        f"\n{REQUESTS} requests in {seconds:.1f} s, {len(load.seconds) / seconds:.1f} valid/s, "
        f"p50 {quantiles[49]:.2f} s, p99 {quantiles[98]:.2f} s; memory {held} MB, {grown:+} MB; "
        f"{dict(load.statuses)}; speed by clients beside the bare pipeline {speeds}; "
        f"{3 * CLIENTS} at once: {dict(burst)}"
    )
    found: dict[str, set[int]] = {}
    for kind, status in load.statuses:
        found.setdefault(kind, set()).add(status)
    assert load.wrong == 0
    assert found["valid"] == {200}
    assert found["broken"] == {400}
    assert found["huge"] <= {413, 0}
    assert found["slow"] == {422}
    assert found["half-closed"] <= {400, 408, 0}
    assert all(400 <= status < 500 for status in found["attack"])
    assert burst.keys() == {200, 503}
    assert grown < 100
    assert statistics.median(ratios[CLIENTS]) >= 0.9
