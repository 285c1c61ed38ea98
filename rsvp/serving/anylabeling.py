"""The remote server protocol of X-AnyLabeling, https://github.com/CVHub520/X-AnyLabeling-Server.

Its client shows HTTP errors, but nothing for a 200 with ``success: false``; so errors come
with their status here, as in the other routes.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from rsvp.errors import BadInput
from rsvp.result import Result
from rsvp.serving.limits import RequestRefused
from rsvp.serving.schema import MAX_WORDS, Ask, SegmentBody, decode_image, read_json
from rsvp.serving.service import Server
from rsvp.serving.shapes import polygons
from rsvp.types import Target
from rsvp.writers.common import label_of

MODEL = "rsvp"
UNNAMED = "AUTOLABEL_OBJECT"  # for which the client asks for a label
_WIDGETS = (
    "edit_text", "button_send", "button_add_point", "button_remove_point", "button_add_rect",
    "button_clear", "button_finish_object", "mask_fineness_slider", "mask_fineness_value_label",
    "toggle_preserve_existing_annotations",
)  # fmt: skip
_VALUES: dict[str, Any] = {
    "mask_fineness_slider": 10,
    "toggle_preserve_existing_annotations": False,
}


class Mark(BaseModel):
    """A click or a box that was drawn, in pixels."""

    type: Literal["point", "rectangle"]
    data: list[float] = Field(min_length=2, max_length=4)
    label: int = 1


class PredictParams(BaseModel):
    """What the client sends beside the image; thresholds are of other models."""

    model_config = ConfigDict(extra="ignore")

    text_prompt: str = Field(default="", max_length=MAX_WORDS)
    marks: list[Mark] = Field(default=[], max_length=1000)
    epsilon_factor: float = Field(default=0.001, ge=0, le=0.1)


class PredictBody(BaseModel):
    """`POST /v1/predict`."""

    model: str
    image: str
    params: PredictParams = PredictParams()

    def ask(self, image: bytes) -> Ask:
        """The request; the text is the query, or with marks the label."""
        points = [(*m.data, m.label) for m in self.params.marks if m.type == "point"]
        boxes = [m.data for m in self.params.marks if m.type == "rectangle"]
        text = self.params.text_prompt
        if not (points or boxes or text.strip()):
            raise BadInput("there is neither a text nor a mark: write what to look for")
        values = {"image": "", "query": text, "boxes": boxes or None, "points": points or None}
        try:
            return SegmentBody.model_validate(values).ask(image)
        except ValueError:
            raise BadInput("a point has two numbers, a rectangle has four") from None


def add_routes(app: FastAPI, server: Server) -> None:
    """Add the three routes of the protocol; `/health` is the server's own."""
    info = {
        "display_name": f"rsvp ({server.pipeline.segmenter.name})",
        "widgets": [{"name": name, "value": _VALUES.get(name)} for name in _WIDGETS],
        "params": {"epsilon_factor": 0.001},
        "capabilities": {},
        "batch_processing_mode": "text_prompt",
    }

    async def models() -> dict[str, Any]:
        """The model and the widgets that it uses."""
        return {"success": True, "data": {MODEL: info}}

    async def model_info(model: str) -> dict[str, Any]:
        """The same of one model."""
        _check_model(model)
        return {"success": True, "data": {"model_id": MODEL, **info}}

    async def predict(request: Request) -> dict[str, Any]:
        """Polygons of what the text asks for, or of what is marked."""
        body = await read_json(request, PredictBody)
        _check_model(body.model)
        ask = body.ask(await asyncio.to_thread(decode_image, body.image))
        marked, factor = bool(body.params.marks), body.params.epsilon_factor
        data = await server.result(
            request, lambda: shapes_of(server.perform(ask), marked=marked, epsilon_factor=factor)
        )
        return {"success": True, "data": data}

    app.add_api_route("/v1/models", models)
    app.add_api_route("/v1/models/{model}/info", model_info)
    app.add_api_route("/v1/predict", predict, methods=["POST"])


def _check_model(model: str) -> None:
    if model != MODEL:
        raise RequestRefused(404, f"there is one model, {MODEL}, found {model[:100]!r}")


def shapes_of(result: Result, *, marked: bool, epsilon_factor: float) -> dict[str, Any]:
    """The masks as the client reads them; where there are none, the description says why.

    Args:
        marked: the user marked the target, whose label the client knows.
        epsilon_factor: see `rsvp.serving.shapes.polygons`.
    """
    shapes = [
        shape
        for number, target in enumerate(result.targets, start=1)
        for shape in _shapes(target, number, UNNAMED if marked else None, epsilon_factor)
    ]
    said = "" if shapes else " ".join((result.reasoning.reason or "no target", *result.warnings))
    return {"shapes": shapes, "description": said, "replace": False if marked else None}


def _shapes(
    target: Target, number: int, label: str | None, epsilon_factor: float
) -> list[dict[str, Any]]:
    """A polygon for each separate part; several are a group."""
    parts = [*polygons(target.mask, epsilon_factor)]
    common = {
        "label": label or label_of(target),
        "shape_type": "polygon",
        "score": round(min(max(target.score, 0.0), 1.0), 4),
        "attributes": {},
        "description": None,
        "group_id": number if len(parts) > 1 else None,
    }
    # The client closes a polygon whose last point is its first one.
    return [{**common, "points": [*part.tolist(), part[0].tolist()]} for part in parts]
