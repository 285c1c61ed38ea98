"""Reasoner and segmenter at work at the same time: the same records, sooner."""

import asyncio
import json
import random
import threading
import time
from types import SimpleNamespace

import pytest
from rectangles import write_scenes
from staged import Filler, Server, pipeline

from rsvp.errors import BadInput, MLLMFailed, ModelUnavailable
from rsvp.evaluation.engines import local
from rsvp.evaluation.engines.local import LocalEngine
from rsvp.evaluation.records import read_records
from rsvp.evaluation.runner import evaluate


@pytest.fixture
def scenes12(tmp_path):
    return write_scenes(tmp_path / "data", 12)


def run(data, out, pipe=None, **options):
    return evaluate("scenes", data, pipe or pipeline(), out, progress=False, **options)


def records_in(out):
    lines = (out / "records.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def untimed(summary):
    return {**summary.to_dict(), "seconds": None}


def jittered(number):
    """Seconds by which replies come back in another order than they were asked for."""
    return random.Random(number).uniform(0, 0.05)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_overlapped_records_and_summary_are_those_of_one_thing_after_another(
    scenes12, tmp_path, concurrency
):
    trouble = {3: "gibberish", 7: MLLMFailed("the server is down"), 8: "{"}
    expected = run(scenes12, tmp_path / "turns", pipeline(Server(0, trouble)), concurrency=0)
    assert expected.failed == 3
    pipe = pipeline(Server(jittered, trouble))
    found = run(scenes12, tmp_path / "overlap", pipe, concurrency=concurrency)
    assert records_in(tmp_path / "overlap") == records_in(tmp_path / "turns")
    assert untimed(found) == untimed(expected)


def test_no_more_questions_at_once_than_asked_for(scenes12, tmp_path):
    server = Server(0.02)
    run(scenes12, tmp_path / "out", pipeline(server), concurrency=3)
    assert server.busiest == 3
    assert sorted(server.asked) == list(range(12))


def test_a_server_gets_several_questions_at_once_by_default(scenes12, tmp_path):
    server = Server(0.02)
    run(scenes12, tmp_path / "remote", pipeline(server))
    assert server.busiest > 1
    here = Server(0.002)
    here.remote = False
    run(scenes12, tmp_path / "local", pipeline(here))
    assert here.busiest == 1
    one = Server(0.002)
    run(scenes12, tmp_path / "one", pipeline(one), concurrency=0)
    assert one.busiest == 1


def test_a_slow_segmenter_does_not_let_images_pile_up(scenes12, tmp_path):
    """The reasoner, done at once, is at most a window ahead of the segmenter."""
    server, filler = Server(), Filler(0.01)
    ahead = []
    ask = server.reply

    def reply(messages, *, schema=None):
        ahead.append(len(server.asked) - filler.encoded)
        return ask(messages, schema=schema)

    server.reply = reply
    run(scenes12, tmp_path / "out", pipeline(server, filler), concurrency=2, oracle=False)
    assert max(ahead) <= 12 // 3 + 5  # every third sample never meets the segmenter


def test_timings_leave_out_the_wait_for_ones_turn(scenes12, tmp_path):
    """All are reasoned about at once; the last one waits until the segmenter has done the others:
    more than a second."""
    run(scenes12, tmp_path / "out", pipeline(Server(), Filler(0.1)), concurrency=12)
    for record in read_records(tmp_path / "out" / "records.jsonl"):
        assert record["seconds"]["total"] < 0.6
        assert "reason" in record["seconds"]


def test_a_missing_model_ends_the_run_and_every_thread(scenes12, tmp_path):
    before = threading.active_count()
    server = Server(jittered, {5: ModelUnavailable("no weights")})
    with pytest.raises(ModelUnavailable, match="no weights"):
        run(scenes12, tmp_path / "out", pipeline(server), concurrency=4)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # a question that is given up ends with its reply
    assert threading.active_count() == before


def test_questions_underway_are_given_up_when_the_run_ends(scenes12, tmp_path):
    """Ctrl-C does not wait for a server that takes a minute."""
    server = Server(lambda number: 60 if number else 0, {0: ModelUnavailable("gone")})
    started = time.perf_counter()
    with pytest.raises(ModelUnavailable):
        run(scenes12, tmp_path / "out", pipeline(server), concurrency=4)
    assert time.perf_counter() - started < 5


def test_it_runs_inside_somebody_elses_event_loop(scenes12, tmp_path):
    async def notebook():
        return run(scenes12, tmp_path / "out", concurrency=2)

    assert asyncio.run(notebook()).n == 12


def test_a_paid_reply_is_written_though_an_earlier_one_is_still_awaited(scenes12, tmp_path):
    server = Server(lambda number: 0.3 if number == 0 else 0, {1: "gibberish"})
    work_seen = []

    def watched(work):
        for record in LocalEngine(pipeline(server), 4)(work):
            work_seen.append(record.id)
            yield record

    run(scenes12, tmp_path / "out", pipeline(server), engine=watched)
    assert work_seen[-1] == "000/0"
    assert [r["id"] for r in records_in(tmp_path / "out")] == sorted(work_seen)


def test_failed_samples_are_asked_again_and_only_they(scenes12, tmp_path):
    trouble = {4: MLLMFailed("overloaded"), 9: "gibberish"}
    first = run(scenes12, tmp_path / "out", pipeline(Server(0, trouble)))
    assert first.failed == 2
    server = Server()
    retried = run(scenes12, tmp_path / "out", pipeline(server), retry_failed=True)
    assert sorted(server.asked) == [4, 9]
    whole = run(scenes12, tmp_path / "whole", pipeline(Server()))
    assert untimed(retried) == untimed(whole)
    assert records_in(tmp_path / "out") == records_in(tmp_path / "whole")


def test_a_concurrency_below_nothing_is_refused(scenes12, tmp_path):
    with pytest.raises(BadInput, match="0 or more, found -1"):
        run(scenes12, tmp_path / "out", concurrency=-1)
    assert not (tmp_path / "out").exists()


@pytest.mark.benchmarks
def test_sixteen_slow_questions_at_once_cost_no_more_than_the_segmenter(tmp_path):
    """A reasoner of 1 s a call, a segmenter of 0.1 s a sample."""
    data = write_scenes(tmp_path / "data", 150)
    filler = Filler(0.1)
    started = time.perf_counter()
    run(data, tmp_path / "out", pipeline(Server(1.0), filler), concurrency=16, oracle=False)
    wall = time.perf_counter() - started
    print(f"wall {wall:.2f} s, segmenter {filler.worked:.2f} s, ratio {wall / filler.worked:.3f}")
    assert wall <= 1.15 * filler.worked


def test_a_closed_pool_waits_for_all_threads_together(monkeypatch):
    waits, pool = [], local.ThreadPool(8, "test", print)
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: sum(waits)))
    monkeypatch.setattr(threading.Thread, "join", lambda _, seconds: waits.append(seconds))
    pool.close(0.5)
    assert waits == [0.5, *[0.0] * 7]
