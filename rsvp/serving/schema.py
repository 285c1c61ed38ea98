"""What a request of the JSON API holds, read from JSON or from multipart form data."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM
from rsvp.batch.items import BatchItem
from rsvp.batch.tasks import AnswerTask, SegmentTask, Task
from rsvp.errors import BadInput
from rsvp.platform.files import parse_json, validate
from rsvp.serving.limits import RequestRefused

M = TypeVar("M", bound=BaseModel)

MAX_WORDS = 10_000  # characters of a query
MAX_ROUNDS = 5  # of verification
_BODY = "the request's body"
_NO_URLS = "the image is base64 or a data URI; URLs and paths are not opened"

_Words = Annotated[str, Field(max_length=MAX_WORDS)]
_Xyxy = Annotated[tuple[float, ...], Field(min_length=4, max_length=4)]
_Click = Annotated[tuple[float, ...], Field(min_length=2, max_length=3)]
_Boxes = Annotated[tuple[_Xyxy, ...], Field(max_length=1000)]
_Clicks = Annotated[tuple[_Click, ...], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, ready for the queue.

    Attributes:
        image: the bytes of its file.
        verify: rounds of verification; None for those that the server was started with.
        strategy: its name; None for the one that the server was started with.
        preset: its name; None for the one in memory.
    """

    image: bytes
    item: BatchItem
    task: Task
    verify: int | None = None
    strategy: str | None = None
    preset: str | None = None


class SegmentBody(BaseModel):
    """`POST /v1/segment`: find what the query asks for. Coordinates are pixels of the image."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    hidden: ClassVar[set[str]] = {
        "image",
        "verify",
        "strategy",
        "preset",
    }  # no fields of a `BatchItem`

    image: str
    """The image's file as base64 or as a data URI. URLs and paths are not opened."""
    query: _Words = Field(default="", validation_alias=AliasChoices("query", "question"))
    """In any language; not needed with boxes or points."""
    boxes: _Boxes | None = None
    """x0, y0, x1, y1 of each target; no MLLM is asked."""
    points: _Clicks | None = None
    """x, y of one target, or x, y, 0 for "not this"; no MLLM is asked."""
    labels: tuple[_Words, ...] | None = None
    """What the boxes show, one for each or one for all."""
    within: _Xyxy | None = None
    """A hint for the MLLM: only what lies in this box counts."""
    exclude: _Clicks | None = None
    """A hint for the MLLM: x, y of what is not meant."""
    verify: int | None = Field(default=None, ge=0, le=MAX_ROUNDS)
    """Rounds in which the MLLM looks at the masks and accepts, corrects or rejects each."""
    strategy: _Words | None = None
    """How the MLLM says where: one of the strategies that `GET /v1/pipeline` names."""
    preset: _Words | None = None
    """`rsvp demo`: the models, one of the presets that `GET /v1/pipeline` offers."""

    def task(self) -> Task:
        """What is done."""
        return SegmentTask()

    def ask(self, image: bytes) -> Ask:
        """The request with the bytes of its image."""
        item = BatchItem("", "", **self.model_dump(exclude=self.hidden))
        return Ask(image, item, self.task(), self.verify, self.strategy, self.preset)


class AnswerBody(SegmentBody):
    """`POST /v1/answer`: answer a question after closer looks at what matters."""

    hidden: ClassVar[set[str]] = {*SegmentBody.hidden, "zoom", "looks"}

    query: _Words = Field(validation_alias=AliasChoices("question", "query"))
    choices: tuple[_Words, ...] | None = None
    """What the answer is chosen from; without them it is free."""
    zoom: str = DEFAULT_ZOOM
    """How a look is shown: none, box or mask."""
    looks: int = Field(default=DEFAULT_LOOKS, ge=0, le=10)
    """How many closer looks the MLLM may ask for."""

    def task(self) -> Task:
        """An answer."""
        return AnswerTask(self.zoom, self.looks)


class TraceBody(SegmentBody):
    """`POST /v1/trace`: answer a question by a path of steps, each object with its mask."""

    query: _Words = Field(validation_alias=AliasChoices("question", "query"))

    def task(self) -> Task:
        """A reasoning path."""
        return SegmentTask(trace=True)


async def read_ask(request: Request, model: type[SegmentBody]) -> Ask:
    """A request of the API; large bodies are parsed in a thread.

    Raises:
        RequestRefused: 400, neither JSON nor multipart, or no image in it.
        BadInput: a field is wrong.
    """
    if _media_type(request) == "multipart/form-data":
        values, image = await _read_form(request)
        return validate(model.model_validate, values, _BODY).ask(image)
    body = await read_json(request, model)
    return body.ask(await asyncio.to_thread(decode_image, body.image))


async def read_json(request: Request, model: type[M]) -> M:
    """The JSON body of a request; errors as `read_ask`."""
    if _media_type(request) != "application/json":
        raise RequestRefused(400, "a request is application/json or multipart/form-data")
    content = await request.body()
    try:
        values = await asyncio.to_thread(parse_json, content, _BODY)
    except BadInput as error:
        raise RequestRefused(400, str(error)) from None
    return validate(model.model_validate, values, _BODY)


def decode_image(text: str) -> bytes:
    """The bytes of base64 or of a data URI; RequestRefused (400) for URLs, paths and all else."""
    head, comma, data = text.partition(",")
    if comma and not (head.startswith("data:") and head.endswith(";base64")):
        raise RequestRefused(400, _NO_URLS)
    try:
        image = base64.b64decode("".join((data if comma else text).split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused(400, _NO_URLS) from None
    if not image:
        raise RequestRefused(400, "the image is empty")
    return image


def openapi_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request body of a route, for its OpenAPI description."""
    schema = model.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "The image's file."}
    form = {**schema, "properties": {**schema["properties"], "image": file}}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_form(request: Request) -> tuple[dict[str, Any], bytes]:
    """The fields of a form, lists of numbers as JSON, and the bytes of the file ``image``."""
    try:
        form = await request.form(max_files=1, max_fields=20, max_part_size=1 << 20)
    except (MultiPartException, ValueError, KeyError) as error:
        raise RequestRefused(400, f"{_BODY}: broken form: {error}") from None
    try:
        return await _form_values(form)
    finally:
        await form.close()


async def _form_values(form: FormData) -> tuple[dict[str, Any], bytes]:
    names = [name for name, _ in form.multi_items()]
    if len(names) != len(set(names)):
        raise RequestRefused(400, f"{_BODY}: a field is there twice")
    upload = form.get("image")
    if not isinstance(upload, UploadFile):
        raise RequestRefused(400, f"{_BODY}: the form has no file 'image'")
    image = await upload.read()
    values: dict[str, Any] = {"image": ""}
    for name, text in form.items():
        if isinstance(text, str) and name != "image":
            is_list = name not in ("query", "question") and text.lstrip().startswith("[")
            values[name] = parse_json(text, f"{_BODY}: {name!r}") if is_list else text
    return values, image
