"""Ray Data on a cluster of two real nodes, of which one is killed on the way."""

import contextlib
import functools
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rectangles import write_scenes
from staged import Filler, Server, pipeline

from rsvp.errors import BadInput, MissingExtra, MLLMFailed, ModelUnavailable
from rsvp.evaluation.engines.ray import Pool, RayEngine
from rsvp.evaluation.runner import evaluate

HERE = Path(__file__).parent


def records_in(out):
    lines = (out / "records.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def slow_segmenter():
    return pipeline(filler=Filler(0.15))


def failing_reasoner():
    return pipeline(Server(0.02, {4: MLLMFailed("overloaded"), 9: "gibberish"}))


def missing_model():
    raise ModelUnavailable("there are no weights on this node")


def drive(address, data, out):
    """What the driver's own process does, once both nodes are there."""
    import ray

    ray.init(address, log_to_driver=False)
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        assert time.monotonic() < deadline, "the second node did not come up"
        time.sleep(0.2)
    ray.shutdown()
    half = Pool(2, cpus=0.5)  # the head alone has room for all four
    engine = RayEngine(failing_reasoner, slow_segmenter, half, half, address, concurrency=3)
    evaluate("scenes", data, failing_reasoner(), out, engine=engine, progress=False)


class Python:
    """A process that is killed with everything that it has started."""

    def __init__(self, log, *arguments, **environment):
        self.log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def running(self):
        return self._process.poll() is None

    def end(self):
        """The exit code, once it is done."""
        return self._process.wait(timeout=120)

    def kill(self):
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            for process in [first, *first.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()


@contextlib.contextmanager
def cluster(folder, environment):
    """The address of two nodes on loopback, and the second one, which a test may kill."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    start = ["-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=2", "--num-gpus=0"]
    start += ["--object-store-memory=100000000", "--disable-usage-stats"]
    head = Python(
        folder / "head",
        *start,
        "--head",
        f"--port={port}",
        "--include-dashboard=false",
        **environment,
    )
    nodes = [head]
    try:
        wait_for(port)
        nodes.append(Python(folder / "node", *start, f"--address={address}", **environment))
        yield address, nodes[1]
    finally:
        for node in reversed(nodes):
            node.kill()


def wait_for(port):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise AssertionError("ray start did not come up")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs several nodes on one machine")
def test_a_node_dies_and_every_sample_is_accounted_for(tmp_path):
    pytest.importorskip("ray")
    data, out = write_scenes(tmp_path / "data", 36), tmp_path / "ray"
    evaluate("scenes", data, failing_reasoner(), tmp_path / "local", progress=False)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with cluster(tmp_path, environment) as (address, other):
        code = "import sys, test_engine_ray as t; t.drive(sys.argv[1], *map(t.Path, sys.argv[2:]))"
        log = tmp_path / "driver"
        driver = Python(log, "-c", code, address, str(data), str(out), **environment)
        try:
            while driver.running() and written(out) < 6:
                time.sleep(0.1)
            done = written(out)
            other.kill()
            code = driver.end()
        finally:
            driver.kill()
    assert code == 0, log.read_text()
    assert 6 <= done < 36
    assert records_in(out) == records_in(tmp_path / "local")
    assert sum(record["failure"] is not None for record in records_in(out)) == 2


def written(out):
    file = out / "records.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_what_is_missing_on_a_node_or_in_the_cluster_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parents[1]), str(HERE)]))
    data = write_scenes(tmp_path / "data", 3)
    run = functools.partial(evaluate, "scenes", data, pipeline(), progress=False)
    shares = Pool(1, cpus=0.5), Pool(1, cpus=0.5)
    with pytest.raises(ModelUnavailable, match="no weights on this node"):
        run(tmp_path / "a", engine=RayEngine(missing_model, slow_segmenter, *shares))
    with pytest.raises(BadInput, match="the pools need 1000 GPUs, Ray has 0"):
        run(tmp_path / "b", engine=RayEngine(pipeline, pipeline, Pool(1, 0.5, 1000), Pool(1, 0.5)))


def test_ray_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    data = write_scenes(tmp_path / "data", 1)
    with pytest.raises(
        MissingExtra, match=r"--engine ray needs .*pip install 'rsvp-segmentation\[ray\]'"
    ):
        evaluate("scenes", data, pipeline(), tmp_path / "out", engine=RayEngine(pipeline, pipeline))


@pytest.mark.parametrize("shares", [(0, 1.0, 0.0), (1, -1.0, 0.0), (1, 1.0, -0.5)])
def test_a_pool_without_actors_or_with_negative_shares_is_refused(shares):
    with pytest.raises(BadInput, match="at least 1 actor"):
        Pool(*shares)
