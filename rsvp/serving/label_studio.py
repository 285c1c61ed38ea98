"""The ML backend of Label Studio, https://github.com/HumanSignal/label-studio-ml-backend."""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from rsvp import __version__
from rsvp.batch.items import BatchItem
from rsvp.batch.tasks import SegmentTask
from rsvp.errors import BadInput
from rsvp.result import Result
from rsvp.serving.limits import RequestRefused
from rsvp.serving.schema import MAX_WORDS, Ask, decode_image, read_json
from rsvp.serving.service import Server
from rsvp.serving.shapes import brush_rle, polygons
from rsvp.types import Target

_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels")  # the first one of a project is used
_MAX_CONFIG = 1 << 20  # characters
_SECONDS = 30.0  # for an uploaded image
_MAX_QUERIES = 100  # of one request


class LabelTask(BaseModel):
    """One image; what else Label Studio says of it is ignored."""

    id: Any = None
    data: dict[str, Any]


class LabelStudioBody(BaseModel):
    """`POST /predict`."""

    model_config = ConfigDict(extra="ignore")

    tasks: list[LabelTask] = Field(max_length=_MAX_QUERIES)
    label_config: str = Field(max_length=_MAX_CONFIG)
    params: dict[str, Any] | None = None


class SetupBody(BaseModel):
    """`POST /setup`; the host name and the token in it are not used."""

    model_config = ConfigDict(extra="ignore")

    label_schema: str = Field(default="", alias="schema", max_length=_MAX_CONFIG)


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What a project annotates.

    Attributes:
        kind: of the regions, see `_KINDS`.
        name: of the control, and `to_name` of its image.
        key: of the image in a task's data.
        labels: that the control offers.
    """

    kind: str
    name: str
    to_name: str
    key: str
    labels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> LabelConfig:
        """Read a labeling configuration; BadInput without an image and labels for its regions."""
        if "<!" in text.replace("<!--", ""):  # entities can expand without bound
            raise BadInput("the labeling configuration has a document type, which is not read")
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise BadInput(f"the labeling configuration is broken XML: {error}") from None
        images = {tag.get("name", ""): tag.get("value", "") for tag in root.iter("Image")}
        tags = [tag for tag in root.iter() if tag.get("toName") in images]
        for kind in _KINDS:
            for tag in (tag for tag in tags if tag.tag.lower() == kind):
                labels = tuple(label.get("value", "") for label in tag.iter("Label"))
                name, to_name = tag.get("name", ""), tag.get("toName", "")
                if labels:
                    return cls(kind, name, to_name, images[to_name].lstrip("$"), labels)
        raise BadInput(
            "the labeling configuration needs an Image with BrushLabels, PolygonLabels or "
            "RectangleLabels"
        )


def read_context(context: Any, size: tuple[int, int]) -> tuple[str, BatchItem] | None:
    """The label that was selected and the request, of what the user wrote and drew.

    Regions are targets; beside a text, rectangles and points on what is not meant are hints.

    Args:
        context: ``params.context``, whose coordinates are percent of the image.
        size: (H, W) of the image.

    Returns:
        None where nothing was written or drawn.

    Raises:
        BadInput: a region is not one of Label Studio's.
    """
    height, width = size
    text = label = ""
    clicks: list[tuple[float, float, int]] = []
    boxes: list[tuple[float, float, float, float]] = []
    try:
        for one in (context or {}).get("result") or []:
            value, kind = one["value"], str(one["type"]).lower()
            if kind == "textarea":
                words = value["text"]
                text = str(words if isinstance(words, str) else words[-1])[:MAX_WORDS].strip()
                continue
            x, y = value["x"] * width / 100, value["y"] * height / 100
            if kind.startswith("keypoint"):
                clicks.append((x, y, int(one.get("is_positive", True))))
            elif kind.startswith("rectangle"):
                right, low = value["width"] * width / 100, value["height"] * height / 100
                boxes.append((x, y, x + right, y + low))
            label = str((value.get(kind) or [""])[0])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise BadInput("a region of the context is not one of Label Studio's") from None
    if not (text or clicks or boxes):
        return None
    if text and not any(sign for _, _, sign in clicks):
        hints = tuple((x, y) for x, y, _ in clicks) or None
        item = BatchItem("", "", text, within=boxes[0] if boxes else None, exclude=hints)
    else:
        item = BatchItem("", "", text or label, tuple(boxes) or None, tuple(clicks) or None)
    return label, item


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Uploads:
    """Reads the images that lie in the Label Studio that the operator named, and no others.

    Args:
        url: of Label Studio; None where tasks hold their images as data URIs.
        key: its API key, an access token or a personal one.

    Raises:
        BadInput: the URL is none.
    """

    def __init__(self, url: str | None = None, key: str = "") -> None:
        parts = urlsplit(url or "")
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
            raise BadInput("--label-studio is like http://localhost:8080")
        self._url, self._key = (url or "").rstrip("/"), key.strip()
        self._open = urllib.request.build_opener(_NoRedirects).open

    def read(self, source: str, most: int) -> bytes:
        """The bytes of an image: a data URI, or a path of Label Studio's own under ``/data/``.

        Raises:
            RequestRefused: 400, it is anything else; 502, Label Studio does not give it.
        """
        if not source.startswith("/data/"):
            return decode_image(source)
        if not self._url:
            raise RequestRefused(
                400, "the image is in Label Studio: start rsvp serve --label-studio URL"
            )
        if ".." in unquote(unquote(source)) or not source.isprintable():
            raise RequestRefused(400, "the path of the image is not one of Label Studio's")
        try:
            data = self._get(quote(source, safe="/%?=&+:,@~-._"), most)
        except (OSError, HTTPException, ValueError, KeyError) as error:
            code = getattr(error, "code", None) or type(error).__name__
            raise RequestRefused(502, f"Label Studio does not give the image: {code}") from None
        if len(data) > most:
            raise RequestRefused(413, f"the image has more than {most:,} bytes")
        return data

    def _get(self, path: str, most: int) -> bytes:
        headers = {"Authorization": f"Token {self._key}"} if self._key else {}
        if self._key.count(".") == 2:  # a personal access token is exchanged for a short-lived one
            body = json.dumps({"refresh": self._key}).encode()
            fresh = self._fetch("/api/token/refresh", 1 << 16, {"Content-Type": "application/json"},
                                body)  # fmt: skip
            headers = {"Authorization": f"Bearer {json.loads(fresh)['access']}"}
        return self._fetch(path, most, headers)

    def _fetch(
        self, path: str, most: int, headers: dict[str, str], body: bytes | None = None
    ) -> bytes:
        request = urllib.request.Request(self._url + path, body, headers)
        with self._open(request, timeout=_SECONDS) as response:
            data: bytes = response.read(most + 1)
        return data


def add_routes(app: FastAPI, server: Server, uploads: Uploads) -> None:
    """Add the routes of the protocol; `/health` is the server's own."""
    version = f"rsvp {__version__} ({server.pipeline.segmenter.name})"

    async def setup(request: Request) -> dict[str, Any]:
        """Check the project's labeling configuration."""
        body = await read_json(request, SetupBody)
        if body.label_schema:
            LabelConfig.parse(body.label_schema)
        return {"model_version": version}

    async def predict(request: Request) -> dict[str, Any]:
        """Regions of what the user wrote or drew; without either, of every label."""
        body = await read_json(request, LabelStudioBody)
        config = await asyncio.to_thread(LabelConfig.parse, body.label_config)
        context = (body.params or {}).get("context")
        results = await server.result(
            request,
            lambda: [_predict(server, uploads, task, config, context) for task in body.tasks],
        )
        return {"results": [{"model_version": version, **one} for one in results]}

    async def webhook() -> dict[str, str]:
        """Nothing is learned from annotations."""
        return {"status": "ok"}

    app.add_api_route("/setup", setup, methods=["POST"])
    app.add_api_route("/predict", predict, methods=["POST"])
    app.add_api_route("/webhook", webhook, methods=["POST"], status_code=201)


def _predict(
    server: Server, uploads: Uploads, task: LabelTask, config: LabelConfig, context: Any
) -> dict[str, Any]:
    """The regions of one image, and the mean of their scores."""
    source = task.data.get(config.key)
    if not isinstance(source, str):
        raise BadInput(f"the task's data has no image {config.key!r}")
    data = uploads.read(source, server.limits.bytes)
    image = server.open_image(data)
    drawn = read_context(context, (image.height, image.width))
    asked = [drawn] if drawn else [(one, BatchItem("", "", one)) for one in config.labels]
    found: list[tuple[Target, str, Result]] = []
    for label, item in asked:
        result = server.perform(Ask(data, item, SegmentTask()))
        found += [(target, label or _label(target, config), result) for target in result.targets]
    regions = [one for found_one in found for one in _regions(*found_one, config)]
    scores = [target.score for target, _, _ in found]
    return {"result": regions, "score": round(sum(scores) / max(len(scores), 1), 4)}


def _label(target: Target, config: LabelConfig) -> str:
    """The longest label of the project that the target's name holds; else the first one."""
    name = target.label.casefold()  # "knife" of "kitchen knife"
    held = (one for one in config.labels if one.casefold() in name)
    return max(held, key=len, default=config.labels[0])


def _regions(
    target: Target, label: str, result: Result, config: LabelConfig
) -> Iterator[dict[str, Any]]:
    """A target as regions: one, or a polygon for each separate part."""
    height, width = result.image.height, result.image.width
    mask = target.mask
    for value in _values(config.kind, target, mask, (100 / width, 100 / height)):
        yield {
            "id": secrets.token_hex(5),
            "from_name": config.name,
            "to_name": config.to_name,
            "type": config.kind,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": round(target.score, 4),
            "value": {**value, config.kind: [label]},
        }


def _values(
    kind: str, target: Target, mask: Any, percent: tuple[float, float]
) -> Iterator[dict[str, Any]]:
    if not mask.any():
        return
    if kind == "brushlabels":
        yield {"format": "rle", "rle": brush_rle(mask)}
    elif kind == "polygonlabels":
        for part in polygons(mask):
            yield {"points": (part * percent).tolist(), "closed": True}
    else:
        box = target.box
        x, y = box.x0 * percent[0], box.y0 * percent[1]
        yield {
            "x": x, "y": y, "width": box.width * percent[0], "height": box.height * percent[1],
            "rotation": 0,
        }  # fmt: skip
