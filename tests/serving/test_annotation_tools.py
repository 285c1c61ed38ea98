"""X-AnyLabeling's and Label Studio's requests as their clients send them, and what they read back.

Sources: CVHub520/X-AnyLabeling, services/auto_labeling/remote_server.py (0f38687);
HumanSignal/label-studio, ml/api_connector.py (0f1d1f0) and label-studio-ml-backend (d02cedf),
label_studio_ml/api.py and examples/segment_anything_2_image, grounding_sam. What Label Studio
1.23.2 sent from its page, and took as reply, is in tests/data (names and mask bytes removed).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from raw_server import raw_server, response
from scripted import answer, pipeline
from served import CUP, IMAGE, LOCAL, PNG, TestClient, make_client

from rsvp.pipeline import Pipeline
from rsvp.serving.app import make_app
from rsvp.serving.label_studio import Uploads
from rsvp.serving.shapes import brush_rle, polygons

URI = f"data:image/png;base64,{IMAGE}"
CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <TextArea name="prompt" toName="image" editable="true" rows="2" maxSubmissions="1"/>
  {control}
  <KeyPointLabels name="tag2" toName="image" smart="true"><Label value="cup"/></KeyPointLabels>
</View>"""
LABELS = '<Label value="cup" background="yellow"/><Label value="Thing 0"/>'
BRUSH = CONFIG.format(control=f'<BrushLabels name="tag" toName="image">{LABELS}</BrushLabels>')
TEXT = {"type": "textarea", "from_name": "prompt", "value": {"text": ["the cup"]}}
SIZES = {"original_width": 200, "original_height": 100}
RECTANGLE = {
    **SIZES, "type": "rectanglelabels",
    "value": {"x": 10, "y": 20, "width": 40, "height": 60, "rectanglelabels": ["cup"]},
}  # fmt: skip


def key_point(x: float, y: float, positive: bool) -> dict:
    value = {"x": x, "y": y, "width": 0.3, "keypointlabels": ["cup"]}
    return {**SIZES, "type": "keypointlabels", "is_positive": positive, "value": value}


def label_studio(client, *context: dict, config: str = BRUSH, image: str = URI):
    return client.post("/predict", json={
        "tasks": [{"id": 7, "data": {"image": image}, "annotations": [], "predictions": []}],
        "model_version": "", "project": "1.1790000000", "label_config": config,
        "params": {"login": None, "password": None,
                   "context": {"result": list(context)} if context else None},
    })  # fmt: skip


def any_labeling(client, **params):
    thresholds = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.001}
    body = {"model": "rsvp", "image": URI, "params": {**thresholds, **params}}
    return client.post("/v1/predict", json=body, headers={"Token": ""})


def brush_mask(numbers: list[int], size: tuple[int, int]) -> np.ndarray:
    """Label Studio's decoder, written from the format's description."""
    bits, place = "".join(f"{n:08b}" for n in numbers), 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes, values = [read(4) + 1 for _ in range(4)], []
    while len(values) < total:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(values).reshape(*size, 4)[..., 3] == 255


def filled(parts: list, size: tuple[int, int]) -> np.ndarray:
    rles = coco.frPyObjects([np.ravel(part).tolist() for part in parts], *size)
    return coco.decode(coco.merge(rles)).astype(bool)


def shape(name: str) -> np.ndarray:
    mask = np.zeros((40, 60), dtype=bool)
    if name != "empty":
        mask[5:30, 10:50] = True
    if name in ("hole", "parts"):
        mask[10:20, 20:30] = False
    if name == "parts":
        mask[33:38, 2:9] = mask[36, 50] = True
    if name == "full":
        mask[:] = True
    return np.random.default_rng(0).random((40, 60)) < 0.5 if name == "noise" else mask


# ------------------------------------------------------------ shapes


def test_the_brush_equals_label_studio_s_own_encoder() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[1:4, 2:6] = True
    mask[2, 3] = False
    # label_studio_converter.brush.mask2rle of version 0.0.59; another 300 masks were compared once.
    assert brush_rle(mask) == [
        0, 0, 0, 140, 57, 27, 254, 35, 0, 191, 255, 108, 2, 63, 248, 192, 39, 255, 182, 1, 127, 255,
        15, 128, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["empty", "box", "hole", "parts", "full", "noise"])
def test_brush_and_polygons_have_the_pixels_of_the_mask(name) -> None:
    mask = shape(name)
    assert (brush_mask(brush_rle(mask), mask.shape) == mask).all()
    parts = [*polygons(mask)]
    assert bool(parts) == mask.any()
    assert not parts or (filled(parts, mask.shape) == mask).all()


def test_simplified_polygons_have_few_corners_and_nearly_all_pixels() -> None:
    y, x = np.mgrid[:200, :200]
    disc = (x - 100) ** 2 + (y - 100) ** 2 < 80**2
    (exact,), (short,) = polygons(disc), polygons(disc, 0.002)
    found = filled([short], disc.shape)
    assert len(short) < len(exact) / 4
    assert (found & disc).sum() / (found | disc).sum() > 0.98


# ------------------------------------------------------------ X-AnyLabeling


def test_any_labeling_finds_the_model_and_its_text_box(client) -> None:
    info = client.get("/v1/models", headers={"Token": ""}).json()["data"]["rsvp"]
    assert {"edit_text", "button_send"} <= {widget["name"] for widget in info["widgets"]}
    assert client.get("/v1/models/rsvp/info").json()["data"]["display_name"]


def test_any_labeling_gets_the_masks_of_a_text(client) -> None:
    body = any_labeling(client, text_prompt="the cup", epsilon_factor=0).json()
    (one,) = body["data"]["shapes"]
    assert (body["success"], one["label"], one["shape_type"]) == (True, "thing 0", "polygon")
    expected = pipeline(CUP).segment(PNG, "the cup").mask
    assert (filled([one["points"]], (100, 200)) == expected).all()


@pytest.mark.parametrize(
    ("marks", "pixels"),
    [
        ([{"type": "rectangle", "data": [10, 20, 60, 70], "label": 1}], 2500),
        ([{"type": "point", "data": [10, 20], "label": 1},
          {"type": "point", "data": [50, 20], "label": 1}], 2),
    ],
)  # fmt: skip
def test_any_labeling_gets_the_masks_of_marks_without_the_mllm(client, marks, pixels) -> None:
    shapes = any_labeling(client, marks=marks, epsilon_factor=0).json()["data"]["shapes"]
    assert {one["label"] for one in shapes} == {"AUTOLABEL_OBJECT"}
    assert filled([one["points"] for one in shapes], (100, 200)).sum() == pixels
    assert not client.pipeline.mllm.asked


def test_any_labeling_is_told_why_there_is_nothing() -> None:
    with make_client('{"targets": [], "reason": "there is no cup"}') as client:
        data = any_labeling(client, text_prompt="the cup").json()["data"]
    assert (data["shapes"], data["description"]) == ([], "there is no cup")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "sam"}, 404),
        ({"image": "http://127.0.0.1/a.png"}, 400),
        ({"params": {}}, 422),
        ({"params": {"marks": [{"type": "rectangle", "data": [1, 2, 3]}]}}, 422),
    ],
)
def test_any_labeling_s_client_sees_an_error_as_one(client, body, status) -> None:
    whole = {"model": "rsvp", "image": URI, "params": {"text_prompt": "a"}, **body}
    assert client.post("/v1/predict", json=whole).status_code == status


# ------------------------------------------------------------ Label Studio


def test_label_studio_connects(client) -> None:
    body = {"project": "1.1", "schema": BRUSH, "hostname": "http://evil", "access_token": "x"}
    assert client.get("/health").json()["status"] == "UP"
    assert client.post("/setup", json=body).json()["model_version"].startswith("rsvp")
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 201


def test_label_studio_gets_the_brush_mask_of_a_text(client) -> None:
    (found,) = label_studio(client, TEXT).json()["results"]
    (region,) = found["result"]
    assert (region["from_name"], region["to_name"], region["type"]) == (
        "tag",
        "image",
        "brushlabels",
    )
    assert region["value"]["brushlabels"] == ["Thing 0"]  # as the MLLM called it
    mask = brush_mask(region["value"]["rle"], (region["original_height"], region["original_width"]))
    assert (mask == pipeline(CUP).segment(PNG, "the cup").mask).all()
    assert found["score"] == region["score"] == 0.9


@pytest.mark.parametrize(
    ("name", "label"),
    [("kitchen thing 0", "Thing 0"), ("a cupboard", "cup"), ("Cup of Thing 0", "Thing 0"),
     ("a fork", "cup")],
)  # fmt: skip
def test_a_label_is_found_in_the_target_s_name(name, label) -> None:
    with make_client(CUP.replace("thing 0", name)) as client:
        (region,) = label_studio(client, TEXT).json()["results"][0]["result"]
    assert region["value"]["brushlabels"] == [label]


DEMO = Path(__file__).parents[2] / "rsvp/embedded/demo.png"  # 480 x 480
RECORDED = json.loads((Path(__file__).parents[1] / "data/label_studio_1.23.2.json").read_text())


def asked_of_the_python_api(value: dict) -> dict:
    """What a region of Label Studio means; its numbers are percent."""
    if "text" in value:
        return {"query": value["text"][0]}
    x, y, width, height = (value.get(key, 0) * 480 / 100 for key in ("x", "y", "width", "height"))
    region = {"boxes": [[x, y, x + width, y + height]]} if height else {"points": [[x, y]]}
    return {"query": "cup", **region}  # the label that was selected


@pytest.fixture(scope="module")
def embedded() -> Pipeline:
    return Pipeline.from_preset("embedded")


@pytest.mark.parametrize("name", ["text", "rectangle", "point"])
def test_recorded_requests_get_the_masks_of_the_python_api(embedded, name) -> None:
    sent, reply = RECORDED[name], RECORDED[name]["reply"]["results"][0]
    with raw_server(lambda _: [response(DEMO.read_bytes())]) as studio:
        app = make_app(embedded, uploads=Uploads(studio.url.removesuffix("/v1")))
        with TestClient(app, base_url=LOCAL) as client:
            setup = client.post("/setup", json=RECORDED["setup"]["body"]).json()
            (found,) = client.post(sent["path"], json=sent["body"]).json()["results"]
    (region,), (taken,) = found["result"], reply["result"]
    assert setup.keys() == RECORDED["setup"]["reply"].keys()
    assert (found.keys(), region.keys()) == (reply.keys(), taken.keys())
    assert region["value"]["brushlabels"] == taken["value"]["brushlabels"]
    value = sent["body"]["params"]["context"]["result"][0]["value"]
    expected = embedded.segment(DEMO, **asked_of_the_python_api(value)).mask
    assert (brush_mask(region["value"]["rle"], expected.shape) == expected).all()


def test_label_studio_gets_polygons_and_rectangles_in_percent(client) -> None:
    found = {}
    for kind in ("Polygon", "Rectangle"):
        control = f'<{kind}Labels name="tag" toName="image">{LABELS}</{kind}Labels>'
        results = label_studio(client, TEXT, config=CONFIG.format(control=control)).json()[
            "results"
        ]
        found[kind] = results[0]["result"][0]["value"]
    assert found["Polygon"]["closed"]
    pixels = np.array(found["Polygon"]["points"]) * [2, 1]
    assert (filled([pixels], (100, 200)) == pipeline(CUP).segment(PNG, "the cup").mask).all()
    assert [found["Rectangle"][k] for k in ("x", "y", "width", "height")] == [10, 20, 40, 60]


@pytest.mark.parametrize(
    ("context", "box", "points"),
    [
        ([RECTANGLE], (20, 20, 100, 80), 0),
        ([key_point(10, 20, True), key_point(50, 20, False)], None, 2),
        ([RECTANGLE, key_point(50, 20, False)], (20, 20, 100, 80), 1),
    ],
    ids=["rectangle", "key-points", "both"],
)
def test_label_studio_s_regions_are_prompts_with_their_label(client, context, box, points) -> None:
    (region,) = label_studio(client, *context).json()["results"][0]["result"]
    assert region["value"]["brushlabels"] == ["cup"]
    ((proposal,),) = client.pipeline.segmenter.prompted
    assert (proposal.box and proposal.box.xyxy, len(proposal.points)) == (box, points)
    assert not client.pipeline.mllm.asked


def test_beside_a_text_a_rectangle_is_a_hint(client) -> None:
    client.pipeline.mllm.lines = [answer([100, 200, 500, 800], [800, 800, 900, 900])]
    regions = label_studio(client, TEXT, RECTANGLE).json()["results"][0]["result"]
    assert len(regions) == len(client.pipeline.mllm.asked) == 1


def test_without_a_context_every_label_is_asked_for_and_the_image_encoded_once(client) -> None:
    regions = label_studio(client).json()["results"][0]["result"]
    assert [one["value"]["brushlabels"][0] for one in regions] == ["cup", "Thing 0"]
    assert len(client.pipeline.mllm.asked) == 2
    assert len(client.pipeline.segmenter.encoded) == 1


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"config": BOMB}, 422, "document type"),
        ({"config": "<View>"}, 422, "broken XML"),
        ({"config": "<View><Text name='t' value='$t'/></View>"}, 422, "needs an Image"),
        ({"image": "http://127.0.0.1:1/a.png"}, 400, "URLs"),
        ({"image": "/data/upload/1/a.png"}, 400, "--label-studio"),
        ({"image": "/etc/passwd"}, 400, "paths are not opened"),
    ],
)
def test_what_label_studio_may_not_ask_is_refused(client, sent, status, words) -> None:
    found = label_studio(client, TEXT, **sent)
    assert (found.status_code, words in found.text) == (status, True)


@pytest.mark.parametrize(
    ("key", "expected"),
    [("legacy", ["GET /data/upload/1/a%20b.png Token legacy"]),
     ("a.b.c", ["POST /api/token/refresh", "GET /data/upload/1/a%20b.png Bearer fresh"])],
)  # fmt: skip
def test_uploads_come_from_the_named_label_studio_alone(key, expected) -> None:
    def reply(body: bytes):
        is_refresh = body == json.dumps({"refresh": key}).encode()
        yield response(b'{"access": "fresh"}' if is_refresh else PNG)

    with raw_server(reply) as studio:
        uploads = Uploads(studio.url.removesuffix("/v1"), key)
        with make_client(uploads=uploads) as client:
            found = label_studio(client, TEXT, image="/data/upload/1/a b.png")
            for path in (
                "/data/../api/users",
                "/data/%2e%2e/x",
                "/data/%252e%252e/x",
                "/data/\r\nX",
            ):
                assert label_studio(client, TEXT, image=path).status_code == 400
        heads = [head.split("\r\n") for head in studio.heads]
    assert len(found.json()["results"][0]["result"]) == 1
    lines = [
        " ".join([head[0].removesuffix(" HTTP/1.1"),
                  *(h.partition(": ")[2] for h in head if h.startswith("Authorization"))])
        for head in heads
    ]  # fmt: skip
    assert lines == expected


@pytest.mark.parametrize(
    "sent",
    [response(b"", "302 Found", "text/plain", "Location: http://127.0.0.1:1/"),
     response(b"", "404 Not Found"), b"garbage"],
    ids=["redirect", "missing", "garbage"],
)  # fmt: skip
def test_a_label_studio_that_gives_no_image_is_502(sent) -> None:
    with raw_server(lambda _: [sent]) as studio:
        uploads = Uploads(studio.url.removesuffix("/v1"))
        with make_client(uploads=uploads) as client:
            found = label_studio(client, TEXT, image="/data/upload/1/a.png")
    assert found.status_code == 502
