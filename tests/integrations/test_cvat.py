"""CVAT's own runner of detection functions with ours; its server alone is left out."""

from __future__ import annotations

import importlib.util
import logging
from types import SimpleNamespace

import pytest
from PIL import Image as Pil
from pycocotools import mask as coco
from scripted import Recorder, answer, picture, pipeline

from rsvp.errors import BadInput, MissingExtra, UnparsableReply
from rsvp.integrations import cvat
from rsvp.platform import extras

CUP = answer([100, 200, 500, 800])
NO_KNIFE = '{"targets": [], "reason": "there is no knife"}'
FRAME = Pil.fromarray(picture())  # 200 x 100
QUERIES = {"cup": "the cup", "knife": "what cuts bread?"}

needs_sdk = pytest.mark.skipif(not importlib.util.find_spec("cvat_sdk"), reason="no cvat-sdk")


def annotate(monkeypatch, function, **options):
    """What CVAT's `annotate_task` would upload for a task of one frame."""
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import driver

    labels = [
        models.Label(id=70 + i, name=name, type="any", attributes=[], sublabels=[])
        for i, name in enumerate(QUERIES)
    ]
    media = SimpleNamespace(load_image=lambda: FRAME)
    sample = SimpleNamespace(frame_name="a.jpg", frame_index=5, media=media)
    data = SimpleNamespace(labels=labels, samples=[sample])
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: data)
    sent = []
    api = SimpleNamespace(
        partial_update_annotations=lambda *_, patched_labeled_data_request: sent.append(
            patched_labeled_data_request
        )
    )
    client = SimpleNamespace(logger=logging.getLogger(), tasks=SimpleNamespace(api=api))
    driver.annotate_task(client, 1, function, **options)
    return sent[0].shapes


@needs_sdk
def test_cvat_gets_the_masks_of_the_python_api(monkeypatch) -> None:
    from cvat_sdk.masks import decode_mask

    pipe = pipeline(CUP, NO_KNIFE, segmenter=Recorder())
    (shape,) = annotate(monkeypatch, cvat.CvatFunction(pipe, QUERIES))
    expected = pipeline(CUP).segment(FRAME, "the cup").mask
    mask = decode_mask(shape.points, image_width=200, image_height=100)
    assert (mask == expected).all()
    assert (shape.label_id, shape.frame, shape.type.value) == (70, 5, "mask")
    assert [QUERIES["knife"] in str(asked) for asked in pipe.mllm.asked] == [False, True]
    assert len(pipe.segmenter.encoded) == 1


@needs_sdk
def test_cvat_gets_polygons_where_it_asks_for_them(monkeypatch) -> None:
    function = cvat.CvatFunction(pipeline(CUP), {"knife": "the cup"})
    (shape,) = annotate(monkeypatch, function, conv_mask_to_poly=True)
    mask = coco.decode(coco.frPyObjects([shape.points], 100, 200))[..., 0]
    assert (mask == pipeline(CUP).segment(FRAME, "the cup").mask).all()
    assert annotate(monkeypatch, function, conf_threshold=1.0) == []


@needs_sdk
def test_a_failure_names_its_frame_and_is_no_empty_frame(monkeypatch) -> None:
    function = cvat.CvatFunction(pipeline("no JSON"), QUERIES)
    with pytest.raises(UnparsableReply) as caught:
        annotate(monkeypatch, function)
    assert caught.value.__notes__ == ["frame 'a.jpg', label 'cup'"]


@needs_sdk
def test_the_command_line_s_parameters_make_the_function() -> None:
    function = cvat.create("cup; knife = what cuts?", mllm="none", segmenter="box")
    assert [label.name for label in function.spec.labels] == ["cup", "knife"]


@pytest.mark.parametrize("text", ["", " ; ", "cup; cup = a", "= what cuts?"])
def test_labels_that_cannot_be_used(text) -> None:
    with pytest.raises(BadInput, match="queries"):
        cvat.create(text)


def test_a_missing_sdk_is_named(monkeypatch) -> None:
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'rsvp-segmentation\[cvat\]'"):
        cvat.create("cup")
