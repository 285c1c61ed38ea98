"""The JSON API: what it gives equals the Python API, and what it refuses."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import Recorder, Script, answer, hold_until, pipeline
from served import CUP, IMAGE, PNG, TOKEN, make_client, untimed
from starlette.testclient import TestClient

from rsvp.errors import BudgetExceeded, MLLMFailed, ModelUnavailable
from rsvp.mllm import tell_written
from rsvp.pipeline import Pipeline
from rsvp.serving.app import make_app
from rsvp.serving.limits import ServeLimits
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.writers.document import ResultDocument

TRACE = json.dumps({
    "path": [{"text": "A cup.", "objects": [{"label": "cup", "box": [100, 100, 500, 500]}]}],
    "answer": "the cup", "answer_objects": [{"label": "cup", "box": [100, 100, 500, 500]}],
})  # fmt: skip
ANSWER = '{"reason": "I see it", "look": [], "answer": "red"}'
SEGMENT = {"image": IMAGE, "query": "the cup"}


def expected(call, *lines):
    return untimed(call(pipeline(*lines)).to_dict())


@pytest.mark.parametrize(
    "sent",
    [
        {"json": SEGMENT},
        {"json": {"image": f"data:image/png;base64,{IMAGE}", "question": "the cup"}},
        {"files": {"image": ("a.png", PNG)}, "data": {"query": "the cup"}},
    ],
    ids=["base64", "data-uri", "multipart"],
)
def test_masks_equal_those_of_the_python_api(client, sent) -> None:
    response = client.post("/v1/segment", **sent)
    assert response.status_code == 200
    assert untimed(response.json()) == expected(lambda p: p.segment(PNG, "the cup"), CUP)


@pytest.mark.parametrize(
    ("path", "body", "line", "call"),
    [
        ("answer", {"question": "which colour?", "choices": ["red", "blue"]}, ANSWER,
         lambda p: p.answer(PNG, "which colour?", ["red", "blue"])),
        ("trace", {"question": "what is it?"}, TRACE, lambda p: p.trace(PNG, "what is it?")),
        ("segment", {"boxes": [[10, 10, 50, 60]], "labels": ["cup"]}, CUP,
         lambda p: p.segment(PNG, boxes=[[10, 10, 50, 60]], labels=["cup"])),
        ("segment", {"query": "cup", "within": [0, 0, 60, 90]}, CUP,
         lambda p: p.segment(PNG, "cup", within=[0, 0, 60, 90])),
    ],
    ids=["answer", "trace", "boxes", "hint"],
)  # fmt: skip
def test_every_task_equals_the_python_api(path, body, line, call) -> None:
    with make_client(line) as client:
        response = client.post(f"/v1/{path}", json={"image": IMAGE, **body})
    assert untimed(response.json()) == expected(call, line)


def test_lists_in_a_form_are_json(client) -> None:
    data = {"boxes": "[[10, 10, 50, 60]]", "query": "[a] cup"}
    found = client.post("/v1/segment", files={"image": ("a.png", PNG)}, data=data).json()
    assert [(t["label"], t["box"]) for t in found["targets"]] == [("[a] cup", [10, 10, 50, 60])]


def test_an_image_is_encoded_once(client) -> None:
    for query in ("the cup", "the pan"):
        assert client.post("/v1/segment", json={**SEGMENT, "query": query}).status_code == 200
    assert len(client.pipeline.segmenter.encoded) == 1


def test_boxes_on_one_image_that_come_together_are_one_batch() -> None:
    bodies = [{"image": IMAGE, "boxes": [[10, 10, 50, 60 + n]]} for n in range(4)]

    def post(body):
        return untimed(client.post("/v1/segment", json=body).json())

    with make_client(limits=ServeLimits(running=4)) as client:
        alone = [post(body) for body in bodies]
        client.pipeline.segmenter.prompted.clear()
        hold_until(client.pipeline._cache, 4)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(post, bodies)) == alone
        assert [len(proposals) for proposals in client.pipeline.segmenter.prompted] == [4]


def test_verification_is_the_request_s_choice(client) -> None:
    replies = ['{"verdicts": [{"id": 1, "verdict": "accept", "reason": "right"}], "missing": []}']
    client.pipeline.mllm.lines = [CUP, *replies, CUP]
    rounds = [
        client.post("/v1/segment", json={**SEGMENT, **more}).json()["rounds"]
        for more in ({"verify": 1}, {})
    ]
    assert rounds == [1, 0]


def test_the_steps_come_before_the_masks(client) -> None:
    response = client.post("/v1/segment", json=SEGMENT, headers={"Accept": "text/event-stream"})
    events = [event.split("\n") for event in response.text.split("\n\n") if event]
    assert [lines[0] for lines in events] == ["event: steps", "event: result"]
    steps, result = (json.loads(lines[1].removeprefix("data: ")) for lines in events)
    assert steps["steps"][0]["text"] == "a cup stands there"
    assert untimed(result) == expected(lambda p: p.segment(PNG, "the cup"), CUP)


def test_steps_come_while_they_are_written() -> None:
    reply = answer([100, 200, 500, 800], steps=[{"text": "a cup stands there", "boxes": []}])

    class Streams(Script):
        def reply(self, messages, **options):
            for count in (15, 27, 30, len(reply)):
                tell_written(lambda count=count: reply[:count])
                time.sleep(0.11)  # longer than the pause between two events
            return super().reply(messages, **options)

    pipe = Pipeline(Streams(reply), BoxesStrategy(), Recorder())
    headers = {"Accept": "text/event-stream"}
    with TestClient(make_app(pipe), base_url="http://127.0.0.1") as client:
        text = client.post("/v1/segment", json=SEGMENT, headers=headers).text
    lines = [line[6:] for line in text.split("\n") if line.startswith('data: {"steps"')]
    steps = [[step["text"] for step in json.loads(line)["steps"]] for line in lines]
    assert steps == [
        ["a cup "], ["a cup sta"], ["a cup stands there", "it fits"], ["a cup stands there"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "status"), [("grid", 200), ("marks:sam3:/etc", 422), ("nothing", 422), ("", 422)]
)
def test_a_request_chooses_a_strategy_that_the_server_offers(strategy, status) -> None:
    bands = json.dumps({"steps": [], "targets": [{"label": "cup", "rows": [2], "columns": [3]}]})
    with make_client(bands) as client:
        assert client.get("/v1/pipeline").json()["strategies"] == ["boxes", "grid", "points"]
        response = client.post("/v1/segment", json={**SEGMENT, "strategy": strategy})
        assert response.status_code == status, response.text
        assert status != 200 or response.json()["models"]["strategy"] == "grid"
        assert client.pipeline.strategy.name == "boxes"


def test_a_failure_ends_the_stream_with_an_error() -> None:
    with make_client("no JSON") as client:
        sent = {"json": SEGMENT, "headers": {"Accept": "text/event-stream"}}
        assert '"type":"UnparsableReply"' in client.post("/v1/segment", **sent).text


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (MLLMFailed("cannot connect"), 502),
        (BudgetExceeded("spent"), 429),
        (ModelUnavailable("no key"), 503),
        (ZeroDivisionError("secret path /etc/x"), 500),
    ],
)
def test_failures_have_their_status_and_one_line(line, status) -> None:
    with make_client(line) as client:
        response = client.post("/v1/segment", json=SEGMENT)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert "/etc/x" not in response.text


def test_openapi_describes_requests_and_results(client) -> None:
    api = client.get("/openapi.json").json()
    segment = api["paths"]["/v1/segment"]["post"]
    assert set(segment["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert (
        "ResultDocument"
        in segment["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    )
    assert ResultDocument.__name__ in api["components"]["schemas"]
    assert client.get("/docs").status_code == 200


# ------------------------------------------------------------ limits


def test_health_and_metrics_need_no_model(client) -> None:
    client.post("/v1/segment", json=SEGMENT)
    client.get("/a/../..//etc/passwd")
    assert client.get("/health").json()["status"] == "UP"
    text = client.get("/metrics").text
    assert 'rsvp_requests_total{path="/v1/segment",status="200"} 1' in text
    assert 'rsvp_requests_total{path="other",status="404"} 1' in text
    assert len(client.pipeline.mllm.asked) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Token": TOKEN}, 200),
        ({"Authorization": "Basic " + base64.b64encode(f"x:{TOKEN}".encode()).decode()}, 200),
        ({}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": "Basic !!"}, 401),
        ({"Token": "", "Authorization": f"Bearer {TOKEN}"}, 401),
        ({"Cookie": f"token={TOKEN}"}, 401),
    ],
)
def test_only_who_brings_the_token_is_answered(headers, status) -> None:
    with make_client(token=TOKEN, base_url="http://gpu.example") as client:
        assert client.post("/v1/segment", json=SEGMENT, headers=headers).status_code == status
        assert len(client.pipeline.mllm.asked) == (status == 200)
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
    ids=["dns-rebinding", "cross-origin", "null-origin"],
)
def test_pages_of_other_sites_are_refused(client, headers) -> None:
    assert client.post("/v1/segment", json=SEGMENT, headers=headers).status_code == 403
    assert not client.pipeline.mllm.asked


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        (ServeLimits(bytes=1000), {"json": SEGMENT}),
        (ServeLimits(bytes=1000), {"content": iter([b"x" * 600] * 2)}),
        (ServeLimits(pixels=19_999), {"json": SEGMENT}),
    ],
    ids=["length", "chunked", "pixels"],
)
def test_what_is_too_large_is_413(limits, sent) -> None:
    with make_client(limits=limits) as client:
        headers = {"Content-Type": "application/json"}
        assert client.post("/v1/segment", headers=headers, **sent).status_code == 413


class Slow(Recorder):
    """Waits before it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.waits = threading.Event(), threading.Event()

    def encode(self, images):
        self.waits.set()
        assert self.go.wait(10)
        return super().encode(images)


def test_a_full_queue_is_503_and_what_was_taken_is_done() -> None:
    segmenter = Slow()
    with make_client(segmenter=segmenter, limits=ServeLimits(waiting=1)) as client:
        codes: list[int] = []

        def post() -> None:
            codes.append(client.post("/v1/segment", json=SEGMENT).status_code)

        threads = [threading.Thread(target=post) for _ in range(2)]
        threads[0].start()
        assert segmenter.waits.wait(10)
        threads[1].start()
        while "rsvp_queue_waiting 1" not in client.get("/metrics").text:
            time.sleep(0.01)
        refused = client.post("/v1/segment", json=SEGMENT)
        segmenter.go.set()
        for thread in threads:
            thread.join(10)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert codes == [200, 200]


def test_a_request_that_takes_too_long_is_503() -> None:
    segmenter = Slow()
    with make_client(segmenter=segmenter, limits=ServeLimits(seconds=0.2)) as client:
        response = client.post("/v1/segment", json=SEGMENT)
        segmenter.go.set()
    assert response.status_code == 503
    assert "no result in 0.2 s" in response.text


@pytest.mark.parametrize("log_queries", [False, True])
def test_the_log_holds_no_image_and_no_token(caplog, log_queries) -> None:
    caplog.set_level(logging.INFO, "rsvp.serving")
    with make_client(token=TOKEN, log_queries=log_queries) as client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client.post(f"/v1/segment?token={TOKEN}", json=SEGMENT, headers=headers)
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert lines[-1]["status"] == 200
    assert TOKEN not in caplog.text
    assert IMAGE[:40] not in caplog.text
    assert ("the cup" in caplog.text) is log_queries


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.2", "[::1]:8000"])
def test_names_of_this_machine_need_no_token(client, host) -> None:
    assert client.get("/metrics", headers={"Host": host}).status_code == 200


# ------------------------------------------------------------ attacks

ZEROS = base64.b64encode(bytes(1000)).decode()
BOMB = base64.b64encode(  # a PNG's header that says 60,000 x 60,000
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
).decode()
PLACES = [
    "http://127.0.0.1:1/a.png", "https://evil.example/x", "file:///etc/passwd", "/etc/passwd",
    "../../etc/passwd", "demo", "-", "data:image/png,abc", "data:;base64,", "", "\0", "ftp://x/y",
    "data:text/html;base64,PGI+", ZEROS, BOMB, IMAGE[:60], "data:image/png;base64," + ZEROS,
    "https://evil.example/,aGk=", "%2e%2e%2f", "é" * 10,
]  # fmt: skip
FIELDS = [
    {"boxes": [[1, 2, 3]]}, {"boxes": [[9, 9, 1, 1]]}, {"boxes": [[900, 900, 990, 990]]},
    {"boxes": []}, {"boxes": "1,2,3,4"}, {"boxes": [[0, 0, 1e999, 5]]}, {"boxes": [[1] * 4] * 1001},
    {"points": [[1, 2, 7]]}, {"points": [[-5, 2]]}, {"points": [[None, 2]]}, {"verify": 99},
    {"verify": -1}, {"verify": "x"}, {"query": ""}, {"query": "x" * 10_001}, {"query": 3},
    {"query": None}, {"image_path": "/etc/passwd"}, {"path": "x"}, {"id": "../x"},
    {"out": "/tmp/x"},
    {"preset": "api"}, {"mllm": "openai:x"}, {"option": "base_url=http://evil"}, {"zoom": "box"},
    {"within": [0, 0, 9, 9], "boxes": [[0, 0, 9, 9]]}, {"labels": ["a"]}, {"image": None},
    {"image": ["a"]}, {"__class__": 1},
]  # fmt: skip
BODIES = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"{" * 5000, b"[" * 100_000,
    b'{"image": NaN}', b"image=x", b"--x\r\n", b'{"image": "' + b"A" * 999, bytes(1000),
]  # fmt: skip
TYPES = [
    "text/plain", "application/xml", "application/x-www-form-urlencoded", "", "multipart/form-data",
    "multipart/form-data; boundary=", "multipart/form-data; boundary=x", "image/png",
    "application/json/../x", "application/octet-stream",
]  # fmt: skip
PATHS = [
    "/../etc/passwd", "/..%2f..%2fetc/passwd", "/v1/segment/../../x", "/static/../../x", "/v1/",
    "/v1/models/..%2f../info", "/v1/models/x/info", "/predict/x", "/v1/Segment", "/.git/config",
    "/%00", "/v1/segment%00", "/v1/pipelines?x=/etc/passwd",
]  # fmt: skip
ATTACKS = [
    *(("POST", "/v1/segment", {"json": {"image": place, "query": "x"}}) for place in PLACES),
    *(("POST", "/v1/segment", {"json": {**SEGMENT, **fields}}) for fields in FIELDS),
    *(("POST", path, {"content": b, "headers": {"Content-Type": "application/json"}})
      for b in BODIES for path in ("/v1/trace",)),
    *(("POST", "/v1/answer", {"content": b"{}", "headers": {"Content-Type": t}}) for t in TYPES),
    *(("GET", path, {}) for path in PATHS),
    *((method, "/v1/segment", {}) for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE")),
    *(("POST", path, {}) for path in ("/health", "/metrics", "/docs")),
    *(("POST", "/v1/segment", {"json": SEGMENT, "headers": headers}) for headers in (
        {"Content-Length": "9" * 30}, {"Content-Length": "-1"}, {"Host": "a b"},
        {"Origin": "http://127.0.0.1.evil.example"}, {"Origin": "file://"})),
]  # fmt: skip


def test_a_hundred_attacks_are_refused_and_change_nothing(client) -> None:
    assert len(ATTACKS) >= 100
    wrong = []
    for method, path, sent in ATTACKS:
        headers = {"Content-Type": "application/json"} if "json" in sent else {}
        content = json.dumps(sent["json"]) if "json" in sent else sent.get("content")  # NaN, too
        headers |= sent.get("headers", {})
        response = client.request(method, path, content=content, headers=headers)
        if not 400 <= response.status_code < 500:
            wrong.append((method, path, str(sent)[:80], response.status_code, response.text[:80]))
    assert wrong == []
    assert not client.pipeline.mllm.asked
    assert not client.pipeline.segmenter.prompted
    assert client.post("/v1/segment", json=SEGMENT).status_code == 200
