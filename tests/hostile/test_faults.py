"""300 samples of `rsvp eval` with a server of which 30 % of the answers are faults, of 80 kinds.

`pytest -m hostile tests/hostile/test_faults.py -s` prints the figures of docs/security.md.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import faults
import pytest
from raw_server import raw_server

from rsvp.cli.main import main
from rsvp.embedded import scenes

SAMPLES, SHARE = 300, 0.3
# How a line begins that says why a sample failed.
CLEAR = ("openai:m at http://127.0.0.1:", "none of the MLLM's ", "the MLLM's reply cannot be read")


class FaultyServer:
    """Answers, or fails in the next of all ways; which request fails is the seed's choice."""

    def __init__(self, other: str, share: float, seed: int = 0) -> None:
        self.faults = list(faults.faults(other).items())
        self.share, self.random, self.lock = share, random.Random(seed), threading.Lock()
        self.requests = 0
        self.sent: Counter[str] = Counter()

    def __call__(self, _: bytes) -> Iterable[bytes]:
        with self.lock:
            self.requests += 1
            if self.random.random() >= self.share:
                return [self.random.choice([faults.whole(), faults.STREAMED])]
            name, fault = self.faults[self.sent.total() % len(self.faults)]
            self.sent[name] += 1
        return fault()


@pytest.mark.hostile
def test_every_sample_is_answered_or_fails_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("rsvp.mllm.openai.sleep", pauses.append)
    monkeypatch.setenv("OPENAI_API_KEY", faults.KEY)
    made = ["--n", str(SAMPLES), "--seed", "5", "--size", "96", "--out", str(tmp_path / "data")]
    assert scenes.main(made) == 0
    options = [f"--option={o}" for o in ("timeout=1", "deadline=4", "max_tokens=1024")]
    started = time.monotonic()
    with raw_server(lambda _: [faults.whole()]) as other:
        faulty = FaultyServer(other.url, SHARE)
        with raw_server(faulty) as server:
            url = server.url.replace("//", f"//me:{faults.PASSWORD}@")
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            words = ["eval", "scenes", "--data", str(tmp_path / "data"), "--mllm", "openai:m"]
            words += ["--segmenter", "box", "--strategy", "boxes", "--frame", "0-1000"]
            code = main([*words, *options, "--out", str(tmp_path / "run"), "--debug", "--json"])
    seconds = time.monotonic() - started
    out, err = capfd.readouterr()
    lines = (tmp_path / "run/records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    failed = [record["failure"] for record in records if record["failure"]]
    figures = {
        "samples": len(records),
        "answered": len(records) - len(failed),
        "failed": len(failed),
        "requests": faulty.requests,
        "faults": faulty.sent.total(),
        "kinds": len(faulty.sent),
        "pauses_s": round(sum(pauses)),
        "seconds": round(seconds),
        "errors": Counter(failure["error"] for failure in failed),
    }
    with capfd.disabled():
        print(json.dumps(figures, indent=2))

    assert code == 0
    assert "Traceback" not in out + err
    assert "unexpected" not in out + err
    assert len({record["id"] for record in records}) == len(records) == SAMPLES
    assert {failure["error"] for failure in failed} <= {"MLLMFailed", "UnparsableReply"}
    for failure in failed:
        assert failure["message"].startswith(CLEAR)
        assert len(failure["message"]) < 600
        assert failure["message"].isprintable()
    assert all(record["failure"] or record["masks"] for record in records)
    assert len(faulty.sent) == len(faulty.faults) >= 60
    assert other.heads == []
    assert max(pauses) < 61
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    for secret in (faults.KEY, faults.PASSWORD):
        assert secret not in out + err
        assert not any(secret.encode() in content for content in written)
